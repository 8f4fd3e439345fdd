"""FOCAL: PEARL on recorded episodes, with a task encoder trained by distances and a regularised actor (Li et al. 2021).

Off-policy learning from recorded episodes extrapolates the values of actions that were never taken, and no new episode
corrects them. So the policy is kept near the *behaviour policy*, which acted in the recorded episodes, by the KL
divergence of the two (Wu, Tucker, Nachum 2019, section 3). A density model of the recorded actions approximates it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.func import functional_call

from metarl.agents.in_context.pearl import Pearl
from metarl.agents.in_context.pearl_config import PearlConfig, TaskEncoderName
from metarl.agents.in_context.pearl_networks import drawn
from metarl.agents.in_context.perceptrons import Perceptrons
from metarl.agents.in_context.replay import Transitions
from metarl.families.family import TaskFamily
from metarl.learning.learner import register_learner
from metarl.networks.activations import choose_activation
from metarl.numerics.distributions import DiagonalGaussian
from metarl.seeding import generator
from metarl.validation import require_not_negative

# Recorded actions may all be the same; their density must stay finite.
LOG_STD_RANGE = (-3.0, 1.0)


@dataclass(frozen=True)
class FocalConfig(PearlConfig):
    """Settings of FOCAL."""

    task_encoder: TaskEncoderName = "focal"
    """What trains the encoder of the task: the critics' loss, or a metric that distinguishes tasks."""
    behaviour_weight: float = 1.0
    """Weight of the KL divergence of the policy from the behaviour policy, relative to rewards."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_not_negative(self, "behaviour_weight")


@register_learner
class FocalLearner(Pearl):
    """PEARL for recorded episodes: a distance metric trains the task encoder, and the policy stays near the data."""

    name: ClassVar[str] = "focal"
    config_class: ClassVar[type] = FocalConfig
    needs_recorded: ClassVar[bool] = True
    metrics: ClassVar[Mapping[str, str]] = {
        **Pearl.metrics,
        "actor_loss": "negative soft value of the policy, plus the weighted divergence from the behaviour policy, plus "
        "the loss of the model of that policy",
    }
    config: FocalConfig

    def __init__(self, family: TaskFamily, config: FocalConfig, seed: int, device: torch.device) -> None:
        super().__init__(family, config, seed, device)
        sizes = [self._inputs.observation_size + config.latent_size, *config.hidden_sizes, 2 * self._inputs.action_size]
        activation = choose_activation(config.activation, torch.relu)
        self.behaviour = Perceptrons(1, sizes, generator(seed, "behaviour"), activation).to(device)
        self.networks.add_module("behaviour", self.behaviour)
        self._optimizers[1] = self._make_optimizer(self.networks.actor, self.behaviour)

    def actor_loss(self, steps: Transitions, latent: Tensor, stream: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the loss of the policy and of the behaviour model, and the policy's entropy.

        The model learns from the recorded actions only, and the policy from the model as it is.
        """
        loss, entropy = super().actor_loss(steps, latent, stream)
        known = torch.cat([steps.observations, latent.detach()], -1)
        fitted = -gaussian(self.behaviour(known)).log_prob(steps.actions).mean()
        actions, log_probs = drawn(self.networks.policy(steps.observations, latent.detach()), stream)
        fixed = {name: value.detach() for name, value in self.behaviour.named_parameters()}
        behaved = gaussian(functional_call(self.behaviour, fixed, known)).log_prob(actions)
        return loss + self.config.behaviour_weight * (log_probs - behaved).mean() + fitted, entropy


def gaussian(outputs: Tensor) -> DiagonalGaussian:
    """Return the densities of actions that the behaviour model's outputs ``[1, ..., 2 A]`` describe."""
    mean, log_std = outputs[0].chunk(2, -1)
    return DiagonalGaussian(mean, log_std.clamp(*LOG_STD_RANGE))
