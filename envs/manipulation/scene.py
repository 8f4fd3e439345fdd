"""The input of a reward, which is the worlds of one environment after a step, and the specification of one."""

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

    The tensors are the same objects at every step; each step overwrites their values.

    Attributes:
        arms: the simulations.
        attributes: attributes that the package's environment sets at a reset, by name; ``[W]`` or ``[W, D]``.
        observation: hand, gripper opening and two objects, as in the observation ``[W, 18]``.
        tcp: tool centre point, the midpoint between the fingers ``[W, 3]``.
        pads: positions of the left and right pad ``[W, 2, 3]``.
        tcp_to_object: distance from ``tcp`` to the first object ``[W]``.
        effort: effort of the gripper ``[W]``, in [-1, 1].
        closing: closing effort of the gripper ``[W]``, in [0, 1].
        cache: values of functions decorated by ``cached_until_reset``.
    """

    arms: Arms
    attributes: Mapping[str, Tensor]
    observation: Tensor
    tcp: Tensor
    pads: Tensor
    tcp_to_object: Tensor
    effort: Tensor
    closing: Tensor
    cache: dict[object, Tensor]

    @cached_property
    def hand(self) -> Tensor:
        """Position of the hand ``[W, 3]``."""
        return self.observation[:, :3]

    @cached_property
    def opening(self) -> Tensor:
        """How far the gripper is open ``[W]``, in [0, 1]."""
        return self.observation[:, 3]

    @cached_property
    def object(self) -> Tensor:
        """Position of the first object ``[W, 3]``."""
        return self.observation[:, 4:7]

    @cached_property
    def height(self) -> Tensor:
        """Height of the first object ``[W]``."""
        return self.observation[:, 6]

    @cached_property
    def rotation(self) -> Tensor:
        """Quaternion of the first object ``[W, 4]``, in the order used in the observation."""
        return self.observation[:, 7:11]

    @cached_property
    def second_object(self) -> Tensor:
        """Position of the second object ``[W, 3]``."""
        return self.observation[:, 11:14]

    @property
    def target(self) -> Tensor:
        """Position of the goal ``[W, 3]``."""
        return self.attributes["_target_pos"]

    @property
    def initial_object(self) -> Tensor:
        """Initial position of the first object, according to the package ``[W, 3]``."""
        return self.attributes["obj_init_pos"]

    @property
    def initial_tcp(self) -> Tensor:
        """Initial position of ``tcp`` ``[W, 3]``."""
        return self.attributes["init_tcp"]

    @cached_property
    def initial_height(self) -> Tensor:
        """Initial height of the first object ``[W]``."""
        return self.initial_object[:, 2]

    def position(self, source: Source, name: str) -> Tensor:
        """Return the position ``[W, 3]`` of a body, geom or site."""
        return self.arms.view(POSITIONS[source], source, name)

    def joint(self, name: str) -> Tensor:
        """Return the position ``[W]`` of a joint with one degree of freedom."""
        return self.arms.joint(name)

    def vector(self, *numbers: float) -> Tensor:
        """Return a constant vector in the engine's precision."""
        return constant(numbers, self.observation.dtype, self.observation.device)


Settings = ParamSpec("Settings")


def cached_until_reset(
    term: Callable[Concatenate[Scene, Settings], Tensor],
) -> Callable[Concatenate[Scene, Settings], Tensor]:
    """Compute a term once per reset; it may depend only on ``attributes`` and its arguments, and is never modified."""

    @wraps(term)
    def cached(scene: Scene, /, *settings: Settings.args, **named: Settings.kwargs) -> Tensor:
        key = term, settings, *named.items()
        if key not in scene.cache:
            scene.cache[key] = term(scene, *settings, **named)
        return scene.cache[key]

    return cached


@cached_until_reset
def initial_distance(scene: Scene) -> Tensor:
    """Return the distance from the first object's initial position to the goal ``[W]``."""
    return norm(scene.initial_object - scene.target)


# Returns rewards ``[W]``, and a bool ``[W]`` that is true where the goal is reached.
Reward = Callable[[Scene], tuple[Tensor, Tensor]]
Reader = Callable[[Arms], Tensor]


@dataclass(frozen=True)
class RotationMatrix:
    """A rotation whose quaternion, scalar last, is computed from the matrix for the observation."""

    source: Source
    name: str

    def read(self, arms: Arms) -> Tensor:
        """Return the live matrices ``[W, 9]``, or ``[W, 3, 3]``."""
        return arms.view(MATRICES[self.source], self.source, self.name)


@dataclass(frozen=True)
class EnvironmentSpec:
    """What is observed and rewarded in one environment.

    Attributes:
        positions: functions that read the positions ``[W, 3]`` of its one or two objects for the observation.
        rotations: functions that read their quaternions ``[W, 4]``, or matrices to compute them from.
        reward: computes the reward and success.
        attributes: names of attributes of the package's environment that the reward reads, besides the common ones.
        needs_contact_forces: whether success depends on contact forces.
    """

    positions: tuple[Reader, ...]
    rotations: tuple[Reader | RotationMatrix, ...]
    reward: Reward
    attributes: tuple[str, ...] = ()
    needs_contact_forces: bool = False


def position_of(source: Source, name: str, *offset: float) -> Reader:
    """Return a function that reads the position of a body, geom or site, shifted by a fixed offset."""

    def read(arms: Arms) -> Tensor:
        position = arms.view(POSITIONS[source], source, name)
        return position + constant(offset, position.dtype, position.device) if offset else position

    return read


def quaternion_of(name: str) -> Reader:
    """Return a function that reads the quaternion of a body as MuJoCo stores it, scalar first."""
    return lambda arms: arms.view("xquat", "body", name)


def fixed_values(*numbers: float) -> Reader:
    """Return a function that gives the same numbers for every world."""

    def read(arms: Arms) -> Tensor:
        qpos = arms.rows["qpos"]
        return constant(numbers, qpos.dtype, qpos.device).expand(len(qpos), -1)

    return read


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
