"""What learners that remember a trial read of a step, and the action distributions that they make."""

from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from metarl.agents.in_context.observation_scale import ObservationScale
from metarl.distributions import Categorical, DiagonalGaussian
from metarl.errors import InputError
from metarl.spaces import features


class StepInputs:
    """A step's inputs: observation, previous action and reward, and whether an episode begins.

    Previous action and reward are zeros before a trial's first step, and else those of the last step, also where that
    was in the episode before.

    Args:
        observation_space: Box (flattened) or Discrete (one-hot).
        action_space: Box of one axis (clipped to units of [-1, 1]) or Discrete from 0 on (one-hot).

    Attributes:
        observation_size: of the observation's part, which stands first.
        size: of all.
        scale: what observations are passed through, if it is set.

    Raises:
        InputError: for other spaces.
    """

    def __init__(self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        if not isinstance(observation_space, spaces.Box | spaces.Discrete):
            raise InputError(f"a memory observes a Box or Discrete space, not {observation_space}")
        flat_box = isinstance(action_space, spaces.Box) and len(action_space.shape) == 1
        if not flat_box and not (isinstance(action_space, spaces.Discrete) and action_space.start == 0):
            space = " ".join(str(action_space).split())
            raise InputError(f"a memory acts in a Box of one axis or a Discrete space from 0 on, not in {space}")
        self._observation_space, self._action_space = observation_space, action_space
        self.observation_size = spaces.flatdim(observation_space)
        self.action_size = spaces.flatdim(action_space)
        self.size = self.observation_size + self.action_size + 2
        self.scale: ObservationScale | None = None

    def observations(self, observations: Tensor) -> Tensor:
        """Return observations ``[..., *observation]`` as ``[..., D]``, scaled."""
        features = self.raw_observations(observations)
        return features if self.scale is None else self.scale(features)

    def raw_observations(self, observations: Tensor) -> Tensor:
        """Return observations ``[..., *observation]`` as ``[..., D]``, as the family gave them."""
        return features(self._observation_space, observations)

    def actions(self, actions: Tensor) -> Tensor:
        """Return actions ``[..., *action]``, as a policy drew them, as ``[..., A]``."""
        if isinstance(self._action_space, spaces.Discrete):
            return nn.functional.one_hot(actions, self.action_size).float()
        return actions.clamp(-1, 1)

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
        self.discrete = isinstance(action_space, spaces.Discrete)
        self.log_std = nn.Parameter(torch.zeros(0 if self.discrete else self.size))

    def forward(self, outputs: Tensor) -> Categorical | DiagonalGaussian:
        """Return distributions of outputs ``[..., size]``."""
        if self.discrete:
            return Categorical(outputs)
        return DiagonalGaussian(outputs, self.log_std.expand_as(outputs))
