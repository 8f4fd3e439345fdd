"""The baseline that learns nothing: uniformly random actions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from gymnasium import spaces
from torch import Tensor

from metarl.families.family import TaskFamily
from metarl.families.spaces import require_actions
from metarl.learning.learner import Learner, OpenState, register_learner
from metarl.learning.policies import distribution_of_logits
from metarl.numerics.distributions import Distribution
from metarl.numerics.noise import draw_rows
from metarl.rollouts.rollout import Rollout


@dataclass(frozen=True)
class UniformUnits(Distribution):
    """Independent uniform distributions over [-1, 1]. Shape: ``middle`` ``[..., A]``, zeros."""

    middle: Tensor

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw one action ``[..., A]`` from each distribution."""
        return 2 * draw_rows(torch.rand, self.middle.shape, generator, device=self.middle.device) - 1

    def mode(self) -> Tensor:
        """Return the middle ``[..., A]``."""
        return self.middle

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return log-densities ``[...]`` of ``actions`` ``[..., A]`` in [-1, 1]."""
        return torch.full_like(actions[..., 0], -math.log(2.0) * actions.shape[-1])

    def kl(self, other: Self) -> Tensor:
        """Return zeros ``[...]``."""
        return torch.zeros_like(self.middle[..., 0])


class Unlearning(Learner):
    """A fixed policy, which neither adapts nor learns and has no state."""

    inner_steps = 0
    baseline: ClassVar[bool] = True
    capturable: ClassVar[bool] = True
    metrics: ClassVar[Mapping[str, str]] = {"learned_env_steps": "0: it does not learn"}

    def begin(self, num_tasks: int) -> None:
        """Return nothing."""

    def adapt(self, state: None, rollout: Rollout) -> None:
        """Learn nothing."""

    def update(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        """Learn nothing."""
        return {"learned_env_steps": 0.0}

    def state_dict(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class RandomConfig:
    """The random policy has no settings."""


@register_learner
class RandomPolicy(Unlearning):
    """Uniformly random actions, independent of observations: a lower bound for every learner."""

    name: ClassVar[str] = "random"
    config_class: ClassVar[type] = RandomConfig

    def __init__(self, family: TaskFamily, config: RandomConfig, seed: int, device: torch.device) -> None:
        require_actions(family.action_space)
        self._space, self._size = family.action_space, spaces.flatdim(family.action_space)

    def action_distribution(self, working: OpenState[None], observations: Tensor) -> Distribution:
        """Return uniform distributions, whose mode is the first action or the middle of the range."""
        zeros = torch.zeros(*observations.shape[:2], self._size, device=observations.device)
        return (
            UniformUnits(zeros) if isinstance(self._space, spaces.Box) else distribution_of_logits(self._space, zeros)
        )
