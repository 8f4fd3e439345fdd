"""What a reward sees of the worlds of one environment, and how an environment is described."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import Concatenate, ParamSpec

import torch
from torch import Tensor

from metarl.envs.manipulation.arms import MATRICES, POSITIONS, Arms, Source
from metarl.envs.manipulation.terms import constant, norm


@dataclass(frozen=True)
class Scene:
    """W worlds of one environment after a step, in the engine's precision.

    All tensors stay what they are from step to step: what they hold is written anew.

    Attributes:
        arms: their simulations.
        notes: of their tasks: what the package remembers of a reset, by the names of its attributes.
        seen: ``[W, 18]``: hand, gripper's opening, and two objects, as the observation has them.
        tcp: the middle between the fingers ``[W, 3]``.
        pads: left and right pad ``[W, 2, 3]``.
        reach: distance from ``tcp`` to the first object ``[W]``.
        effort: of the gripper ``[W]``, in [-1, 1].
        closed: the gripper's effort to close ``[W]``, in [0, 1].
        kept: terms of the start, by what computes them; see ``of_start``.
    """

    arms: Arms
    notes: Mapping[str, Tensor]
    seen: Tensor
    tcp: Tensor
    pads: Tensor
    reach: Tensor
    effort: Tensor
    closed: Tensor
    kept: dict[object, Tensor]

    @cached_property
    def hand(self) -> Tensor:
        """``[W, 3]``."""
        return self.seen[:, :3]

    @cached_property
    def opened(self) -> Tensor:
        """How far the gripper is open ``[W]``, in [0, 1]."""
        return self.seen[:, 3]

    @cached_property
    def object(self) -> Tensor:
        """Position of the first object ``[W, 3]``."""
        return self.seen[:, 4:7]

    @cached_property
    def height(self) -> Tensor:
        """Height of the first object ``[W]``."""
        return self.seen[:, 6]

    @cached_property
    def rotation(self) -> Tensor:
        """Quaternion of the first object ``[W, 4]``, in the order in which the observation has it."""
        return self.seen[:, 7:11]

    @cached_property
    def second_object(self) -> Tensor:
        """Position of the second object ``[W, 3]``."""
        return self.seen[:, 11:14]

    @property
    def target(self) -> Tensor:
        """Where the goal is ``[W, 3]``."""
        return self.notes["_target_pos"]

    @property
    def first_object(self) -> Tensor:
        """Where the package says that the object was at the start ``[W, 3]``."""
        return self.notes["obj_init_pos"]

    @property
    def first_tcp(self) -> Tensor:
        """Where ``tcp`` was at the start ``[W, 3]``."""
        return self.notes["init_tcp"]

    @cached_property
    def first_height(self) -> Tensor:
        """Height of the first object at the start ``[W]``."""
        return self.first_object[:, 2]

    def place(self, source: Source, name: str) -> Tensor:
        """Return the position ``[W, 3]`` of a body, geom or site."""
        return self.arms.view(POSITIONS[source], source, name)

    def joint(self, name: str) -> Tensor:
        """Return the position ``[W]`` of a joint with one degree of freedom."""
        return self.arms.joint(name)

    def vector(self, *numbers: float) -> Tensor:
        """Return a constant vector in the engine's precision."""
        return constant(numbers, self.seen.dtype, self.seen.device)


Settings = ParamSpec("Settings")


def of_start(
    term: Callable[Concatenate[Scene, Settings], Tensor],
) -> Callable[Concatenate[Scene, Settings], Tensor]:
    """Compute a term once for each start: it depends on nothing but ``notes`` and its settings, and is not changed."""

    @wraps(term)
    def kept(scene: Scene, /, *settings: Settings.args, **named: Settings.kwargs) -> Tensor:
        key = term, settings, *named.items()
        if key not in scene.kept:
            scene.kept[key] = term(scene, *settings, **named)
        return scene.kept[key]

    return kept


@of_start
def first_way(scene: Scene) -> Tensor:
    """Return the distance from the first object's place at the start to the goal ``[W]``."""
    return norm(scene.first_object - scene.target)


# Returns rewards ``[W]``, and a bool ``[W]``, true where the goal is reached.
Reward = Callable[[Scene], tuple[Tensor, Tensor]]
Look = Callable[[Arms], Tensor]


@dataclass(frozen=True)
class Turned:
    """A rotation matrix, of which the observation has the quaternion, the scalar last."""

    source: Source
    name: str

    def read(self, arms: Arms) -> Tensor:
        """Return the live matrices ``[W, 9]``, or ``[W, 3, 3]``."""
        return arms.view(MATRICES[self.source], self.source, self.name)


@dataclass(frozen=True)
class Kind:
    """One environment.

    Attributes:
        places: what gives the positions ``[W, 3]`` of its one or two objects, as the observation has them.
        rotations: what gives their quaternions ``[W, 4]``.
        reward: the package's second one.
        notes: what it remembers of a reset, by the names of the package's attributes, beside what all have.
        by_contact: whether success depends on contact forces.
    """

    places: tuple[Look, ...]
    rotations: tuple[Look | Turned, ...]
    reward: Reward
    notes: tuple[str, ...] = ()
    by_contact: bool = False


def at(source: Source, name: str, *offset: float) -> Look:
    """Look at the position of a body, geom or site, moved by a fixed offset."""

    def look(arms: Arms) -> Tensor:
        place = arms.view(POSITIONS[source], source, name)
        return place + constant(offset, place.dtype, place.device) if offset else place

    return look


def turned(name: str) -> Look:
    """Look at the quaternion of a body as MuJoCo has it, the scalar first."""
    return lambda arms: arms.view("xquat", "body", name)


def always(*numbers: float) -> Look:
    """Look at numbers that stay the same."""

    def look(arms: Arms) -> Tensor:
        qpos = arms.rows["qpos"]
        return constant(numbers, qpos.dtype, qpos.device).expand(len(qpos), -1)

    return look


def quaternions(matrices: Tensor) -> Tensor:
    """Return unit quaternions ``[W, 4]``, the scalar last, of rotation matrices ``[W, 9]`` or ``[W, 3, 3]``.

    Of the four rows that are proportional to the quaternion, the one with the largest diagonal entry is normalised
    (Shepperd 1978), which fixes the sign.
    """
    flat = matrices.reshape(len(matrices), 9)
    diagonal = flat[:, ::4]
    trace = diagonal[:, :1] + diagonal[:, 1:2] + diagonal[:, 2:]
    largest = torch.cat((diagonal, trace), 1).argmax(1)
    weights = constant(_ROWS, flat.dtype, flat.device).view(9, 16)
    rows = torch.addmm(constant(_EYE, flat.dtype, flat.device), flat, weights).view(-1, 4, 4)
    chosen = rows[torch.arange(len(rows), device=rows.device), largest]
    return chosen / norm(chosen)[:, None]


def _shepperd() -> tuple[float, ...]:
    """Return the linear map from matrix entries ``[9]`` to the four rows ``[4, 4]``, less the identity."""
    rows = torch.zeros(3, 3, 4, 4)
    for i in range(3):
        rows[i, i, torch.arange(3), torch.arange(3)] = -1
        rows[i, i, i, i] = 1
        rows[i, i, 3, 3] = 1
        j, k = (i + 1) % 3, (i + 2) % 3
        for row, column in ((i, j), (j, i)):
            rows[i, j, row, column] = rows[j, i, row, column] = 1
        for row, column in ((i, 3), (3, i)):
            rows[k, j, row, column], rows[j, k, row, column] = 1, -1
    return tuple(rows.flatten().tolist())


_ROWS = _shepperd()
_EYE = tuple(torch.eye(4).flatten().tolist())
