"""Policies and values of soft actor-critic: from a sampled action in a Box, from all actions in a Discrete space.

There are two critics, and the smaller of their values is used.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from metarl.agents.in_context.perceptrons import Perceptrons
from metarl.agents.in_context.step_inputs import ActionDistribution
from metarl.errors import InputError
from metarl.families.spaces import is_bounded_box, one_line, require_actions
from metarl.numerics.distributions import Categorical, SquashedGaussian

LOG_STD_RANGE = (-20.0, 2.0)


@dataclass(frozen=True)
class SoftActions(ABC):
    """Actions of one kind of space, as vectors ``[..., A]``.

    Attributes:
        size: A.
        target_entropy: of the policy, in nats.
    """

    size: int
    target_entropy: float

    @property
    @abstractmethod
    def policy_outputs(self) -> int:
        """Number of network outputs that parametrise the policy."""

    @property
    @abstractmethod
    def critic_inputs(self) -> int:
        """Number of inputs of a critic in addition to its features."""

    @property
    @abstractmethod
    def critic_outputs(self) -> int:
        """Number of outputs of a critic."""

    @abstractmethod
    def policy(self, outputs: Tensor) -> ActionDistribution:
        """Return the policies with parameters ``[..., policy_outputs]``."""

    @abstractmethod
    def values(self, critics: Perceptrons, features: Tensor, actions: Tensor) -> Tensor:
        """Return each critic's values ``[2, ...]`` of actions ``[..., A]`` at features ``[..., F]``."""

    @abstractmethod
    def soft_values(
        self, critics: Perceptrons, features: Tensor, policy: Any, noise: Tensor, temperature: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the soft values of a policy, and its entropies, ``[...]`` each.

        Args:
            critics: of the actions.
            features: inputs ``[..., F]`` of the critics.
            policy: distributions with tensors ``[..., A]``.
            noise: standard normal numbers ``[..., A]``, used where actions are sampled.
            temperature: weight of the entropy.
        """


class BoxActions(SoftActions):
    """Actions in a bounded Box, in units of [-1, 1], sampled by reparametrisation (Haarnoja et al. 2018)."""

    @property
    def policy_outputs(self) -> int:
        """Mean and log standard deviation of each dimension, before tanh."""
        return 2 * self.size

    @property
    def critic_inputs(self) -> int:
        """The whole action."""
        return self.size

    @property
    def critic_outputs(self) -> int:
        """The value of the action."""
        return 1

    def policy(self, outputs: Tensor) -> SquashedGaussian:
        """Return squashed Gaussians."""
        mean, log_std = outputs.chunk(2, -1)
        return SquashedGaussian(mean, log_std.clamp(*LOG_STD_RANGE))

    def values(self, critics: Perceptrons, features: Tensor, actions: Tensor) -> Tensor:
        """Return each critic's values ``[2, ...]``."""
        values: Tensor = critics(torch.cat([features, actions], -1))
        return values.squeeze(-1)

    def soft_values(
        self, critics: Perceptrons, features: Tensor, policy: SquashedGaussian, noise: Tensor, temperature: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return values and entropies, both estimated from one action."""
        actions, log_probs = policy.of_noise(noise)
        return self.values(critics, features, actions).amin(0) - temperature * log_probs, -log_probs


class DiscreteActions(SoftActions):
    """One of A actions; the critics give the values of all, so none is sampled (Christodoulou 2019)."""

    @property
    def policy_outputs(self) -> int:
        """The logit of each action."""
        return self.size

    @property
    def critic_inputs(self) -> int:
        """None."""
        return 0

    @property
    def critic_outputs(self) -> int:
        """The value of each action."""
        return self.size

    def policy(self, outputs: Tensor) -> Categorical:
        """Return categoricals."""
        return Categorical(outputs)

    def values(self, critics: Perceptrons, features: Tensor, actions: Tensor) -> Tensor:
        """Return each critic's values ``[2, ...]`` of one-hot actions."""
        found: Tensor = (critics(features) * actions).sum(-1)
        return found

    def soft_values(
        self, critics: Perceptrons, features: Tensor, policy: Categorical, noise: Tensor, temperature: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return expected values and entropies, exact."""
        log_probs = policy.logits.log_softmax(-1)
        probs = log_probs.exp()
        entropies = -(probs * log_probs).sum(-1)
        return (probs * critics(features).amin(0)).sum(-1) + temperature * entropies, entropies


def make_soft_actions(name: str, space: spaces.Space[Any], per_number: float, share: float) -> SoftActions:
    """Return the kind of actions of a space.

    Args:
        name: of the learner, for the error message.
        space: of actions.
        per_number: target entropy per dimension of a Box, in nats.
        share: target entropy in a Discrete space, as a fraction of the uniform policy's.

    Raises:
        InputError: for spaces other than bounded Boxes and Discrete ones.
    """
    require_actions(space)
    size = spaces.flatdim(space)
    if is_bounded_box(space):
        return BoxActions(size, per_number * size)
    if isinstance(space, spaces.Discrete):
        return DiscreteActions(size, share * math.log(size))
    raise InputError(f"{name} needs actions in a bounded Box or a Discrete space, not in {one_line(space)}; use rl2")
