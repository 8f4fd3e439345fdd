"""The optimal policy given the task, in families where it is known."""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from metarl.agents.baselines.random_policy import Unlearning
from metarl.errors import InputError
from metarl.families.family import TaskFamily
from metarl.families.solved import require_solved
from metarl.families.views import AdvisedFamily
from metarl.learning.learner import OpenState, register_learner
from metarl.numerics.distributions import Distribution


@dataclass(frozen=True)
class Certain(Distribution):
    """All probability on one action. Shape: ``action`` int64 ``[...]`` or, of a Box, float32 ``[..., A]``."""

    action: Tensor

    def sample(self, generator: torch.Generator) -> Tensor:
        """Return the action."""
        return self.action

    def mode(self) -> Tensor:
        """Return the action."""
        return self.action

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return log-probabilities ``[...]``: 0 for the action, minus infinity for any other."""
        return torch.where(self._is(actions), 0.0, -torch.inf)

    def kl(self, other: Self) -> Tensor:
        """Return 0 ``[...]`` if both have the same action, else infinity."""
        return torch.where(self._is(other.action), 0.0, torch.inf)

    def _is(self, actions: Tensor) -> Tensor:
        same = self.action == actions
        return same.all(-1) if self.action.is_floating_point() else same


@dataclass(frozen=True)
class OptimalConfig:
    """The optimal policy has no settings."""


@register_learner
class OptimalPolicy(Unlearning):
    """Optimal actions given the task, in families where they are known: an upper bound for adaptation."""

    name: ClassVar[str] = "optimal"
    config_class: ClassVar[type] = OptimalConfig

    def __init__(self, family: TaskFamily, config: OptimalConfig, seed: int, device: torch.device) -> None:
        if not isinstance(family, AdvisedFamily):
            raise InputError("optimal needs the family that OptimalPolicy.view returns")

    @classmethod
    def view(cls, family: TaskFamily, config: OptimalConfig) -> TaskFamily:
        """Return the family with the best actions as its observations.

        Raises:
            InputError: for a family whose best actions are not known.
        """
        return AdvisedFamily(require_solved(family, "optimal acts"))

    def action_distribution(self, working: OpenState[None], observations: Tensor) -> Certain:
        """Return the best actions, which are the observations, with probability 1."""
        return Certain(observations)
