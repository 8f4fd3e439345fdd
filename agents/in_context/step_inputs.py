"""Inputs of a step for in-context learners, and their action distributions."""

from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from metarl.agents.in_context.observation_scale import ObservationScale
from metarl.families.spaces import action_features, observed_space, packed, require_actions, unpacked
from metarl.learning.policies import Logits, distribution_of_logits
from metarl.networks.encoders import make_encoder
from metarl.numerics.distributions import DiagonalGaussian

ActionDistribution = DiagonalGaussian | Logits


class StepInputs:
    """The inputs of a step: observation, previous action and reward, and an episode-start flag.

    Previous action and reward are zeros at a trial's first step, and otherwise those of the last step, even if it was
    in the previous episode.

    Args:
        observation_space: the observation space.
        action_space: Box (clipped to [-1, 1]), Discrete, MultiDiscrete or MultiBinary (one-hot).
        encoder: name of the observation encoder; see ``encoders.make_encoder``.

    Attributes:
        encoder: the observation encoder; if it is learned, it is part of the learner's network.
        observation_size: size of the encoded observation, which comes first.
        size: total size.
        scale: optional normalisation of encoded observations.

    Raises:
        InputError: for unsupported spaces.
    """

    def __init__(
        self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any], encoder: str = "auto"
    ) -> None:
        require_actions(action_space)
        self.encoder = make_encoder(encoder, observation_space)
        self._action_features = action_features(action_space)
        self._observation_space = observed_space(observation_space)
        self.observation_size = self.encoder.size
        self.action_size = spaces.flatdim(action_space)
        self.size = self.observation_size + self.action_size + 2
        self.scale: ObservationScale | None = None

    def observations(self, observations: Tensor) -> Tensor:
        """Encode and normalise observations ``[..., *observation]`` to ``[..., D]``."""
        encoded = self.encoded_observations(observations)
        return encoded if self.scale is None else self.scale(encoded)

    def encoded_observations(self, observations: Tensor) -> Tensor:
        """Encode observations ``[..., *observation]`` to ``[..., D]``, without normalisation."""
        encoded: Tensor = self.encoder(observations)
        return encoded

    def stored(self, observations: Tensor) -> Tensor:
        """Return observations as stored in a replay buffer, ``[..., P]``: raw for a learned encoder, else encoded.

        Raw observations are stored as bits, so the pixels of an image take one byte each.
        """
        if self.encoder.learned:
            return packed(self._observation_space, observations)
        return self.observations(observations)

    def restored(self, rows: Tensor) -> Tensor:
        """Return observations stored by ``stored``, encoded ``[..., D]``."""
        return self.observations(unpacked(self._observation_space, rows)) if self.encoder.learned else rows

    @property
    def stored_size(self) -> int:
        """Size P of a stored observation."""
        if self.encoder.learned:
            return packed(self._observation_space, torch.zeros(self._observation_space.shape or ())).shape[-1]
        return self.observation_size

    def actions(self, actions: Tensor) -> Tensor:
        """Convert actions ``[..., *action]`` of a policy to inputs ``[..., A]``."""
        return self._action_features(actions)

    def __call__(self, observations: Tensor, actions: Tensor, rewards: Tensor, starts: Tensor) -> Tensor:
        """Concatenate a step's inputs ``[..., size]``.

        Args:
            observations: ``[..., *observation]``.
            actions: features ``[..., A]`` of the previous actions.
            rewards: previous raw rewards ``[...]``.
            starts: episode-start flags ``[...]``.
        """
        flags = starts.unsqueeze(-1).to(rewards.dtype)
        return torch.cat([self.observations(observations), actions, rewards.unsqueeze(-1), flags], -1)


class ActionHead(nn.Module):
    """Action distributions from a layer's outputs: logits, or means of Gaussians with a learned standard deviation.

    Attributes:
        size: number of outputs required.
    """

    def __init__(self, action_space: spaces.Space[Any]) -> None:
        super().__init__()
        self.size = spaces.flatdim(action_space)
        self._space, self._gaussian = action_space, isinstance(action_space, spaces.Box)
        self.log_std = nn.Parameter(torch.zeros(self.size if self._gaussian else 0))

    def forward(self, outputs: Tensor) -> ActionDistribution:
        """Return distributions for outputs ``[..., size]``."""
        if self._gaussian:
            return DiagonalGaussian(outputs, self.log_std.expand_as(outputs))
        return distribution_of_logits(self._space, outputs)
