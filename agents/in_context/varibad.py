"""VariBAD: variational Bayes-adaptive deep reinforcement learning (Zintgraf et al. 2020, section 3).

A recurrent encoder maps the trial so far to a belief, a Gaussian over a few latent variables m that describe the task.
With a reward decoder it is trained as a variational autoencoder of whole trials: at every step t, the belief has to
explain all rewards of the trial, past and future,

    ELBO_t = E_{m ~ q(m | steps up to t)} [ log p(rewards of the trial | m, states, actions) ] - KL(q_t || q_{t-1}),

where the prior of each belief is the belief before it, and the prior of the first is the standard normal. Policy and
critic are conditioned on the observation and on the belief's mean and log variance, and thus on its uncertainty; they
are trained with PPO over whole trials, whose gradient stops at the belief. The belief is an input of them, or generates
their weights (Beck et al. 2022).
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from metarl.agents.in_context.generated import GeneratedNetwork
from metarl.agents.in_context.memories.memory import make_memory
from metarl.agents.in_context.past_trials import PastTrials
from metarl.agents.in_context.perceptrons import perceptron, perceptron_with_head
from metarl.agents.in_context.step_inputs import ActionHead
from metarl.agents.in_context.trial_ppo import TrialPpoLearner
from metarl.agents.in_context.trial_values import no_square, root_or_one
from metarl.agents.in_context.varibad_config import VariBadConfig
from metarl.agents.in_context.varibad_networks import (
    BeliefActorCritic,
    Decoder,
    Encoder,
    PolicyInputs,
    parameters_of,
)
from metarl.errors import RunError
from metarl.families.family import TaskFamily
from metarl.learning.learner import register_learner
from metarl.learning.replay import Replay
from metarl.networks.activations import Elementwise, choose_activation
from metarl.networks.optimizers import make_optimizer, moments, restore_moments
from metarl.numerics.distributions import DiagonalGaussian
from metarl.numerics.noise import draw_rows
from metarl.rollouts.rollout import Rollout
from metarl.rollouts.trials import Trials
from metarl.seeding import generator

# Number of belief samples over which decoded rewards are averaged.
BELIEF_SAMPLES = 200


@register_learner
class VariBad(TrialPpoLearner):
    """A policy conditioned on a belief about its task, which is learned by a variational autoencoder of trials."""

    name: ClassVar[str] = "varibad"
    numbers: ClassVar[int] = 4  # 4: in the ELBO a trial's likelihood counts by its steps, as its divergence does
    config_class: ClassVar[type] = VariBadConfig
    config: VariBadConfig
    metrics: ClassVar[Mapping[str, str]] = {
        **TrialPpoLearner.metrics,
        "elbo": "evidence lower bound of trials, without constants, in the last step on encoder and decoders",
        "kl": "mean KL divergence of the belief from the one before it, in nats, in that step",
        "reward_error": "mean squared error of predicted rewards, in units of `reward_scale` squared, in that step",
        "transition_error": "mean squared error of predicted observations in that step, if `transition_weight` is set",
        "model_gradient_norm": "Euclidean norm of the gradient of encoder and decoders in that step",
        "reward_scale": "root mean square of rewards so far: the unit of the reward decoder",
    }
    _accounts: ClassVar[tuple[str, ...]] = (*TrialPpoLearner._accounts, "_mean_square_reward")
    _norms: ClassVar[Mapping[str, str]] = {
        **TrialPpoLearner._norms,
        "model_gradient_norm": "the gradient of encoder and decoders",
    }
    network: BeliefActorCritic

    def __init__(self, family: TaskFamily, config: VariBadConfig, seed: int, device: torch.device) -> None:
        super().__init__(family, config, seed, device)
        self._model = nn.ModuleList([self.network.encoder, self.network.decoders])
        parameters, lr = self._model.parameters(), config.model_learning_rate
        self._model_optimizer = make_optimizer(config.optimizer, parameters, lr)
        self._optimizers.append(self._model_optimizer)
        self._mean_square_reward = no_square(device)
        self.past = PastTrials(config.buffer_trials, device)

    def make_network(self, family: TaskFamily) -> BeliefActorCritic:
        """Return encoder, decoders, policy and critic."""
        config, seen, acted = self.config, self.inputs.observation_size, self.inputs.action_size
        reward_inputs = seen if config.reward_inputs == "next-observation" else 2 * seen + acted
        acting, modelling = (choose_activation(config.activation, usual) for usual in (torch.tanh, torch.relu))
        layers = config.decoder_sizes
        decoders = {"reward": Decoder(config.latent_size, reward_inputs, layers, 1, modelling)}
        if config.transition_weight:
            decoders["transition"] = Decoder(config.latent_size, seen + acted, layers, seen, modelling)
        embedding = perceptron([self.inputs.size, config.encoder_size], modelling)
        memory = make_memory(config, config.encoder_size, config.encoder_size)
        encoder = Encoder(embedding, memory, config.latent_size)
        sizes = seen, 2 * config.latent_size
        embeddings = config.policy_observation_size, config.policy_belief_size
        inputs = PolicyInputs(sizes, embeddings, config.normalize_beliefs, acting)
        head = ActionHead(family.action_space)
        policy = self._reader_of(inputs, config.generated_policy, head.size, 0.01, acting)
        critic = self._reader_of(inputs, config.generated_critic, 1, 1.0, acting)
        return BeliefActorCritic(encoder, nn.ModuleDict(decoders), inputs, head, policy, critic)

    def _reader_of(
        self, inputs: PolicyInputs, generated: bool, outputs: int, gain: float, activation: Elementwise
    ) -> nn.Module:
        """Return a network of observation and belief, or one of the observation whose weights the belief generates."""
        seen, belief = inputs.read_sizes
        layers = self.config.hidden_sizes
        if generated:
            return GeneratedNetwork([seen, *layers, outputs], belief, activation, gain)
        return perceptron_with_head([seen + belief, *layers], outputs, gain, activation)

    @property
    def reward_scale(self) -> Tensor:
        """Root mean square ``[]`` of rewards so far, the unit of the reward decoder; 1 before the first reward."""
        return root_or_one(self._mean_square_reward)

    def update(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        """Update the policy on the iteration's trials, then the model on current and past trials.

        Raises:
            RunError: when a gradient is NaN or infinite; the learner is then unchanged.
        """
        before = self.past.newest, self.past.added
        try:
            return super().update(rollouts)
        except RunError:
            self.past.newest, self.past.added = before
            raise

    def _learn(self, trials: Trials, rollouts: Sequence[Rollout]) -> dict[str, Tensor | float]:
        # The policy is updated first: its likelihood ratios start at 1 only with the beliefs that it acted on.
        metrics = super()._learn(trials, rollouts)
        if (scale := self.network.policy_inputs.scale) is not None:
            with torch.no_grad():
                scale.update(parameters_of(self.beliefs(trials)), trials.valid, self.processes)
        return {**metrics, **self.fit_model(trials)}

    def fit_model(self, trials: Trials) -> dict[str, Tensor]:
        """Maximise the ELBO in several steps, each on trials drawn from the current and past iterations."""
        total = self.processes.mean(trials.rewards.square().sum())
        square = (total / self.processes.mean(trials.valid.sum())).double()
        self._mean_square_reward = self._mean_square_reward + (square - self._mean_square_reward) / self._updates
        past = self.past.joined(trials, self.processes)
        metrics: dict[str, Tensor] = {}
        norms = []
        steps = range(self.config.model_updates)
        streams = [generator(self._seed, "model", self._updates, step, device=self._device) for step in steps]
        for batch, noise in past.draw(self.config.model_trials, streams):
            bound, metrics = self.elbo(batch, noise)
            norms.append(self._model_step(bound))
        self.past.keep(past)
        # The norm in the last step, or NaN if it was not finite in any step.
        norm = torch.where(torch.stack(norms).isfinite().all(), norms[-1], torch.nan)
        return {**metrics, "model_gradient_norm": norm, "reward_scale": self.reward_scale}

    def _model_step(self, bound: Tensor) -> Tensor:
        """Take one step on the ELBO; return the gradient's norm."""
        self._model_optimizer.zero_grad()
        (-bound).backward()  # type: ignore[no-untyped-call]
        self.processes.average_gradients(self._model.parameters())
        gradients = [parameter.grad for parameter in self._model.parameters() if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        self._model_optimizer.step()
        return norm

    def elbo(self, trials: Trials, noise: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Return an estimate of the mean of ELBO_t over steps t and trials, and metrics.

        From every trial ``model_prefixes`` steps t are drawn, and ``model_targets`` steps to predict. Likelihoods are
        Gaussian, with standard deviation ``reward_scale`` for rewards and 1 for each element of a next observation;
        constants are left out.

        Args:
            trials: this process's B trials of a batch.
            noise: generator of random numbers for the whole batch.

        Returns:
            This process's share of the bound, the mean of which over processes is that of the batch; the metrics of the
            whole batch.
        """
        config, belief = self.config, self.beliefs(trials)
        # KL(q_t || q_{t-1}): the beliefs shifted by a step. The leading zeros are the standard normal.
        before = belief.map(lambda tensor: pad(tensor, (0, 0, 1, -1)))
        steps_in_all = self.processes.mean(trials.valid.sum())
        divergence = (belief.kl(before) * trials.valid).sum() / steps_in_all
        # Samples of the beliefs at some of the steps, and the errors of their predictions for some of the steps.
        rows = torch.arange(len(trials.rewards), device=self._device)[:, None]
        prefixes = drawn_steps(trials, config.model_prefixes, noise)
        targets = drawn_steps(trials, config.model_targets, noise)
        posterior = belief.map(lambda tensor: tensor[rows, prefixes])
        shocks = draw_rows(torch.randn, posterior.mean.shape, noise, device=self._device)
        latents = torch.addcmul(posterior.mean, shocks, posterior.log_std.exp())
        steps = Trials(**{name: value[rows, targets] for name, value in vars(trials).items()})
        errors = self._errors(latents, steps)
        squares = errors["reward"] + config.transition_weight * errors.get("transition", torch.zeros_like(divergence))
        # Means over the batch: over the trials of all processes, ``model_prefixes`` and ``model_targets``.
        counted = trials.valid.any(1)[:, None, None]
        number = self.processes.mean(counted.sum())
        size = number * squares[0].numel()
        # The sum over i is a trial's length times the mean of its draws; a trial counts by its steps t, as in the KL.
        weights = trials.lengths * (trials.lengths * number / steps_in_all)
        bound = -0.5 * ((weights[:, None, None] * squares).sum() / size) - config.kl_weight * divergence
        metrics = {"elbo": bound, "kl": divergence}
        for name, value in errors.items():
            metrics[f"{name}_error"] = (value * counted).sum() / size
        means = self.processes.mean(torch.stack(list(metrics.values())).detach())
        return bound, dict(zip(metrics, means, strict=True))

    def beliefs(self, trials: Trials) -> DiagonalGaussian:
        """Return the belief at every step of B trials, with tensors ``[B, L, latent]``."""
        encoder = self.network.encoder
        with torch.no_grad():  # a learned observation encoder belongs to the policy
            inputs = self.trial_inputs(trials)
        belief: DiagonalGaussian = encoder(inputs, encoder.memory.initial(len(trials.rewards)))[0]
        return belief

    def predicted_rewards(
        self, latents: Tensor, observations: Tensor, actions: Tensor, next_observations: Tensor
    ) -> Tensor:
        """Return the rewards ``[B, K, M]`` of M steps in the tasks that latents ``[B, K, latent]`` describe.

        Args:
            latents: samples of beliefs.
            observations: ``[B, M, *observation]``, before the steps.
            actions: ``[B, M, *action]``, in the policy's units.
            next_observations: ``[B, M, *observation]``, after the steps.
        """
        features = [self._observed(next_observations)]
        if self.config.reward_inputs == "transition":
            features += [self._observed(observations), self.inputs.actions(actions)]
        predicted: Tensor = self.network.decoders["reward"](latents, torch.cat(features, -1))
        return predicted.squeeze(-1) * self.reward_scale

    @torch.no_grad()
    def expected_rewards(
        self, trials: Trials, observations: Tensor, actions: Tensor, next_observations: Tensor, seed: int
    ) -> Tensor:
        """Return the decoded rewards of M steps, averaged over samples of each belief; see ``RewardModel``."""
        belief = self.beliefs(trials).map(
            lambda tensor: tensor.flatten(0, 1).unsqueeze(1).expand(-1, BELIEF_SAMPLES, -1)
        )
        latents = belief.sample(generator(seed, "belief pictures", device=self._device))
        steps = (tensor.expand(len(latents), *tensor.shape) for tensor in (observations, actions, next_observations))
        return self.predicted_rewards(latents, *steps).mean(1).view(*trials.rewards.shape, -1)

    @torch.no_grad()
    def _observed(self, observations: Tensor) -> Tensor:
        """Return the decoders' inputs for observations: features of the policy's encoder, without gradients."""
        return self.inputs.observations(observations)

    def _errors(self, latents: Tensor, steps: Trials) -> dict[str, Tensor]:
        """Return the squared errors ``[B, K, M]`` of each decoder, in units of its likelihood."""
        predicted = self.predicted_rewards(latents, steps.observations, steps.actions, steps.next_observations)
        errors = {"reward": ((predicted - steps.rewards.unsqueeze(1)) / self.reward_scale).square()}
        if self.config.transition_weight:
            before, after = map(self._observed, (steps.observations, steps.next_observations))
            moves = torch.cat([before, self.inputs.actions(steps.actions)], -1)
            arrivals = self.network.decoders["transition"](latents, moves)
            errors["transition"] = (arrivals - after.unsqueeze(1)).square().sum(-1)
        return errors

    def replays(self) -> dict[str, Replay]:
        """Return the buffer of past trials on which encoder and decoders are trained."""
        return {"past-trials": self.past}

    def state_dict(self) -> dict[str, Any]:
        """Return the policy's state, the VAE optimiser's moments and the reward scale."""
        square = float(self._mean_square_reward)
        model = {"moments": moments(self._model_optimizer), "mean_square_reward": square}
        return {**super().state_dict(), "model": model}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        super().load_state_dict(state)
        model = state["model"]
        square = float(model["mean_square_reward"])
        self._mean_square_reward = torch.tensor(square, dtype=torch.float64, device=self._device)
        restore_moments(self._model_optimizer, model["moments"])


def drawn_steps(trials: Trials, count: int, noise: torch.Generator) -> Tensor:
    """Draw ``count`` step numbers uniformly from each of B trials, with replacement: ``[B, count]``."""
    lengths = trials.lengths[:, None]
    return (draw_rows(torch.rand, (len(lengths), count), noise, device=lengths.device) * lengths).long()
