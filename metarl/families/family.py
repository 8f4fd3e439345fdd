"""The contract of a task family, and the registry of families.

A family is a frozen dataclass whose fields are the settings of its presets (ranges, sizes, horizon). It defines what a
task is, samples tasks, and implements the batched dynamics of many tasks at once. The same definition is used for
vector environments and single ones (``metarl.worlds.vector_env``).
"""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from textwrap import shorten
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from tensordict import TensorDict
from torch import Tensor

from metarl.errors import InputError
from metarl.families.pictures import text_picture
from metarl.families.positions import Map, Staying
from metarl.families.references import Reference
from metarl.families.words import Words
from metarl.listing import register_id
from metarl.registry import Registry
from metarl.validation import require_count

Part = Literal["train", "validation", "test"]
# What a learner may be evaluated on: a part of the split, or tasks outside the distribution.
Source = Literal["train", "validation", "test", "ood"]


class Transition(NamedTuple):
    """The outcome of a step, without the next observation.

    Shapes: ``rewards`` float32 ``[B]``, ``terminated`` bool ``[B]``, each entry of ``info`` ``[B, ...]``, ``truncated``
    bool ``[B]``: whether the world truncated its episode before the horizon, None if it never does. After the step that
    ends an episode, the end may be reported again until the world is reset.
    """

    rewards: Tensor
    terminated: Tensor
    info: dict[str, Tensor]
    truncated: Tensor | None = None


class Dynamics(ABC):
    """B worlds of one family, stepped together on one device, without a horizon.

    Attributes:
        capturable: whether a CUDA graph, recorded once, can hold a step: it runs entirely on the device, and steps and
            resets write the state in place.
    """

    capturable: ClassVar[bool] = True

    @abstractmethod
    def reset(self, tasks: TensorDict, mask: Tensor, generator: torch.Generator) -> None:
        """Start an episode in the worlds where ``mask`` (bool ``[B]``) is true, with tasks ``[B]``."""

    @abstractmethod
    def step(self, actions: Tensor, tasks: TensorDict, generator: torch.Generator) -> Transition:
        """Step every world with its action ``[B, ...]``, which is in the action space."""

    @abstractmethod
    def observe(self) -> Tensor:
        """Return a copy of the observations ``[B, ...]`` of the current states (``spaces.observed``)."""

    def unstable(self) -> Tensor | None:
        """Return a bool ``[B]``, true for worlds whose simulation diverged since their reset; None if none can."""
        return None

    def prepare_rendering(self) -> None:  # noqa: B027 (most can render at any time)
        """Prepare for rendering; called before the first reset, and only if something will be rendered."""

    def render(self, tasks: TensorDict, world: int) -> np.ndarray:
        """Render one world and its task, as uint8 ``[H, W, 3]``; as text unless overridden.

        Raises:
            InputError: if this machine cannot render.
        """
        return text_picture(describe(tasks[world], self.observe()[world]))

    def close(self) -> None:  # noqa: B027 (most have nothing to release)
        """Release resources other than memory, such as processes and windows."""


class TaskFamily(ABC):
    """A distribution over tasks with common observation and action spaces.

    Subclasses are frozen dataclasses with a ``horizon`` field, and set the class variables.

    Attributes:
        name: name on the command line, in kebab case.
        env_id: id in Gymnasium's registry.
        presets: field values by preset name; the first is the default.
        references: reference returns by preset name, where they are known.
        horizon: number of steps after which an episode is truncated.
    """

    name: ClassVar[str]
    env_id: ClassVar[str]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]]
    references: ClassVar[Mapping[str, Reference]] = {}
    horizon: int

    @property
    def base(self) -> "TaskFamily":
        """The family itself, or the underlying family of a view (``metarl.families.views``)."""
        return self

    @property
    @abstractmethod
    def observation_space(self) -> spaces.Space[Any]:
        """The observation space of one environment."""

    @property
    @abstractmethod
    def action_space(self) -> spaces.Space[Any]:
        """The action space of one environment."""

    @property
    @abstractmethod
    def task_space(self) -> spaces.Dict:
        """The space of task parameters, by name."""

    @abstractmethod
    def sample_tasks(self, count: int, generator: torch.Generator) -> TensorDict:
        """Draw ``count`` independent tasks, as a CPU TensorDict ``[count]`` shaped like ``task_space``."""

    @abstractmethod
    def dynamics(self, num_envs: int, device: torch.device) -> Dynamics:
        """Make ``num_envs`` worlds on ``device``.

        Raises:
            InputError: as ``check_device`` does.
        """

    def check_device(self, device: torch.device) -> None:  # noqa: B027 (torch runs everywhere)
        """Check, without making a world, that the family's worlds can run on ``device``.

        Raises:
            InputError: if they cannot, or a package that they need is not installed.
        """

    def settings(self) -> dict[str, Any]:
        """Return the values of the family's fields by name."""
        return dataclasses.asdict(self)  # type: ignore[call-overload, no-any-return]

    def all_tasks(self) -> TensorDict | None:
        """Return all tasks of the family if there are only a few, else None."""
        return None

    def own_split(self) -> Mapping[Part, TensorDict] | None:
        """Return the training, validation and test tasks that a benchmark fixes, else None.

        Parts may overlap only if a family has just two tasks, or a preset reproduces a published protocol.
        """
        return None

    def outside_tasks(self, count: int, generator: torch.Generator) -> TensorDict | None:
        """Draw up to ``count`` tasks near the distribution but outside it; None if there are none.

        They have the keys and shapes of ``task_space`` but exceed its bounds.
        """
        return None

    def part_of(self, tasks: TensorDict, seed: int) -> Tensor | None:
        """Return the part of each task, int64 ``[count]`` into (train, validation, test), else None.

        For families with countably many tasks, where independent draws may repeat a task; see ``splits.hashed_part``.
        """
        return None

    def positions(self, observations: Tensor) -> Tensor | None:
        """Return the positions (x, y) ``[..., 2]`` of the agent, if observations contain them, else None.

        ``metarl compare`` plots the paths of families that return positions, on top of ``map_of`` a task.
        """
        return None

    def map_of(self, task: TensorDict) -> Map:
        """Return the map on which the paths of a task ``[]`` are plotted: an empty plane unless overridden."""
        return Map()

    def words(self) -> Words | None:
        """Return the family in words, for learners that read, else None; its actions are then Discrete."""
        return None

    def staying(self) -> Staying | None:
        """Return the transitions of staying in each cell, if the family is a grid with observed cells, else None.

        ``metarl compare`` plots the rewards that a learner with a reward model expects for them.
        """
        return None

    def make_task(self, parameters: Mapping[str, Any]) -> TensorDict:
        """Turn named values into a task ``[1]``.

        Raises:
            InputError: if a name is missing or unknown, or a value is outside the task space.
        """
        if set(parameters) != set(self.task_space):
            expected, got = sorted(self.task_space), sorted(parameters)
            raise InputError(f"{self.name}: a task needs the parameters {expected}, not {got}")
        task = TensorDict({key: self._task_value(key, parameters[key])[None] for key in self.task_space}, [1])
        if (known := self.all_tasks()) is not None and not any(bool((row == task[0]).all()) for row in known):
            example = {key: known[key][0].tolist() for key in self.task_space}
            others = f"it has {len(known)} others, such as {_brief(example)}"
            raise InputError(f"{self.name}: there is no task {dict(parameters)}; {others}")
        return task

    def _task_value(self, key: str, given: Any) -> Tensor:
        space = self.task_space[key]
        try:
            value = np.asarray(given, dtype=np.float64).reshape(space.shape or ())
        except (OverflowError, TypeError, ValueError):
            raise InputError(f"{self.name}: task parameter {key} = {_brief(given)} does not fit {space}") from None
        with np.errstate(over="ignore"):
            kept = value.astype(space.dtype)
        if not space.contains(kept) or (np.issubdtype(kept.dtype, np.integer) and (kept != value).any()):
            raise InputError(f"{self.name}: task parameter {key} = {_brief(given)} lies outside {space}")
        return torch.as_tensor(kept)


def _brief(value: Any) -> str:
    """Return a value as one short line, for messages."""
    return shorten(str(value), 80)


def describe(task: TensorDict, observation: Tensor) -> list[str]:
    """Describe the parameters of a task ``[]`` and an observation ``[...]`` in lines of text."""
    values = {**{str(key): task[key] for key in task.keys()}, "observation": observation}
    return [f"{key} {np.array2string(value.cpu().numpy(), precision=2)}" for key, value in values.items()]


FAMILIES: Registry[type[TaskFamily]] = Registry("task family", "metarl families", "metarl.envs")
FamilyT = TypeVar("FamilyT", bound=TaskFamily)


def register_family(family: type[FamilyT]) -> type[FamilyT]:
    """Register a family by its name, and by its id in Gymnasium; used as a class decorator."""
    FAMILIES[family.name] = family
    register_id(family.env_id, family.name)
    return family


def make_family(name: str, preset: str | None = None, **overrides: Any) -> TaskFamily:
    """Make a family by name or ``module:name``, from one of its presets.

    Args:
        name: name of a registered family.
        preset: name of the preset; the first one if None.
        overrides: field values that replace the preset's.

    Raises:
        InputError: for an unknown family, preset or field, or an invalid field value.
    """
    family = FAMILIES.find(name)
    chosen = preset or next(iter(family.presets))
    if chosen not in family.presets:
        raise InputError(f"{name} has no preset {chosen!r}; it has {', '.join(family.presets)}")
    known = {field.name for field in dataclasses.fields(family)}  # type: ignore[arg-type]
    if unknown := set(overrides) - known:
        raise InputError(f"{name} has no setting {sorted(unknown)}; it has {sorted(known)}")
    for setting, value in overrides.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{name}: {setting} must be finite, not {value}")
    made = family(**{**family.presets[chosen], **overrides})
    require_count("the horizon", made.horizon)
    return made
