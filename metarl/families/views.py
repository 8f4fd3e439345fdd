"""Views: families with the worlds and tasks of another family, but different observations.

A learner uses a family through the view that its ``Learner.view`` returns. ``InformedFamily`` adds the task to the
observations, ``AdvisedFamily`` observes the best actions, ``LabelledFamily`` only reports them. Views can be nested;
``TaskFamily.base`` is always the family itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from tensordict import TensorDict
from torch import Tensor

from metarl.devices.transfer import send
from metarl.families.family import Dynamics, Part, TaskFamily, Transition
from metarl.families.positions import Map, Staying
from metarl.families.references import Reference
from metarl.families.solved import SolvedFamily, require_solved
from metarl.families.spaces import Values, feature_space, features, unit_space
from metarl.families.tensor_family import State, TensorFamily

# A wider range is only formal, such as that of float32: scaled by it, all values would be about 0.
WIDEST = 1e6
# Additional entries of a state, with spaces in their names, which the family's own entries do not have.
PLAN, REMAINING = "best plan", "steps left"


@dataclass(frozen=True)
class FamilyView(TaskFamily):
    """A family that equals another one except for its observations.

    Attributes:
        family: the underlying family.
    """

    family: TaskFamily

    @property
    def base(self) -> TaskFamily:
        """The underlying family, without any view."""
        return self.family.base

    @property
    def name(self) -> str:  # type: ignore[override]
        """As in the underlying family."""
        return self.family.name

    @property
    def env_id(self) -> str:  # type: ignore[override]
        """As in the underlying family."""
        return self.family.env_id

    @property
    def presets(self) -> Mapping[str, Mapping[str, Any]]:  # type: ignore[override]
        """As in the underlying family."""
        return self.family.presets

    @property
    def references(self) -> Mapping[str, Reference]:  # type: ignore[override]
        """As in the underlying family."""
        return self.family.references

    @property
    def horizon(self) -> int:  # type: ignore[override]
        """As in the underlying family."""
        return self.family.horizon

    @property
    def action_space(self) -> spaces.Space[Any]:
        """As in the underlying family."""
        return self.family.action_space

    @property
    def task_space(self) -> spaces.Dict:
        """As in the underlying family."""
        return self.family.task_space

    def sample_tasks(self, count: int, generator: torch.Generator) -> TensorDict:
        """Draw tasks of the underlying family."""
        return self.family.sample_tasks(count, generator)

    def check_device(self, device: torch.device) -> None:
        """Check that the underlying family's worlds can run on ``device``."""
        self.family.check_device(device)

    def settings(self) -> dict[str, Any]:
        """Return the underlying family's settings."""
        return self.family.settings()

    def all_tasks(self) -> TensorDict | None:
        """Return the underlying family's tasks."""
        return self.family.all_tasks()

    def own_split(self) -> Mapping[Part, TensorDict] | None:
        """Return the underlying family's parts."""
        return self.family.own_split()

    def outside_tasks(self, count: int, generator: torch.Generator) -> TensorDict | None:
        """Draw tasks outside the underlying family's distribution."""
        return self.family.outside_tasks(count, generator)

    def part_of(self, tasks: TensorDict, seed: int) -> Tensor | None:
        """Return the parts to which the underlying family assigns tasks."""
        return self.family.part_of(tasks, seed)

    def map_of(self, task: TensorDict) -> Map:
        """Return the underlying family's map."""
        return self.family.map_of(task)

    def make_task(self, parameters: Mapping[str, Any]) -> TensorDict:
        """Make a task of the underlying family."""
        return self.family.make_task(parameters)


@dataclass(frozen=True)
class InformedFamily(FamilyView):
    """A family whose observations include the task.

    Observations are flattened (one-hot for a Discrete space), followed by the task's parameters in the order of the
    task space: bounded ones scaled to [-1, 1], Discrete ones one-hot.
    """

    @property
    def observation_space(self) -> spaces.Box:
        """Flattened observation and task, float32 ``[D + P]``."""
        given, width = feature_space(self.family.observation_space), spaces.flatdim(self.task_space)
        low = np.append(given.low, np.full(width, -np.inf))
        high = np.append(given.high, np.full(width, np.inf))
        return spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)

    def positions(self, observations: Tensor) -> Tensor | None:
        """Return the positions in the underlying family's part of the observations."""
        given = self.family.observation_space
        if not isinstance(given, spaces.Box):
            return None
        seen = observations[..., : spaces.flatdim(given)]
        return self.family.positions(seen.view(*seen.shape[:-1], *given.shape))

    def dynamics(self, num_envs: int, device: torch.device) -> Dynamics:
        """Make the underlying family's worlds, with tasks in the observations."""
        return InformedDynamics(self.family, self.family.dynamics(num_envs, device))


class InformedDynamics(Dynamics):
    """Worlds that append the task of their episode to their observations."""

    def __init__(self, family: TaskFamily, worlds: Dynamics) -> None:
        self._family, self._worlds = family, worlds
        self._shown: Tensor | None = None

    @property
    def capturable(self) -> bool:  # type: ignore[override]
        """Whether a CUDA graph can capture a step of the worlds."""
        return self._worlds.capturable

    def reset(self, tasks: TensorDict, mask: Tensor, generator: torch.Generator) -> None:
        """Start episodes where ``mask`` is true, and store their tasks."""
        self._worlds.reset(tasks, mask, generator)
        fresh = task_features(self._family.task_space, tasks)
        if self._shown is None:
            self._shown = fresh.clone()
        self._shown.copy_(torch.where(mask[:, None], fresh, self._shown))  # in place, where a graph reads it

    def step(self, actions: Tensor, tasks: TensorDict, generator: torch.Generator) -> Transition:
        """Step the worlds."""
        return self._worlds.step(actions, tasks, generator)

    def observe(self) -> Tensor:
        """Return observations and tasks ``[B, D + P]``."""
        assert self._shown is not None, "reset comes before observe"
        seen = features(self._family.observation_space, self._worlds.observe())
        return torch.cat([seen, self._shown], -1)

    def unstable(self) -> Tensor | None:
        """Return which worlds are unstable."""
        return self._worlds.unstable()

    def prepare_rendering(self) -> None:
        """Prepare the worlds for rendering."""
        self._worlds.prepare_rendering()

    def render(self, tasks: TensorDict, world: int) -> np.ndarray:
        """Render a world."""
        return self._worlds.render(tasks, world)

    def close(self) -> None:
        """Close the worlds."""
        self._worlds.close()


@dataclass(frozen=True)
class PlannedFamily(FamilyView, TensorFamily):
    """A solved family that plans each episode."""

    family: SolvedFamily

    def initial_state(self, tasks: TensorDict, generator: torch.Generator) -> State:
        """Start like the family, and plan the episode."""
        state = self.family.initial_state(tasks, generator)
        plan = self.family.plan(state, tasks)
        return {**state, PLAN: plan, REMAINING: torch.full((len(tasks),), self.horizon, device=plan.device)}

    def transition(
        self, state: State, actions: Tensor, tasks: TensorDict, generator: torch.Generator
    ) -> tuple[State, Transition]:
        """Step like the family, and count the steps."""
        following, outcome = self.family.transition(state, actions, tasks, generator)
        return {**state, **following, REMAINING: state[REMAINING] - 1}, outcome

    def best_actions(self, state: State) -> Tensor:
        """Return the best actions ``[B, *action]``; after the last step, those with one step left."""
        return self.family.best_actions(state, state[PLAN], state[REMAINING].clamp(min=1))

    def picture(self, state: State, task: TensorDict) -> np.ndarray:
        """Render a world like the family."""
        return self.family.picture(state, task)


@dataclass(frozen=True)
class AdvisedFamily(PlannedFamily):
    """A solved family whose observations are the best actions."""

    @property
    def observation_space(self) -> spaces.Space[Any]:
        """The space of a policy's actions."""
        return unit_space(self.family.action_space)

    def observation(self, state: State) -> Tensor:
        """Return the best actions ``[B, *action]``."""
        return self.best_actions(state)


@dataclass(frozen=True)
class LabelledFamily(PlannedFamily):
    """A solved family whose info contains the best action of each step, as ``best_actions``, for supervised learning.

    A policy does not see it.
    """

    @property
    def observation_space(self) -> spaces.Space[Any]:
        """As in the underlying family."""
        return self.family.observation_space

    def observation(self, state: State) -> Values:
        """Observe like the family."""
        return self.family.observation(state)

    def transition(
        self, state: State, actions: Tensor, tasks: TensorDict, generator: torch.Generator
    ) -> tuple[State, Transition]:
        """Step like the family, and report the actions that would have been best."""
        following, outcome = super().transition(state, actions, tasks, generator)
        return following, outcome._replace(info={**outcome.info, "best_actions": self.best_actions(state)})

    def positions(self, observations: Tensor) -> Tensor | None:
        """Return the underlying family's positions."""
        return self.family.positions(observations)

    def staying(self) -> Staying | None:
        """Return the underlying family's transitions of staying."""
        return self.family.staying()


def labelled(family: TaskFamily, what: str) -> LabelledFamily:
    """Return a family with the best action of each step in its info.

    Args:
        family: a solved family, or one that has been labelled.
        what: as in ``solved.require_solved``.

    Raises:
        InputError: if the best actions are not known.
    """
    return family if isinstance(family, LabelledFamily) else LabelledFamily(require_solved(family, what))


def task_features(space: spaces.Dict, tasks: TensorDict) -> Tensor:
    """Convert tasks ``[B]`` to network inputs of magnitude about 1, float32 ``[B, P]``."""
    return torch.cat([_scaled(part, features(part, tasks[key])) for key, part in space.items()], -1)


def _scaled(space: spaces.Space[Any], flat: Tensor) -> Tensor:
    """Scale numbers ``[B, P]`` with finite bounds to [-1, 1], and leave the others unchanged."""
    if not isinstance(space, spaces.Box):
        return flat
    low, high = (bound.astype(np.float64).reshape(-1) for bound in (space.low, space.high))
    bounded = (high - low > 0) & (high - low < WIDEST)
    low, high = np.where(bounded, low, -1.0), np.where(bounded, high, 1.0)
    numbers = (torch.as_tensor(values, dtype=flat.dtype) for values in ((low + high) / 2, (high - low) / 2))
    middle, half = (send(each, flat.device) for each in numbers)
    return (flat - middle) / half
