"""Recurrent soft actor-critic: off-policy and model-free, with memories of whole trials (Ni et al. 2022).

As in RL², the policy adapts through its memory of the trial. It is trained by soft actor-critic on whole trials from a
replay buffer. Actor and critics have separate memories: with a shared one, the gradient of one loss dominates that of
the other (their section 4.1).

To the critics a trial is one long episode. If an episode inside it ends, terminated or truncated, they bootstrap from
the first step of the next episode, discounted by ``episode_discount``, too. At the end of the trial they bootstrap from
the final observation, as after any time limit, unless the last episode terminated: then the value is 0.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from metarl.agents.in_context.memories.memory import MemoryConfig, make_memory
from metarl.agents.in_context.past_trials import AgedTrials, PastTrials
from metarl.agents.in_context.recurrent_sac_networks import RecurrentSacNetworks, TrialReader
from metarl.agents.in_context.soft_actions import make_soft_actions
from metarl.agents.in_context.trial_learner import ADAPTATION_KL, DiscountedTrialConfig, TrialLearner
from metarl.devices.transfer import read
from metarl.errors import RunError
from metarl.families.family import TaskFamily
from metarl.learning.learner import register_learner
from metarl.learning.replay import Replay
from metarl.learning.rollback import restored_on_error
from metarl.networks.activations import choose_activation
from metarl.networks.optimizers import OptimizerConfig, make_optimizer, moments, restore_moments
from metarl.numerics.noise import draw_rows
from metarl.rollouts.rollout import Rollout
from metarl.rollouts.trials import Trials
from metarl.seeding import generator
from metarl.validation import require_counts, require_layers, require_positive, require_unit


@dataclass(frozen=True)
class RecurrentSacConfig(OptimizerConfig, MemoryConfig, DiscountedTrialConfig):
    """Settings of recurrent soft actor-critic."""

    hidden_size: int = 64
    """Units of the actor's memory and of the critics' memory."""
    embedding_size: int = 64
    """Units of the layer that embeds a step's inputs for each memory."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Units of the hidden layers of policy and critics, which follow the memories."""
    learning_rate: float = 1e-3
    """Step size of the optimiser, for every network and for the temperature."""
    tau: float = 0.005
    """Weight of the critics in each moving-average update of the target critics."""
    updates_per_iteration: int = 50
    """SAC updates in an iteration."""
    trials_per_update: int = 32
    """Whole trials in the batch of an update."""
    buffer_trials: int = 2000
    """Number of newest trials in the replay buffer."""
    initial_temperature: float = 0.1
    """Initial weight of the policy's entropy relative to rewards; the weight is learned."""
    box_entropy: float = -1.0
    """Target entropy in a Box, in nats, per dimension of the action in units of [-1, 1]."""
    discrete_entropy: float = 0.3
    """Target entropy in a Discrete space, as a fraction of the uniform policy's entropy."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, "hidden_size", "embedding_size", "updates_per_iteration", "trials_per_update")
        require_counts(self, "buffer_trials")
        require_positive(self, "learning_rate", "initial_temperature")
        require_unit(self, "tau", "discrete_entropy")
        require_layers(self, "hidden_sizes")
        self.check_memory(self.hidden_size)


@register_learner
class RecurrentSac(TrialLearner):
    """A policy that adapts through its memory of the trial, trained by soft actor-critic on replayed trials.

    Attributes:
        past: the replay buffer.
    """

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
    learns_from_recorded: ClassVar[bool] = True
    network: RecurrentSacNetworks

    def __init__(self, family: TaskFamily, config: RecurrentSacConfig, seed: int, device: torch.device) -> None:
        self.config = config
        super().__init__(family, config, seed, device)
        self.past = PastTrials(config.buffer_trials, device)
        network = self.network
        # An encoder of observations learns from the critics, as in DrQ-v2 (Yarats et al. 2021, section 3.1).
        self._actor = list(network.actor.parameters())
        self._critics = [*network.critics.parameters(), *self.inputs.encoder.parameters()]
        self._trained = [*self._critics, *self._actor, network.log_temperature]
        self._optimizer = make_optimizer(config.optimizer, self._trained, config.learning_rate, fused=True)
        self._updates = 0

    def make_network(self, family: TaskFamily) -> RecurrentSacNetworks:
        """Return actor, critics and target critics."""
        config, inputs = self.config, self.inputs
        activation = choose_activation(config.activation, torch.relu)
        actions = make_soft_actions(self.name, family.action_space, config.box_entropy, config.discrete_entropy)

        def reader() -> TrialReader:
            memory = make_memory(config, config.embedding_size, config.hidden_size)
            return TrialReader(inputs.size, inputs.observation_size, config.embedding_size, memory, activation)

        sizes, temperature = config.hidden_sizes, config.initial_temperature
        return RecurrentSacNetworks((reader(), reader()), actions, sizes, temperature, activation)

    def update(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        """Add the trials to the replay buffer, and take SAC updates on trials from it.

        Raises:
            RunError: when a gradient is NaN or infinite; the learner is then unchanged.
        """
        moved = self.adaptation_kl(rollouts)
        trials = Trials.of(rollouts)
        # All processes draw the same noise for every step of a batch, so their trials need one length.
        trials = trials.padded(max(self.processes.counts(trials.valid.shape[1])))
        newest = self.past.joined(trials, self.processes)
        with restored_on_error(self, ("_updates",), self.network.parameters(), [self._optimizer]):
            metrics = read({"adaptation_kl": moved, **self._descend_often(newest)})
            # Checked after all steps: to look at each would be to wait for it.
            if not math.isfinite(metrics["gradient_norm"]):
                raise RunError("the update is not finite (NaN or infinity in the gradient)")
        self.past.keep(newest)
        return {**metrics, "replay_trials": float(self.past.kept)}

    def _descend_often(self, newest: AgedTrials) -> dict[str, Tensor]:
        """Take all SAC updates of an iteration; return the means of their metrics."""
        self._updates += 1
        numbers = range(self.config.updates_per_iteration)
        streams = [generator(self._seed, "recurrent-sac", self._updates, step, device=self._device) for step in numbers]
        batches = newest.draw(self.config.trials_per_update, streams)
        steps = [self._step(drawn, noise) for drawn, noise in batches]
        return {name: torch.stack([step[name] for step in steps]).double().mean() for name in steps[0]}

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
            targets = trials.rewards + discounts * ~over(trials) * soft[:, 1:]
        features = network.critics.reader.whole(inputs)[:, :-1]
        values = actions.values(network.critics.heads, features, self.inputs.actions(trials.actions))
        errors = (values - targets).square().sum(0)
        acting = policy.map(lambda tensor: tensor[:, :-1])
        soft, entropies = actions.soft_values(
            network.critics.heads, features.detach(), acting, draws[:, :-1], temperature
        )
        critic_loss, gain, entropy = ((each * trials.valid).sum() / steps for each in (errors, soft, entropies))
        return critic_loss, -gain, entropy

    def inputs_to_the_end(self, trials: Trials) -> Tensor:
        """Return the inputs ``[B, L + 1, size]`` of all steps, and of the final observation after the last one."""
        observations, lengths = trials.observations, trials.lengths
        rows = torch.arange(len(lengths), device=lengths.device)
        seen = torch.cat([observations, torch.zeros_like(observations[:, :1])], 1)
        seen[rows, lengths] = trials.next_observations[rows, lengths - 1]
        taken = self.inputs.actions(trials.actions)
        return self.inputs(
            seen,
            torch.cat([torch.zeros_like(taken[:, :1]), taken], 1),
            torch.cat([torch.zeros_like(trials.rewards[:, :1]), trials.rewards], 1),
            torch.cat([trials.starts, torch.zeros_like(trials.starts[:, :1])], 1),
        )

    def replays(self) -> dict[str, Replay]:
        """Return the replay buffer."""
        return {"trials": self.past}

    def state_dict(self) -> dict[str, Any]:
        """Return parameters, the optimiser's moments, the seed and the number of updates."""
        own = {"moments": moments(self._optimizer), "seed": self._seed, "updates": self._updates}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` returned."""
        super().load_state_dict(state)
        self._seed, self._updates = int(state["seed"]), int(state["updates"])
        restore_moments(self._optimizer, state["moments"])


def over(trials: Trials) -> Tensor:
    """Return bool ``[B, L]``: whether a step is the trial's last and terminated its episode."""
    last = torch.arange(trials.valid.shape[1], device=trials.valid.device) == trials.lengths.unsqueeze(1) - 1
    return trials.terminated & last
