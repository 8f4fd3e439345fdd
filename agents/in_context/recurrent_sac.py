"""Recurrent soft actor-critic: off-policy and model-free, with memories of whole trials (Ni et al. 2022).

As in RL², the policy adapts through its memory of the trial. It is trained by soft actor-critic on whole trials from a
replay buffer. Actor and critics have separate memories: with a shared one, the gradient of one loss dominates that of
the other (their section 4.1).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metarl.agents.in_context.recurrent_sac_networks import RecurrentSacNetworks
from metarl.agents.in_context.soft_actions import make_soft_actions
from metarl.agents.in_context.trial_learner import ADAPTATION_KL, DiscountedTrialConfig
from metarl.agents.in_context.trial_replay import ReplayedTrialConfig, ReplayedTrialLearner, ends_the_trial
from metarl.families.family import TaskFamily
from metarl.learning.learner import register_learner
from metarl.networks.activations import choose_activation
from metarl.numerics.noise import draw_rows
from metarl.rollouts.trials import Trials
from metarl.validation import require_positive, require_unit


@dataclass(frozen=True)
class RecurrentSacConfig(ReplayedTrialConfig, DiscountedTrialConfig):
    """Settings of recurrent soft actor-critic."""

    initial_temperature: float = 0.1
    """Initial weight of the policy's entropy relative to rewards; the weight is learned."""
    box_entropy: float = -1.0
    """Target entropy in a Box, in nats, per dimension of the action in units of [-1, 1]."""
    discrete_entropy: float = 0.3
    """Target entropy in a Discrete space, as a fraction of the uniform policy's entropy."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "initial_temperature")
        require_unit(self, "discrete_entropy")


@register_learner
class RecurrentSac(ReplayedTrialLearner):
    """A policy that adapts through its memory of the trial, trained by soft actor-critic on replayed trials."""

    name: ClassVar[str] = "recurrent-sac"
    config_class: ClassVar[type] = RecurrentSacConfig
    metrics: ClassVar[Mapping[str, str]] = {
        "adaptation_kl": ADAPTATION_KL,
        "critic_loss": "sum of both critics' mean squared errors, in rewards squared, mean over the SAC updates",
        "actor_loss": "negative soft value of the policy",
        "entropy": "mean entropy of the policy at replayed steps, in nats; in a Box estimated from its actions",
        "temperature": "weight of the entropy relative to rewards, mean over the SAC updates",
        "gradient_norm": "Euclidean norm of all gradients of a SAC update together, mean over the SAC updates",
        "replay_trials": "trials in the replay buffer",
    }
    config: RecurrentSacConfig
    network: RecurrentSacNetworks

    def __init__(self, family: TaskFamily, config: RecurrentSacConfig, seed: int, device: torch.device) -> None:
        super().__init__(family, config, seed, device)
        network = self.network
        # An encoder of observations learns from the critics, as in DrQ-v2 (Yarats et al. 2021, section 3.1).
        self._actor = list(network.actor.parameters())
        self._critics = [*network.critics.parameters(), *self.inputs.encoder.parameters()]
        self._train([*self._critics, *self._actor, network.log_temperature])

    def make_network(self, family: TaskFamily) -> RecurrentSacNetworks:
        """Return actor, critics and target critics."""
        config = self.config
        actions = make_soft_actions(self.name, family.action_space, config.box_entropy, config.discrete_entropy)
        readers, activation = (self.make_reader(), self.make_reader()), choose_activation(config.activation, torch.relu)
        return RecurrentSacNetworks(readers, actions, config.hidden_sizes, config.initial_temperature, activation)

    def _step(self, trials: Trials, noise: torch.Generator) -> dict[str, Tensor]:
        """Take one step of the optimiser for all networks at once; return metrics."""
        network = self.network
        critic_loss, actor_loss, entropy = self.losses(trials, noise)
        temperature = network.log_temperature.exp()
        surplus = entropy.detach() - network.actions.target_entropy
        gradients = self.processes.means(
            [
                *torch.autograd.grad(critic_loss, self._critics),
                *torch.autograd.grad(actor_loss, self._actor),
                *torch.autograd.grad(temperature * surplus, [network.log_temperature]),
            ]
        )
        for value, direction in zip(self._trained, gradients, strict=True):
            value.grad = direction
        self._optimizer.step()
        network.follow(self.config.tau)
        names = ("critic_loss", "actor_loss", "entropy")
        shares = self.processes.mean(torch.stack([critic_loss, actor_loss, entropy]).detach())
        return {
            **dict(zip(names, shares, strict=True)),
            "temperature": temperature.detach(),
            "gradient_norm": torch.nn.utils.get_total_norm(gradients),
        }

    def losses(self, trials: Trials, noise: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return this process's share of the critics' loss, of the actor's loss, and of the policy's entropy.

        The mean of the shares over processes is the mean over all steps of the batch.

        Args:
            trials: B trials of up to L steps.
            noise: generator of random numbers for the whole batch.
        """
        network, config = self.network, self.config
        actions, temperature = network.actions, network.log_temperature.detach().exp()
        inputs = self.inputs_to_the_end(trials)
        steps = self.processes.mean(trials.valid.sum())
        draws = draw_rows(torch.randn, (*inputs.shape[:2], actions.size), noise, device=inputs.device)
        policy, _ = network.policy_and_memory(inputs.detach(), network.initial(len(inputs)))
        with torch.no_grad():
            seen = network.targets.reader.whole(inputs)
            soft, _ = actions.soft_values(network.targets.heads, seen, policy, draws, temperature)
            discounts = trials.discounts(config.discount, config.episode_discount)
            targets = trials.rewards + discounts * ~ends_the_trial(trials) * soft[:, 1:]
        features = network.critics.reader.whole(inputs)[:, :-1]
        values = actions.values(network.critics.heads, features, self.inputs.actions(trials.actions))
        errors = (values - targets).square().sum(0)
        acting = policy.map(lambda tensor: tensor[:, :-1])
        soft, entropies = actions.soft_values(
            network.critics.heads, features.detach(), acting, draws[:, :-1], temperature
        )
        critic_loss, gain, entropy = ((each * trials.valid).sum() / steps for each in (errors, soft, entropies))
        return critic_loss, -gain, entropy
