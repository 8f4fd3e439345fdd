"""Families with a known optimal policy, which is an upper bound for adaptation.

The optimal policy maximises the expected undiscounted return over the rest of the episode, given the task.
"""

from abc import abstractmethod

import torch
from tensordict import TensorDict
from torch import Tensor

from metarl.errors import InputError
from metarl.families.family import FAMILIES, TaskFamily
from metarl.families.tensor_family import State, TensorFamily


class SolvedFamily(TensorFamily):
    """A family whose best actions are known, given the task; ``views.AdvisedFamily`` observes them."""

    @abstractmethod
    def plan(self, state: State, tasks: TensorDict) -> Tensor:
        """Return data ``[B, ...]`` that ``best_actions`` needs for each of B tasks; called once per episode.

        Args:
            state: initial state of the episode.
            tasks: parameters ``[B]``.
        """

    @abstractmethod
    def best_actions(self, state: State, plan: Tensor, remaining: Tensor) -> Tensor:
        """Return the best actions ``[B, *action]`` in the policy's units: in [-1, 1] on a bounded Box.

        Args:
            state: the current state.
            plan: what ``plan`` returned for the episode.
            remaining: steps left in the episode, int64 ``[B]``, at least 1.
        """


def require_solved(family: TaskFamily, what: str) -> SolvedFamily:
    """Return a family whose best actions are known.

    Args:
        family: any family.
        what: what is done with them, for the message, such as ``optimal acts``.

    Raises:
        InputError: if they are not known.
    """
    if isinstance(family, SolvedFamily):
        return family
    known = ", ".join(name for name, each in FAMILIES.items() if issubclass(each, SolvedFamily))
    raise InputError(f"{what} in families whose best actions are known ({known}), not in {family.name}")


def planned_actions(plan: Tensor, remaining: Tensor, positions: Tensor) -> Tensor:
    """Look up actions int64 ``[B]`` in plans ``[B, T, positions]`` at ``positions`` ``[B]``.

    Row t - 1 of a plan is for t remaining steps.
    """
    return plan[torch.arange(len(plan), device=plan.device), remaining - 1, positions].long()
