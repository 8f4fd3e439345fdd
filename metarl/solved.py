"""Families whose optimal policy is known: an upper bound on what adaptation can reach.

Optimal is the policy with the highest expected sum of rewards over the rest of the episode, given the task.
"""

from abc import abstractmethod

import torch
from tensordict import TensorDict
from torch import Tensor

from metarl.tensor_family import State, TensorFamily


class SolvedFamily(TensorFamily):
    """A family for which the best actions are known, given the task; ``views.AdvisedFamily`` observes them."""

    @abstractmethod
    def plan(self, state: State, tasks: TensorDict) -> Tensor:
        """Return what ``best_actions`` needs of each of B tasks, ``[B, ...]``; called once for each episode.

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
            remaining: steps left in the episode, int64 ``[B]``, at least 1.
        """


def planned_actions(plan: Tensor, remaining: Tensor, places: Tensor) -> Tensor:
    """Look up the actions int64 ``[B]`` that plans ``[B, T, places]`` have for ``places`` ``[B]``.

    Row t - 1 of a plan is for t remaining steps.
    """
    return plan[torch.arange(len(plan), device=plan.device), remaining - 1, places].long()
