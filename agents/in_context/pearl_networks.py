"""PEARL's policy and critics, conditioned on what the task encoder infers."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metarl.agents.in_context.pearl_config import PearlConfig
from metarl.agents.in_context.perceptrons import Perceptrons
from metarl.agents.in_context.step_inputs import StepInputs
from metarl.agents.in_context.task_encoders import Belief, BeliefEncoder, MetricEncoder, TaskEncoder
from metarl.learning.learner import OpenState
from metarl.networks.activations import Elementwise, choose_activation
from metarl.numerics.distributions import SquashedGaussian
from metarl.numerics.noise import draw_rows

LOG_STD_RANGE = (-20.0, 2.0)


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
    """Task encoder, policy, twin critics and target critics.

    Args:
        encoder: infers the task.
        latent_size: number Z of latent variables.
        observation_size: size D of encoded observations.
        action_size: size A of actions.
        hidden_sizes: units of the hidden layers of each network.
        stream: generator of the initial weights.
        activation: between layers of policy and critics.
    """

    def __init__(
        self,
        encoder: TaskEncoder,
        latent_size: int,
        observation_size: int,
        action_size: int,
        hidden_sizes: Sequence[int],
        stream: torch.Generator,
        activation: Elementwise,
    ) -> None:
        super().__init__()
        policy_sizes = [observation_size + latent_size, *hidden_sizes, 2 * action_size]
        value_sizes = [observation_size + action_size + latent_size, *hidden_sizes, 1]
        self.encoder = encoder
        self.actor = Perceptrons(1, policy_sizes, stream, activation)
        self.critics, self.targets = (Perceptrons(2, value_sizes, stream, activation) for _ in range(2))
        self.targets.load_state_dict(self.critics.state_dict())
        self.targets.requires_grad_(False)

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


def make_encoder(config: PearlConfig, inputs: StepInputs, stream: torch.Generator, seed: int) -> TaskEncoder:
    """Return the task encoder that the settings name."""
    transition = (2 if config.encode_dynamics else 1) * inputs.observation_size + inputs.action_size + 1
    activation = choose_activation(config.activation, torch.relu)
    shared = transition, config.hidden_sizes, config.latent_size, config.encode_dynamics, stream, activation
    if config.task_encoder == "critic":
        return BeliefEncoder(*shared, config.kl_weight / config.reward_scale**2)
    return MetricEncoder(*shared, config.task_encoder, 1 / config.episodes_per_trial, seed)
