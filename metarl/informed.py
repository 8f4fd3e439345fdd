"""Views of a family: another one's worlds and tasks, observed otherwise. The oracle's shows the task's parameters."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from tensordict import TensorDict
from torch import Tensor

from metarl.family import Dynamics, Part, TaskFamily, Transition
from metarl.spaces import feature_space, features

# Wider ranges are bounds for form's sake, such as those of float32: scaling by them would leave nothing to see.
WIDEST = 1e6


@dataclass(frozen=True)
class FamilyView(TaskFamily):
    """Another family, its name and all, but for what is observed.

    Attributes:
        family: the other one.
    """

    family: TaskFamily

    def __post_init__(self) -> None:
        vars(self).update({key: getattr(self.family, key) for key in ("name", "env_id", "presets", "horizon")})

    @property
    def action_space(self) -> spaces.Space[Any]:
        """The other family's."""
        return self.family.action_space

    @property
    def task_space(self) -> spaces.Dict:
        """The other family's."""
        return self.family.task_space

    def sample_tasks(self, count: int, generator: torch.Generator) -> TensorDict:
        """Draw tasks of the other family."""
        return self.family.sample_tasks(count, generator)

    def settings(self) -> dict[str, Any]:
        """Return the other family's settings."""
        return self.family.settings()

    def all_tasks(self) -> TensorDict | None:
        """Return the other family's tasks."""
        return self.family.all_tasks()

    def own_split(self) -> Mapping[Part, TensorDict] | None:
        """Return the other family's parts."""
        return self.family.own_split()

    def outside_tasks(self, count: int, generator: torch.Generator) -> TensorDict | None:
        """Draw tasks outside the other family's distribution."""
        return self.family.outside_tasks(count, generator)

    def part_of(self, tasks: TensorDict, seed: int) -> Tensor | None:
        """Return the parts that the other family tells."""
        return self.family.part_of(tasks, seed)

    def make_task(self, parameters: Mapping[str, Any]) -> TensorDict:
        """Make a task of the other family."""
        return self.family.make_task(parameters)


@dataclass(frozen=True)
class InformedFamily(FamilyView):
    """Another family, but its observations tell the task.

    Observations are flattened (see ``spaces.features``), and the task's parameters follow, in the order of the
    task space: those with bounds scaled to [-1, 1], Discrete ones one-hot.
    """

    @property
    def observation_space(self) -> spaces.Box:
        """Flattened observation and task, float32 ``[D + P]``."""
        given, width = feature_space(self.family.observation_space), spaces.flatdim(self.task_space)
        low, high = (
            np.append(bound, np.full(width, end)) for bound, end in ((given.low, -np.inf), (given.high, np.inf))
        )
        return spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)

    def dynamics(self, num_envs: int, device: torch.device) -> Dynamics:
        """Make the other family's worlds, and tell of their tasks."""
        return InformedDynamics(self.family, self.family.dynamics(num_envs, device))


class InformedDynamics(Dynamics):
    """Worlds that remember the task of their episode, and show it."""

    def __init__(self, family: TaskFamily, worlds: Dynamics) -> None:
        vars(self).update(capturable=worlds.capturable)
        self._family, self._worlds = family, worlds
        self._told: Tensor | None = None

    def reset(self, tasks: TensorDict, mask: Tensor, generator: torch.Generator) -> None:
        """Start episodes under ``mask``, and remember their tasks."""
        self._worlds.reset(tasks, mask, generator)
        told = task_features(self._family.task_space, tasks)
        self._told = told if self._told is None else torch.where(mask[:, None], told, self._told)

    def step(self, actions: Tensor, tasks: TensorDict, generator: torch.Generator) -> Transition:
        """Advance the worlds."""
        return self._worlds.step(actions, tasks, generator)

    def observe(self) -> Tensor:
        """Return observations and tasks ``[B, D + P]``."""
        assert self._told is not None, "reset comes before observe"
        seen = features(self._family.observation_space, self._worlds.observe())
        return torch.cat([seen, self._told], -1)

    def unstable(self) -> Tensor | None:
        """Return what the worlds tell."""
        return self._worlds.unstable()

    def render(self, tasks: TensorDict, world: int) -> np.ndarray:
        """Draw a world as it draws itself."""
        return self._worlds.render(tasks, world)

    def close(self) -> None:
        """Close the worlds."""
        self._worlds.close()


def task_features(space: spaces.Dict, tasks: TensorDict) -> Tensor:
    """Return tasks ``[B]`` as numbers of about 1, float32 ``[B, P]``."""
    return torch.cat([_scaled(part, features(part, tasks[key])) for key, part in space.items()], -1)


def _scaled(space: spaces.Space[Any], flat: Tensor) -> Tensor:
    if not isinstance(space, spaces.Box):
        return flat
    low, high = (bound.astype(np.float64).reshape(-1) for bound in (space.low, space.high))
    scaled = (high - low > 0) & (high - low < WIDEST)
    low, high = np.where(scaled, low, -1.0), np.where(scaled, high, 1.0)
    middle, half = (torch.as_tensor(values).to(flat) for values in ((low + high) / 2, (high - low) / 2))
    return (flat - middle) / half
