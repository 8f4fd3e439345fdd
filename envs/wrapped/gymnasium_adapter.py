"""Any Gymnasium environment as a family, whose tasks are sets of arguments and attributes."""

import copy
import dataclasses
import inspect
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, cast, get_args

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec, load_env_creator
from tensordict import TensorDict
from torch import Tensor

from metarl.envs.wrapped.attributes import (
    constructor_arguments,
    number_at,
    owner_of,
    same_numbers,
    set_attribute,
    takes_keywords,
    unknown_parameter,
)
from metarl.envs.wrapped.global_streams import GlobalStreams
from metarl.envs.wrapped.gymnasium_worlds import EnvironmentFamily, Vectorization, plain_tasks
from metarl.envs.wrapped.selected_keys import SelectedKeys
from metarl.envs.wrapped.world import Environment, Task, box_of, first_line
from metarl.errors import InputError, MetarlError
from metarl.families.spaces import one_line, require_actions
from metarl.families.splits import hashed_text_part
from metarl.seeding import generator
from metarl.validation import require_counts

LISTED_TASKS = 10_000
ROUTES = ("delivery", "unchecked", "observation_keys")
# How a task parameter reaches the environment.
Delivery = Literal["constructor", "attribute", "reset option", "seed"]


@dataclass(frozen=True)
class GymnasiumFamily(EnvironmentFamily):
    """Variations of one Gymnasium environment.

    A task parameter that is an argument of the environment's constructor is passed to it, and the environment is
    recreated when it changes. Any other parameter is set as an attribute of the unwrapped environment, or of a wrapper
    if only that has it, before each reset; ``delivery`` selects other ways. Constants that the environment computed
    from such an attribute in its constructor keep their old values: a subclass can recompute them in ``apply`` (as in
    ``envs/wrapped/cartpole.py``). Tasks are drawn uniformly from the task space.

    Attributes named like task parameters are checked after each reset and after the first step: if the environment has
    changed them, an error is raised, because its tasks would have no effect.

    Observations become float32, flattened if they are not a Box; images stay uint8. Time limits are removed. Numbers in
    the environment's info are kept.

    Attributes:
        env: an id in Gymnasium's registry, a class, or a function with named arguments that makes the environment.
        task_space: bounded Box and Discrete spaces by parameter; required.
        horizon: steps of an episode; by default the time limit that the environment is registered with.
        vectorization: ``sync`` steps all worlds in this process, ``async`` runs each world in its own process.
        delivery: how parameters reach the environment, if not as above: as a ``constructor`` argument accepted only by
            its ``**kwargs``, as an ``attribute`` although it is also a constructor argument, as a ``reset option``, or
            as the ``seed`` of every reset, which selects a level.
        unchecked: parameters whose attribute the environment itself changes, such as an initial position.
        observation_keys: entries of a Dict observation to observe; by default all.

    Raises:
        InputError: for an unknown id, an invalid task space, or a missing horizon.
    """

    env: str | Callable[..., Environment]
    # Defaults are needed only because otherwise an inherited property, or no class attribute, would be used.
    task_space: spaces.Dict = None  # type: ignore[assignment]
    horizon: int = None  # type: ignore[assignment]
    vectorization: Vectorization = "sync"
    delivery: Mapping[str, Delivery] = field(default_factory=dict)
    unchecked: tuple[str, ...] = ()
    observation_keys: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for attribute in {"name", "env_id"} - set(dir(type(self))):  # which registered subclasses have
            object.__setattr__(self, attribute, self.label)
        if not self.task_space:
            raise InputError(f"{self.name}: task_space must name at least one parameter")
        for key, space in self.task_space.items():
            if not (isinstance(space, spaces.Discrete) or (isinstance(space, spaces.Box) and space.is_bounded())):
                raise InputError(f"{self.name}: {key} must lie in a bounded Box or a Discrete space, not {space}")
        self._check_delivery()
        if self.horizon is None:
            if self._spec is None or self._spec.max_episode_steps is None:
                raise InputError(f"{self.name} has no time limit in Gymnasium's registry; give the family a horizon")
            object.__setattr__(self, "horizon", self._spec.max_episode_steps)
        require_counts(self, "horizon")

    @property
    def label(self) -> str:
        """The name of the environment: its id, or the name of its class or function."""
        return self.env if isinstance(self.env, str) else getattr(self.env, "__qualname__", repr(self.env))

    @property
    def observation_space(self) -> spaces.Box:
        """The environment's own space in float32, flattened if it is not a Box; unchanged for images."""
        return copy.deepcopy(self._spaces[0])

    @property
    def action_space(self) -> spaces.Space[Any]:
        """The environment's own space."""
        return copy.deepcopy(self._spaces[1])

    @property
    def constructor_parameters(self) -> Collection[str]:
        """The task parameters that are passed to the environment's constructor."""
        return self._delivered["constructor"]

    def make(self, arguments: Task, render_mode: str | None = None) -> Environment:
        """Make the environment, with the render mode if it supports it."""
        modes = (getattr(self._creator, "metadata", None) or {}).get("render_modes", ())
        if render_mode in modes and (takes_keywords(self._signature) or "render_mode" in self._signature):
            arguments = {"render_mode": render_mode, **arguments}
        if isinstance(self.env, str):
            env = gymnasium.make(self.env, max_episode_steps=-1, disable_env_checker=True, **arguments)
        else:
            env = self.env(**arguments)
        return env if self.observation_keys is None else SelectedKeys(env, self.observation_keys)

    def apply(self, env: Environment, task: Task) -> None:
        """Set the attributes; subclasses can then recompute values that the environment derives from them."""
        for key in self._delivered["attribute"]:
            if owner_of(env, key) is None:
                raise unknown_parameter(env, self._both_names, key, self._signature)
            set_attribute(env, key, task[key])

    def reset_arguments(self, task: Task, seed: int | None) -> dict[str, Any]:
        """Return the seed (the level's, if a parameter is one) and the options from parameters."""
        for key in self._delivered["seed"]:
            seed = int(task[key])
        options = {key: task[key] for key in self._delivered["reset option"]}
        return {"seed": seed, "options": options} if options else {"seed": seed}

    def lasting_values(self, env: Environment, task: Task) -> Mapping[str, Sequence[Any]]:
        """Return for attributes named like parameters the task's value and, except for options, the current one."""
        lasting = {}
        for key in self.task_space:
            present = number_at(env, key)
            if present is not None and key not in self.unchecked:
                lasting[key] = [task[key]] if key in self._delivered["reset option"] else [task[key], present]
        return lasting

    def shown_parameters(self, observation: Any, task: Task) -> Mapping[str, str]:
        """Return which entries of a Dict observation equal a parameter, unless they were selected explicitly."""
        if self.observation_keys is not None or not isinstance(observation, Mapping):
            return {}
        numbers = {key: value for key, value in observation.items() if np.asarray(value).dtype.kind in "biuf"}
        return {
            key: parameter
            for parameter, given in task.items()
            for key, value in numbers.items()
            if same_numbers(value, given)
        }

    def sample_tasks(self, count: int, generator: torch.Generator) -> TensorDict:
        """Draw every parameter uniformly and independently."""
        drawn = {key: _draw(space, count, generator) for key, space in self.task_space.items()}
        return TensorDict(drawn, [count])

    def all_tasks(self) -> TensorDict | None:
        """Return all tasks if all parameters are integers and there are at most 10 000 tasks."""
        if self._task_count > LISTED_TASKS:
            return None
        ranges = {key: _ranges(space) for key, space in self.task_space.items()}
        axes = [torch.arange(span.start, span.stop) for spans in ranges.values() for span in spans]
        rows, tasks = torch.cartesian_prod(*axes).view(-1, len(axes)).numpy(), {}
        for key, spans in ranges.items():
            tasks[key], rows = _elements(self.task_space[key], rows[:, : len(spans)]), rows[:, len(spans) :]
        return TensorDict(tasks, [len(rows)])

    def part_of(self, tasks: TensorDict, seed: int) -> Tensor | None:
        """Return each task's part by a hash, 60, 20 and 20 %, if tasks are countable but too many to list."""
        if not LISTED_TASKS < self._task_count < math.inf:
            return None
        return hashed_text_part(seed, [str([row[key].tolist() for key in self.task_space]) for row in tasks])

    def settings(self) -> dict[str, Any]:
        """Return the values of the family's fields by name, with spaces and constructors as text.

        Fields on delivery, checks and observation keys are left out if they are not set.
        """
        values = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        values = {name: value for name, value in values.items() if value or name not in ROUTES}
        return values | {"env": self.label, "task_space": one_line(self.task_space)}

    def _check_delivery(self) -> None:
        named = {"delivery": self.delivery, "unchecked": self.unchecked}
        for setting, keys in named.items():
            if unknown := sorted(set(keys) - set(self.task_space)):
                raise InputError(f"{self.name}: {setting} names {unknown}; the task has {list(self.task_space)}")
        for key, way in self.delivery.items():
            if way not in get_args(Delivery):
                raise InputError(f"{self.name}: the delivery of {key} must be one of {get_args(Delivery)}, not {way!r}")
            if way == "seed" and (self.task_space[key].shape or not _is_whole(self.task_space[key])):
                raise InputError(f"{self.name}: the seed {key} must be a single integer, not {self.task_space[key]}")

    @cached_property
    def _delivered(self) -> dict[Delivery, list[str]]:
        """The task parameters by way of delivery."""
        ways: dict[Delivery, list[str]] = {way: [] for way in get_args(Delivery)}
        for key in self.task_space:
            default: Delivery = "constructor" if key in self._signature else "attribute"
            ways[self.delivery.get(key, default)].append(key)
        return ways

    @property
    def _both_names(self) -> str:
        return self.label if self.name == self.label else f"{self.name} ({self.label})"

    @property
    def _task_count(self) -> float:
        """The number of tasks; infinity if a parameter is real-valued."""
        if not all(map(_is_whole, self.task_space.values())):
            return math.inf
        return math.prod(len(span) for space in self.task_space.values() for span in _ranges(space))

    @cached_property
    def _spec(self) -> EnvSpec | None:
        try:
            return gymnasium.spec(self.env) if isinstance(self.env, str) else None
        except (gymnasium.error.Error, ImportError) as error:
            raise InputError(f"Gymnasium has no environment {self.env!r} ({first_line(error)})") from None

    @cached_property
    def _creator(self) -> Callable[..., Environment]:
        entry: Any = self.env if self._spec is None else self._spec.entry_point
        return cast(Callable[..., Environment], load_env_creator(entry) if isinstance(entry, str) else entry)

    @cached_property
    def _signature(self) -> Mapping[str, inspect.Parameter]:
        return constructor_arguments(self._creator)

    @cached_property
    def _spaces(self) -> tuple[spaces.Box, spaces.Space[Any]]:
        """The spaces in one of the tasks; each world checks that its own are the same."""
        task = plain_tasks(self.sample_tasks(1, generator("spaces")))[0]
        try:
            with GlobalStreams().installed():
                env = self.make({key: task[key] for key in self.constructor_parameters})
                self.apply(env, task)
                observation_space, action_space = box_of(env.observation_space), env.action_space
                env.close()
        except MetarlError:
            raise
        except Exception as error:
            raise InputError(f"{self._both_names} cannot be made ({first_line(error)})") from error
        require_actions(action_space)
        return observation_space, action_space


def _is_whole(space: spaces.Space[Any]) -> bool:
    return np.issubdtype(space.dtype, np.integer)


def _ranges(space: spaces.Space[Any]) -> list[range]:
    """Return the range of each element of a space of integers."""
    if isinstance(space, spaces.Discrete):
        return [range(int(space.start), int(space.start + space.n))]
    assert isinstance(space, spaces.Box)
    return [range(int(low), int(high) + 1) for low, high in zip(space.low.flat, space.high.flat, strict=True)]


def _draw(space: spaces.Space[Any], count: int, generator: torch.Generator) -> Tensor:
    """Draw ``count`` uniform elements ``[count, *shape]``."""
    if _is_whole(space):
        drawn = [torch.randint(span.start, span.stop, (count,), generator=generator) for span in _ranges(space)]
        return _elements(space, torch.stack(drawn, -1).numpy())
    assert isinstance(space, spaces.Box)
    units = torch.rand((count, *space.shape), generator=generator, dtype=torch.float64).numpy()
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    return _elements(space, low + units * (high - low))


def _elements(space: spaces.Space[Any], values: np.ndarray) -> Tensor:
    return torch.as_tensor(values.reshape(-1, *(space.shape or ())).astype(space.dtype))
