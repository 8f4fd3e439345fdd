"""PEARL: probabilistic embeddings for actor-critic reinforcement learning (Rakelly et al. 2019).

An encoder maps each transition of a task to a Gaussian factor over a few latent variables; their product is the belief
about the task. The policy and critics of soft actor-critic are conditioned on a sample of it. Each episode of a trial
acts on one sample of the current belief: posterior sampling.

With several processes each keeps the trials of its own tasks. A step's tasks are drawn from those of all, and each
process works on those of them that it keeps; losses, gradients and metrics are means over the tasks of all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from metarl.agents.gradient.gradient_learner import annealed
from metarl.agents.in_context.pearl_config import PearlConfig
from metarl.agents.in_context.pearl_networks import OpenBelief, PearlNetworks, drawn, make_encoder
from metarl.agents.in_context.replay import Transitions, TrialReplay
from metarl.agents.in_context.step_inputs import StepInputs
from metarl.agents.in_context.task_encoders import Belief
from metarl.devices.transfer import read
from metarl.errors import InputError, RunError
from metarl.families.family import TaskFamily
from metarl.families.spaces import is_bounded_box, one_line, require_actions
from metarl.learning.learner import Learner, register_learner
from metarl.learning.replay import Replay
from metarl.learning.rollback import restored_on_error
from metarl.networks.activations import choose_activation
from metarl.networks.optimizers import make_optimizer, moments, restore_moments
from metarl.numerics.distributions import SquashedGaussian
from metarl.numerics.noise import draw_rows
from metarl.rollouts.rollout import Rollout
from metarl.rollouts.trials import Trials
from metarl.seeding import generator, global_stream

# Logarithm of the standard deviation of the noise on the repeated actions of random iterations, before squashing.
RANDOM_LOG_STD = -1.0


@register_learner
class Pearl(Learner):
    """Soft actor-critic conditioned on samples of a probabilistic belief about the task, inferred from transitions.

    Parallel episodes of a task belong to independent trials.
    """

    name: ClassVar[str] = "pearl"
    config_class: ClassVar[type] = PearlConfig
    metrics: ClassVar[Mapping[str, str]] = {
        "adaptation_kl": "mean KL divergence of the policy at the mean of the belief from the one at the prior's mean, "
        "in nats, at the steps of the trial's last episode: how far adaptation moves the policy",
        "critic_loss": "sum of both critics' mean squared errors, in rewards squared, mean over the SAC updates",
        "latent_kl": "mean KL divergence of beliefs about training tasks from the prior, in nats, if `task_encoder` is "
        "critic",
        "metric_loss": "loss of the metric that trains the embedding of a task, if `task_encoder` is a metric",
        "actor_loss": "negative soft value of the policy",
        "entropy": "mean entropy of the policy, in nats, estimated from its actions",
        "replay_transitions": "transitions in the replay buffer",
    }
    pools_episodes: ClassVar[bool] = False
    capturable: ClassVar[bool] = True
    parameters_at: ClassVar[Sequence[str]] = ("networks",)
    learns_from_recorded: ClassVar[bool] = True

    def __init__(self, family: TaskFamily, config: PearlConfig, seed: int, device: torch.device) -> None:
        require_actions(family.action_space)
        if not is_bounded_box(family.action_space):
            space = one_line(family.action_space)
            raise InputError(f"{self.name} needs actions in a bounded Box, not in {space}; use rl2")
        self.config = config
        self.inner_steps = self.evaluation_steps = config.episodes_per_trial - 1
        self.initial_steps = config.initial_steps
        self._device, self._seed, self._updates = device, seed, 0
        with global_stream(seed, "observation encoder"):
            self._inputs = inputs = StepInputs(family.observation_space, family.action_space, config.encoder)
        stream = generator(seed, "networks")
        encoder = make_encoder(config, inputs, stream, seed)
        sizes = config.latent_size, inputs.observation_size, inputs.action_size, config.hidden_sizes
        networks = PearlNetworks(encoder, *sizes, stream, choose_activation(config.activation, torch.relu))
        if inputs.encoder.learned:  # then it is saved with the networks that read it
            networks.add_module("observation_encoder", inputs.encoder)
        self.networks = networks.to(device)
        trial = config.episodes_per_trial * family.horizon
        self.replay = TrialReplay(config.replay_size, trial, inputs.stored_size, device)
        # A learned observation encoder is trained by the critics' loss, as in DrQ-v2 (Yarats et al. 2021, section 3.1).
        critics = (self.networks.encoder, self.networks.critics, inputs.encoder)
        self._optimizers = [self._make_optimizer(*parts) for parts in (critics, (self.networks.actor,))]

    def _make_optimizer(self, *parts: nn.Module) -> torch.optim.Optimizer:
        """Return the optimiser of some of the networks."""
        parameters = [value for part in parts for value in part.parameters()]
        return make_optimizer(self.config.optimizer, parameters, self.config.learning_rate, fused=True)

    def begin(self, num_tasks: int) -> Belief:
        """Return the prior beliefs ``[N, 1, F]``."""
        nothing = torch.zeros(num_tasks, 1, self.networks.encoder.size, device=self._device)
        return Belief(nothing, nothing)

    @torch.no_grad()
    def open(self, state: Belief, episodes: int, generator: torch.Generator, deterministic: bool = False) -> OpenBelief:
        """Infer what the next episode of ``episodes`` trials of each task is to act on.

        Raises:
            InputError: if the state has another number of trials.
        """
        trials = state.shift.shape[1]
        if trials not in (1, episodes):
            raise InputError(f"{trials} trials of each task need {trials} episodes, not {episodes}")
        belief = state.map(lambda tensor: tensor.expand(-1, episodes, -1))
        encoder, kept = self.networks.encoder, None
        if self._updates < self.config.random_iterations:
            shape = (*belief.shift.shape[:2], self._inputs.action_size)
            kept = draw_rows(torch.randn, shape, generator, device=self._device)
        likeliest = deterministic and self.config.deterministic_latent
        latent = encoder.likeliest(belief) if likeliest else encoder.latents(belief, generator)
        return OpenBelief(state, latent, kept)

    @torch.no_grad()
    def action_distribution(self, working: OpenBelief, observations: Tensor) -> SquashedGaussian:
        """Return the policy's distribution given the latent variables of the episode."""
        if working.kept is None:
            return self.networks.policy(self._inputs.observations(observations), working.latent)
        return SquashedGaussian(working.kept, torch.full_like(working.kept, RANDOM_LOG_STD))

    @torch.no_grad()
    def adapt(self, state: Belief, rollout: Rollout) -> Belief:
        """Add the factors of one more episode of every trial."""
        steps = Transitions.of_trials(self._inputs, Trials.of_episode(rollout), rollout.num_tasks)
        return state + self.networks.encoder.belief(self._encoded(steps))

    @torch.no_grad()
    def task_embeddings(self, trials: Trials) -> Tensor:
        """Return what an episode that starts with each step would act on; see ``TaskEmbedding``."""
        steps = Transitions.of_trials(self._inputs, trials, len(trials.rewards))
        evidence = self.networks.encoder.evidence(self._encoded(steps))
        return self.networks.encoder.likeliest(evidence.map(lambda tensor: (tensor.cumsum(-2) - tensor)[:, 0]))

    def transitions(self, rollouts: Sequence[Rollout]) -> Transitions:
        """Return the steps ``[N, R, L]`` of trials without gaps, with observations as stored in the replay buffer."""
        return Transitions.of_trials(self._inputs, Trials.of(rollouts), rollouts[0].num_tasks)

    def _encoded(self, steps: Transitions) -> Transitions:
        """Return stored steps with encoded observations; next observations carry no gradients."""
        seen, following = map(self._inputs.restored, (steps.observations, steps.next_observations))
        return replace(steps, observations=seen, next_observations=following.detach())

    def add_to_replay(self, rollouts: Sequence[Rollout]) -> None:
        """Add the episodes of trials to the replay buffer.

        Raises:
            InputError: if they do not fit.
        """
        ends = torch.stack([rollout.valid.sum(-1) for rollout in rollouts], -1).cumsum(-1)
        self.replay.add(self.transitions(rollouts), ends, self.processes)

    def update(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        """Add the rollouts to the replay buffer, and take steps of soft actor-critic.

        Raises:
            InputError: if the rollouts do not fit into the replay buffer, or a metric has nothing to compare.
            RunError: if a gradient is NaN or infinite; the learner is then unchanged.
        """
        self.networks.encoder.check(rollouts[0].rewards.shape[1])
        moved = self.adaptation_kl(rollouts)
        self.add_to_replay(rollouts)
        try:
            with restored_on_error(self, ("_updates",), self.networks.parameters(), self._optimizers):
                means = self._descend_often()
                metrics = read({"adaptation_kl": moved, **means, "replay_transitions": self.replay.num_transitions})
                # Checked after all steps: to look at each would be to wait for it.
                if not metrics.pop("sound"):
                    raise RunError("the update is not finite (NaN or infinity in the gradient)")
        except RunError:
            self.replay.undo()
            raise
        total = sum(self.processes.counts(round(metrics["replay_transitions"])))
        return {**metrics, "replay_transitions": float(total)}

    @torch.no_grad()
    def adaptation_kl(self, rollouts: Sequence[Rollout]) -> Tensor:
        """Return how far ``[]`` the episodes before the last one of each trial move the policy, in nats.

        Args:
            rollouts: rollouts of the trials' episodes, in order.
        """
        *earlier, last = rollouts
        nothing = belief = self.begin(last.num_tasks)
        for rollout in earlier:
            belief = self.adapt(belief, rollout)
        unknown, latent = (
            self.networks.encoder.likeliest(each).expand(-1, last.rewards.shape[1], -1) for each in (nothing, belief)
        )
        # Each step of an episode is a transition of the task: ``[N, R * T]``, with encoded observations.
        seen = self._inputs.observations(last.observations).flatten(1, 2)
        before, after = (
            self.networks.policy(seen, each.repeat_interleave(last.rewards.shape[2], 1)) for each in (unknown, latent)
        )
        kl = after.kl(before) * last.valid.flatten(1)
        return self.processes.mean(kl.sum()) / self.processes.mean(last.valid.sum())

    def _descend_often(self) -> dict[str, Tensor]:
        """Take all steps of an update; return the means of their metrics, and ``sound``: whether all were finite."""
        config, count = self.config, self.config.updates_per_iteration
        for optimizer in self._optimizers:
            optimizer.param_groups[0]["lr"] = annealed(config.learning_rate, self._updates, config.anneal_iterations)
        self._updates += 1
        stream = generator(self._seed, "pearl", self._updates, device=self._device)
        steps = [self._step(stream) for _ in range(count)]
        sound = torch.stack([step.pop("norm") for step in steps]).isfinite().all()
        means = {name: reduce(torch.add, [step[name] for step in steps]).double() / count for name in steps[0]}
        return {**means, "sound": sound}

    def _step(self, stream: torch.Generator) -> dict[str, Tensor]:
        """Take one step of each optimiser; return metrics, and ``norm``, which is finite if the gradients were."""
        config = self.config
        drawn_tasks = self.replay.draw_tasks(config.tasks_per_update, stream, self.networks.encoder.together)
        tasks, weight, stream = self.replay.local_slots(drawn_tasks, stream)
        weight *= self.processes.size
        steps = self._encoded(self.replay.draw_replay(tasks, config.batch_size, stream))

        def draw(contexts: int, uninformed: bool = False) -> Transitions:
            return self._encoded(self.replay.draw_contexts(tasks, contexts, config.context_size, stream, uninformed))

        encoder = self.networks.encoder
        inferred = encoder.inferred(draw, weight, stream, self.processes)
        latent = inferred.latents.unsqueeze(1).expand(-1, config.batch_size, -1)
        critic_loss = self.critic_loss(steps, latent, stream)
        norm = self._descend(0, weight * critic_loss + inferred.loss)
        seen = steps.observations.detach()
        actor_loss, entropy = self.actor_loss(replace(steps, observations=seen), latent, stream)
        norm = norm + self._descend(1, weight * actor_loss)
        self.networks.follow(config.tau)
        names = ("critic_loss", encoder.measure, "actor_loss", "entropy")
        own = (weight * critic_loss, inferred.measure, weight * actor_loss, weight * entropy)
        shares = self.processes.mean(torch.stack(own).detach())
        return {**dict(zip(names, shares, strict=True)), "norm": norm}

    @property
    def temperature(self) -> float:
        """Entropy coefficient relative to unscaled rewards."""
        return 1 / self.config.reward_scale

    def _descend(self, which: int, loss: Tensor) -> Tensor:
        """Take one step of an optimiser; return the gradient's norm."""
        optimizer = self._optimizers[which]
        params = optimizer.param_groups[0]["params"]
        gradients = self.processes.means(torch.autograd.grad(loss, params, materialize_grads=True))
        for value, direction in zip(params, gradients, strict=True):
            value.grad = direction
        optimizer.step()
        return nn.utils.get_total_norm(gradients)

    def critic_loss(self, steps: Transitions, latent: Tensor, stream: torch.Generator) -> Tensor:
        """Return the mean squared error of both critics against the targets, summed over the two.

        Args:
            steps: ``[M, B]``.
            latent: ``[M, B, Z]``.
            stream: generator of the actions in the targets.
        """
        values = self.networks.values(self.networks.critics, steps.observations, steps.actions, latent)
        return (values - self.targets(steps, latent, stream)).square().mean((1, 2)).sum()

    @torch.no_grad()
    def targets(self, steps: Transitions, latent: Tensor, stream: torch.Generator) -> Tensor:
        """Return the critics' targets ``[M, B]``: the reward, and the discounted soft value of the next state."""
        actions, log_probs = drawn(self.networks.policy(steps.next_observations, latent), stream)
        values = self.networks.values(self.networks.targets, steps.next_observations, actions, latent).amin(0)
        following = self.config.discount * (1 - steps.terminated) * (values - self.temperature * log_probs)
        return steps.rewards + following

    def actor_loss(self, steps: Transitions, latent: Tensor, stream: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the negative soft value of the policy, and its entropy; latent variables are constants."""
        actions, log_probs = drawn(self.networks.policy(steps.observations, latent.detach()), stream)
        values = self.networks.values(self.networks.critics, steps.observations, actions, latent.detach()).amin(0)
        return (self.temperature * log_probs - values).mean(), -log_probs.mean()

    def replays(self) -> dict[str, Replay]:
        """Return the replay buffer."""
        return {"transitions": self.replay}

    def state_dict(self) -> dict[str, Any]:
        """Return parameters, the optimisers' moments, and the number of updates."""
        return {
            "networks": {name: value.cpu().clone() for name, value in self.networks.state_dict().items()},
            "moments": [moments(optimizer) for optimizer in self._optimizers],
            "seed": self._seed,
            "updates": self._updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self.networks.load_state_dict(state["networks"])
        for optimizer, remembered in zip(self._optimizers, state["moments"], strict=True):
            restore_moments(optimizer, remembered)
        self._seed, self._updates = int(state["seed"]), int(state["updates"])
