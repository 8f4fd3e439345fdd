"""What learners that remember a trial read of a step, and the action distributions that they make."""

from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from metarl.agents.in_context.observation_scale import ObservationScale
from metarl.distributions import DiagonalGaussian
from metarl.encoders import make_encoder
from metarl.policies import Logits, distribution_of_logits
from metarl.spaces import action_features, observed_space, packed, require_actions, unpacked

ActionDistribution = DiagonalGaussian | Logits


class StepInputs:
    """A step's inputs: observation, previous action and reward, and whether an episode begins.

    Previous action and reward are zeros before a trial's first step, and else those of the last step, also where that
    was in the episode before.

    Args:
        observation_space: what the encoder reads.
        action_space: Box (clipped to units of [-1, 1]), Discrete, MultiDiscrete or MultiBinary (one-hot).
        encoder: name of what encodes observations; see ``encoders.make_encoder``.

    Attributes:
        encoder: turns observations into numbers; if it is learned, it is a part of the learner's network.
        observation_size: of the observation's part, which comes first.
        size: of all.
        scale: what encoded observations are passed through, if it is set.

    Raises:
        InputError: for other spaces.
    """

    def __init__(
        self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any], encoder: str = "auto"
    ) -> None:
        require_actions(action_space)
        self.encoder = make_encoder(encoder, observation_space)
        self._action_space, self._observation_space = action_space, observed_space(observation_space)
        self.observation_size = self.encoder.size
        self.action_size = spaces.flatdim(action_space)
        self.size = self.observation_size + self.action_size + 2
        self.scale: ObservationScale | None = None

    def observations(self, observations: Tensor) -> Tensor:
        """Return observations ``[..., *observation]`` encoded ``[..., D]`` and scaled."""
        encoded = self.encoded_observations(observations)
        return encoded if self.scale is None else self.scale(encoded)

    def encoded_observations(self, observations: Tensor) -> Tensor:
        """Return observations ``[..., *observation]`` encoded ``[..., D]``, not scaled."""
        encoded: Tensor = self.encoder(observations)
        return encoded

    def stored(self, observations: Tensor) -> Tensor:
        """Return observations as a replay stores them ``[..., P]``: what a learned encoder reads, else what it gives.

        Rows of what a learned encoder reads hold its bits: the pixels of an image stay one byte each.
        """
        if self.encoder.learned:
            return packed(self._observation_space, observations)
        return self.observations(observations)

    def restored(self, rows: Tensor) -> Tensor:
        """Return what ``stored`` made of observations encoded ``[..., D]``."""
        return self.observations(unpacked(self._observation_space, rows)) if self.encoder.learned else rows

    @property
    def stored_size(self) -> int:
        """The numbers P of a stored observation."""
        if self.encoder.learned:
            return packed(self._observation_space, torch.zeros(self._observation_space.shape or ())).shape[-1]
        return self.observation_size

    def actions(self, actions: Tensor) -> Tensor:
        """Return actions ``[..., *action]``, as a policy drew them, as ``[..., A]``."""
        return action_features(self._action_space, actions)

    def __call__(self, observations: Tensor, actions: Tensor, rewards: Tensor, starts: Tensor) -> Tensor:
        """Join a step's inputs ``[..., size]``.

        Args:
            observations: ``[..., *observation]``.
            actions: features ``[..., A]`` of the previous actions.
            rewards: the previous rewards ``[...]``, as the family gave them.
            starts: whether an episode begins, ``[...]``.
        """
        flags = starts.unsqueeze(-1).to(rewards.dtype)
        return torch.cat([self.observations(observations), actions, rewards.unsqueeze(-1), flags], -1)


class ActionHead(nn.Module):
    """Action distributions from a layer's outputs: their logits, or the means of Gaussians of one deviation.

    Attributes:
        size: number of outputs it takes.
    """

    def __init__(self, action_space: spaces.Space[Any]) -> None:
        super().__init__()
        self.size = spaces.flatdim(action_space)
        self._space, self._gaussian = action_space, isinstance(action_space, spaces.Box)
        self.log_std = nn.Parameter(torch.zeros(self.size if self._gaussian else 0))

    def forward(self, outputs: Tensor) -> ActionDistribution:
        """Return distributions of outputs ``[..., size]``."""
        if self._gaussian:
            return DiagonalGaussian(outputs, self.log_std.expand_as(outputs))
        return distribution_of_logits(self._space, outputs)
