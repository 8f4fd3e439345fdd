"""PEARL's networks: the context encoder, and the policy and critics conditioned on its latent variables."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from metarl.agents.in_context.perceptrons import Perceptrons
from metarl.agents.in_context.replay import Transitions
from metarl.distributions import DiagonalGaussian, SquashedGaussian
from metarl.learner import OpenState
from metarl.noise import draw_rows

LOG_STD_RANGE = (-20.0, 2.0)


@dataclass(frozen=True)
class Belief:
    """The evidence of transitions about the latent variables: a product of Gaussian factors, one per transition.

    It is stored in natural parameters, in which products become sums; zeros mean no evidence.

    Shapes:
        precision: sum of the factors' precisions ``[..., Z]``.
        shift: sum of the factors' precisions times means ``[..., Z]``.
    """

    precision: Tensor
    shift: Tensor

    def __add__(self, other: "Belief") -> "Belief":
        """Return the product of both."""
        return Belief(self.precision + other.precision, self.shift + other.shift)

    def posterior(self) -> DiagonalGaussian:
        """Return the product of all factors and the prior, which is N(0, 1) for each latent variable."""
        precision = 1 + self.precision
        return DiagonalGaussian(self.shift / precision, -0.5 * precision.log())


@dataclass
class OpenBelief(OpenState[Belief]):
    """What the policy is conditioned on in R episodes of each of N tasks.

    Shapes:
        latent: sample of the belief for the whole episode, ``[N, R, Z]``.
        kept: actions ``[N, R, A]`` before squashing that replace the policy's for the whole episode.
    """

    latent: Tensor
    kept: Tensor | None = None


class PearlNetworks(nn.Module):
    """Context encoder, policy, twin critics and target critics.

    Args:
        observation_size: size D of encoded observations.
        action_size: size A of actions.
        latent_size: number Z of latent variables.
        hidden_sizes: units of the hidden layers of each network.
        dynamics: also give the encoder the next observation.
        stream: generator of the initial weights.
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        latent_size: int,
        hidden_sizes: Sequence[int],
        dynamics: bool,
        stream: torch.Generator,
    ) -> None:
        super().__init__()
        self._dynamics = dynamics
        transition = (2 if dynamics else 1) * observation_size + action_size + 1
        value_sizes = [observation_size + action_size + latent_size, *hidden_sizes, 1]
        self.encoder = Perceptrons(1, [transition, *hidden_sizes, 2 * latent_size], stream)
        self.actor = Perceptrons(1, [observation_size + latent_size, *hidden_sizes, 2 * action_size], stream)
        self.critics, self.targets = (Perceptrons(2, value_sizes, stream) for _ in range(2))
        self.targets.load_state_dict(self.critics.state_dict())
        self.targets.requires_grad_(False)

    def belief(self, steps: Transitions) -> Belief:
        """Return the joint evidence ``[..., Z]`` of C transitions, whose tensors are ``[..., C, ...]``."""
        seen = [steps.observations, steps.actions, steps.rewards.unsqueeze(-1)]
        inputs = torch.cat([*seen, steps.next_observations] if self._dynamics else seen, -1)
        means, outputs = self.encoder(inputs)[0].chunk(2, -1)
        precisions = softplus(outputs) * steps.valid.unsqueeze(-1)
        return Belief(precisions.sum(-2), (precisions * means).sum(-2))

    def policy(self, observations: Tensor, latent: Tensor) -> SquashedGaussian:
        """Return action distributions at observations ``[..., D]``, given latent variables ``[..., Z]``."""
        mean, log_std = self.actor(torch.cat([observations, latent], -1))[0].chunk(2, -1)
        return SquashedGaussian(mean, log_std.clamp(*LOG_STD_RANGE))

    @staticmethod
    def values(critics: Perceptrons, observations: Tensor, actions: Tensor, latent: Tensor) -> Tensor:
        """Return each critic's values ``[2, ...]`` of actions ``[..., A]`` at observations ``[..., D]``."""
        values: Tensor = critics(torch.cat([observations, actions, latent], -1))
        return values.squeeze(-1)

    def follow(self, share: float) -> None:
        """Move the target critics a fraction of the way to the critics (Polyak averaging)."""
        for target, critic in zip(self.targets.parameters(), self.critics.parameters(), strict=True):
            target.data.lerp_(critic.data, share)


def drawn(distribution: SquashedGaussian, stream: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sample actions ``[..., A]``; return them and their log-densities ``[...]``, as functions of the parameters."""
    mean, _ = distribution.tensors()
    return distribution.of_noise(draw_rows(torch.randn, mean.shape, stream, device=mean.device, dtype=mean.dtype))
