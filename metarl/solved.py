"""Families of which it is known how to act best, and the view of them that tells it: a measure for all adaptation.

Best is what has the highest expected sum of rewards over the rest of the episode, for one who knows the task.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from tensordict import TensorDict
from torch import Tensor

from metarl.family import Transition
from metarl.informed import FamilyView
from metarl.spaces import unit_space
from metarl.tensor_family import State, TensorFamily

# Beside the family's own entries in a state, whose names have no spaces.
PLAN, REMAINING = "best plan", "steps left"


class SolvedFamily(TensorFamily):
    """A family of which it is known how one who knows the task acts best."""

    @abstractmethod
    def plan(self, state: State, tasks: TensorDict) -> Tensor:
        """Return what ``best_actions`` is to know of each of B tasks, ``[B, ...]``; asked once for each episode.

        Args:
            state: the episode's first.
            tasks: ``[B]``.
        """

    @abstractmethod
    def best_actions(self, state: State, plan: Tensor, remaining: Tensor) -> Tensor:
        """Return the best actions ``[B, *action]``, as a policy gives them: in [-1, 1] on a bounded Box.

        Args:
            state: the present one.
            plan: what ``plan`` returned for the episode.
            remaining: steps that the episode has left, int64 ``[B]``, at least 1.
        """


@dataclass(frozen=True)
class AdvisedFamily(FamilyView, TensorFamily):
    """A solved family, but its observations are the best actions."""

    family: SolvedFamily

    @property
    def observation_space(self) -> spaces.Space[Any]:
        """The space of actions as a policy gives them."""
        return unit_space(self.family.action_space)

    def initial_state(self, tasks: TensorDict, generator: torch.Generator) -> State:
        """Start as the family does, and plan the episode."""
        state = self.family.initial_state(tasks, generator)
        plan = self.family.plan(state, tasks)
        return {**state, PLAN: plan, REMAINING: torch.full((len(tasks),), self.horizon, device=plan.device)}

    def transition(
        self, state: State, actions: Tensor, tasks: TensorDict, generator: torch.Generator
    ) -> tuple[State, Transition]:
        """Advance as the family does, and count the steps."""
        following, outcome = self.family.transition(state, actions, tasks, generator)
        return {**state, **following, REMAINING: state[REMAINING] - 1}, outcome

    def observation(self, state: State) -> Tensor:
        """Return the best actions ``[B, *action]``; behind the episode's last step, those of a step that is left."""
        return self.family.best_actions(state, state[PLAN], state[REMAINING].clamp(min=1))

    def picture(self, state: State, task: TensorDict) -> np.ndarray:
        """Draw a world as the family does."""
        return self.family.picture(state, task)


def looked_up(plan: Tensor, remaining: Tensor, places: Tensor) -> Tensor:
    """Return the actions int64 ``[B]`` that plans ``[B, T, places]`` have for ``places`` ``[B]``.

    Row t - 1 of a plan is for t remaining steps.
    """
    return plan[torch.arange(len(plan), device=plan.device), remaining - 1, places].long()
