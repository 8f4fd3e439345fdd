"""The contract of a task family, and the registry of families.

A family is a frozen dataclass: its fields are what a preset sets (ranges, sizes, horizon). It says what a task is,
draws tasks, and makes the batched dynamics of many of them at once. One definition serves the batched environment and
the single one (``metarl.vector_env``).
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from textwrap import shorten
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from tensordict import TensorDict
from torch import Tensor

from metarl.errors import InputError
from metarl.pictures import text_picture
from metarl.places import Map, Staying
from metarl.references import Reference
from metarl.registry import Registry
from metarl.validation import require_count

Part = Literal["train", "validation", "test"]
# What a learner may be evaluated on: a part of the distribution, or tasks outside of it.
Source = Literal["train", "validation", "test", "ood"]


class Transition(NamedTuple):
    """What a step returns besides the next observation.

    Shapes: ``rewards`` float32 ``[B]``, ``terminated`` bool ``[B]``, each entry of ``info`` ``[B]``, ``truncated`` bool
    ``[B]``: whether the world cut its episode short of the horizon, None if it never does. From the step that ends an
    episode until the world's reset, its end may be repeated.
    """

    rewards: Tensor
    terminated: Tensor
    info: dict[str, Tensor]
    truncated: Tensor | None = None


class Dynamics(ABC):
    """B worlds of one family, stepped together on one device. They do not know the horizon.

    Attributes:
        capturable: whether a CUDA graph can hold a step: it runs wholly on the device, and in place while captured.
    """

    capturable: ClassVar[bool] = True

    @abstractmethod
    def reset(self, tasks: TensorDict, mask: Tensor, generator: torch.Generator) -> None:
        """Start an episode in the worlds where ``mask`` (bool ``[B]``) is true; ``tasks`` is ``[B]``."""

    @abstractmethod
    def step(self, actions: Tensor, tasks: TensorDict, generator: torch.Generator) -> Transition:
        """Advance every world by its action ``[B, ...]``, which lies in the action space."""

    @abstractmethod
    def observe(self) -> Tensor:
        """Return the observations ``[B, ...]`` of the present states (``spaces.observed``), in memory of their own."""

    def unstable(self) -> Tensor | None:
        """Return a bool ``[B]``, true for worlds whose simulation broke down since their reset; None if none can."""
        return None

    def prepare_rendering(self) -> None:  # noqa: B027 (most can draw at any time)
        """Make ready to be drawn; called before the first reset, and only where something will be drawn."""

    def render(self, tasks: TensorDict, world: int) -> np.ndarray:
        """Draw one world and its task, as uint8 ``[H, W, 3]``; as text unless overridden.

        Raises:
            InputError: when this machine lacks what drawing needs.
        """
        return text_picture(describe(tasks[world], self.observe()[world]))

    def close(self) -> None:  # noqa: B027 (most have nothing to release)
        """Release what the worlds hold besides memory: processes, windows."""


class TaskFamily(ABC):
    """A distribution over tasks that share spaces.

    Subclasses are frozen dataclasses with a ``horizon`` field, and set the class variables.

    Attributes:
        name: on the command line, in kebab case.
        env_id: in Gymnasium's registry.
        presets: field values by preset name; the first is the default.
        references: returns to compare learners with, by preset name, where they are known.
        horizon: steps after which an episode is truncated.
    """

    name: ClassVar[str]
    env_id: ClassVar[str]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]]
    references: ClassVar[Mapping[str, Reference]] = {}
    horizon: int

    @property
    def base(self) -> "TaskFamily":
        """The family itself; of a view (``metarl.views``), the family that is viewed."""
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
        """The space of task parameters: one entry for each name."""

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
        """Make sure, without making a world, that the family's worlds can run on ``device``.

        Raises:
            InputError: when they cannot, or a package that they need is not installed.
        """

    def settings(self) -> dict[str, Any]:
        """Return the values of the family's fields by name."""
        return dataclasses.asdict(self)  # type: ignore[call-overload, no-any-return]

    def all_tasks(self) -> TensorDict | None:
        """Return every task of the family, if they are finitely many and few, else None."""
        return None

    def own_split(self) -> Mapping[Part, TensorDict] | None:
        """Return the train, validation and test tasks that the benchmark itself fixes, else None.

        Only a family that cannot have disjoint parts, having two tasks, or a preset that repeats a published protocol
        may return parts that share tasks.
        """
        return None

    def outside_tasks(self, count: int, generator: torch.Generator) -> TensorDict | None:
        """Draw up to ``count`` tasks near the distribution but outside of it; None where that has no meaning.

        They follow ``task_space`` but for its bounds.
        """
        return None

    def part_of(self, tasks: TensorDict, seed: int) -> Tensor | None:
        """Return the part of each task, int64 ``[count]`` into (train, validation, test), else None.

        For families of countably many tasks, of which independent draws may find the same one twice; see
        ``splits.hashed_part``.
        """
        return None

    def places(self, observations: Tensor) -> Tensor | None:
        """Return the places (x, y) ``[..., 2]`` at which observations were made, if they show them, else None.

        ``metarl compare`` draws the paths of families that return places, on ``map_of`` a task.
        """
        return None

    def map_of(self, task: TensorDict) -> Map:
        """Return what is drawn under the paths of a task ``[]``: an empty plane unless overridden."""
        return Map()

    def staying(self) -> Staying | None:
        """Return the steps of staying in each cell, if the family is a grid whose cells are observed, else None.

        ``metarl compare`` draws the rewards that a learner with a model of rewards expects of them.
        """
        return None

    def make_task(self, parameters: Mapping[str, Any]) -> TensorDict:
        """Turn named values into a task ``[1]``.

        Raises:
            InputError: when a name is missing or unknown, or a value lies outside the task space.
        """
        if set(parameters) != set(self.task_space):
            expected, got = sorted(self.task_space), sorted(parameters)
            raise InputError(f"{self.name}: a task has the parameters {expected}, not {got}")
        task = TensorDict({key: self._task_value(key, parameters[key])[None] for key in self.task_space}, [1])
        if (known := self.all_tasks()) is not None and not any(bool((row == task[0]).all()) for row in known):
            raise InputError(f"{self.name}: there is no task {dict(parameters)}; it has {len(known)} others")
        return task

    def _task_value(self, key: str, given: Any) -> Tensor:
        space = self.task_space[key]
        try:
            value = np.asarray(given, dtype=np.float64).reshape(space.shape or ())
        except (TypeError, ValueError):
            raise InputError(f"{self.name}: task parameter {key} = {_brief(given)} does not fit {space}") from None
        with np.errstate(over="ignore"):
            kept = value.astype(space.dtype)
        if not space.contains(kept) or (np.issubdtype(kept.dtype, np.integer) and (kept != value).any()):
            raise InputError(f"{self.name}: task parameter {key} = {_brief(given)} lies outside {space}")
        return torch.as_tensor(kept)


def _brief(value: Any) -> str:
    """Return a value as one short line, for a message."""
    return shorten(str(value), 80)


def describe(task: TensorDict, observation: Tensor) -> list[str]:
    """Return lines of text with the parameters of a task ``[]`` and an observation ``[...]``."""
    values = {**{str(key): task[key] for key in task.keys()}, "observation": observation}
    return [f"{key} {np.array2string(value.cpu().numpy(), precision=2)}" for key, value in values.items()]


FAMILIES: Registry[type[TaskFamily]] = Registry("task family", "metarl families")
FamilyT = TypeVar("FamilyT", bound=TaskFamily)


def register_family(family: type[FamilyT]) -> type[FamilyT]:
    """Register a family by its name here and by its id in Gymnasium; used as a class decorator."""
    FAMILIES[family.name] = family
    gymnasium.register(
        family.env_id,
        entry_point="metarl.vector_env:make_env",
        vector_entry_point="metarl.vector_env:make_vector_env",
        kwargs={"family": family.name},
        disable_env_checker=True,
    )
    return family


def make_family(name: str, preset: str | None = None, **overrides: Any) -> TaskFamily:
    """Make a family by name, also ``module:name``, from one of its presets (the first if None).

    Args:
        name: of a registered family.
        preset: whose field values it gets.
        overrides: field values that replace the preset's.

    Raises:
        InputError: for an unknown family, preset or field, or a field value that makes no sense.
    """
    family = FAMILIES.find(name)
    chosen = preset or next(iter(family.presets))
    if chosen not in family.presets:
        raise InputError(f"{name} has no preset {chosen!r}; it has {', '.join(family.presets)}")
    known = {field.name for field in dataclasses.fields(family)}  # type: ignore[arg-type]
    if unknown := set(overrides) - known:
        raise InputError(f"{name} has no setting {sorted(unknown)}; it has {sorted(known)}")
    made = family(**{**family.presets[chosen], **overrides})
    require_count("the horizon", made.horizon)
    return made
