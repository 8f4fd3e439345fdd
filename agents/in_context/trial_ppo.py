"""Proximal policy optimisation over whole trials (Schulman et al. 2017; Duan et al. 2016, section 2.3).

The return that an action earns runs on through the ends of episodes to the end of its trial, so that exploring in one
episode pays off in the next. Every pass reads whole trials from their first step on, with gradients through all of
them, and estimates advantages with the values that it has just computed.

A policy with a memory does not observe time, and need not know how much of the trial is left; but near its end less is
to come, and values must account for that (Pardo et al. 2018, section 3). So the critic's outputs are multiplied by the
fraction of the trial's discounted steps that may still be ahead, which need not be learned (``trial_values``).

With several processes a minibatch is one of the trials of all of them: the permutation is drawn over the trials of all
processes, numbered in the order of the ranks, and each process takes its own trials of each minibatch.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from metarl.agents.gradient.gradient_learner import annealed
from metarl.agents.in_context.observation_scale import ObservationScale
from metarl.agents.in_context.selected_trials import lengths_read, own_or_first, selected
from metarl.agents.in_context.step_inputs import ActionDistribution
from metarl.agents.in_context.trial_learner import ADAPTATION_KL, DiscountedTrialConfig, TrialLearner, TrialNetwork
from metarl.agents.in_context.trial_values import no_square, root_or_one, share_ahead
from metarl.devices.transfer import read, send
from metarl.errors import InputError, RunError
from metarl.families.family import TaskFamily
from metarl.learning.learner import CHANGING, CONSTANT
from metarl.learning.rollback import restored_on_error
from metarl.networks.optimizers import OptimizerConfig, make_optimizer, moments, restore_moments
from metarl.rollouts.returns import discounted_returns, generalized_advantages
from metarl.rollouts.rollout import Rollout
from metarl.rollouts.trials import Trials
from metarl.seeding import generator
from metarl.validation import require_counts, require_not_negative, require_positive, require_unit


@dataclass(frozen=True)
class TrialPpoConfig(OptimizerConfig, DiscountedTrialConfig):
    """Settings of proximal policy optimisation over trials."""

    gae_lambda: float = 0.95
    """Lambda of the generalised advantage estimate."""
    learning_rate: float = 1e-3
    """Step size of the optimiser."""
    anneal_iterations: int = 0
    """Iterations over which learning_rate decays linearly to 0; 0 keeps it constant."""
    epochs: int = 4
    """Epochs over the trials of an iteration."""
    minibatches: int = 4
    """Minibatches per epoch, with one step of the optimiser each."""
    clip_range: float = 0.2
    """Likelihood ratios are clipped at 1 plus or minus this."""
    value_weight: float = 0.5
    """Weight of the critic's loss."""
    entropy_weight: float = 0.01
    """Entropy coefficient."""
    max_gradient_norm: float = 0.5
    """Norm to which gradients are clipped."""
    normalize_advantages: bool = True
    """Normalise the advantages of a minibatch to mean 0 and standard deviation 1."""
    normalize_observations: bool = False
    """Normalise observations to mean 0 and standard deviation 1 over the training so far."""
    scale_values: bool = True
    """Multiply the critic's outputs by the share of the trial that may still be ahead."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_unit(self, "gae_lambda")
        require_positive(self, "learning_rate", "clip_range", "max_gradient_norm")
        require_counts(self, "epochs", "minibatches")
        require_not_negative(self, "anneal_iterations", "value_weight", "entropy_weight")


class TrialPpoLearner(TrialLearner):
    """A learner that remembers its trial and is trained by proximal policy optimisation.

    Attributes:
        return_scale: root of the mean squared discounted return so far, the unit of the critic and of advantages.
    """

    config: TrialPpoConfig
    network: TrialNetwork
    continual: ClassVar[Sequence[str]] = (CONSTANT, CHANGING)
    # Attributes that an update changes, besides parameters, buffers and moments.
    _accounts: ClassVar[tuple[str, ...]] = ("_updates", "_mean_square")
    # Metrics that are non-finite if a gradient of the update was, and what that gradient is called.
    _norms: ClassVar[Mapping[str, str]] = {"gradient_norm": "the gradient"}
    metrics: ClassVar[Mapping[str, str]] = {
        "adaptation_kl": ADAPTATION_KL,
        "policy_objective": "clipped surrogate of the policy, mean over the update's gradient steps",
        "value_loss": "mean squared error of the critic, in units of `return_scale` squared",
        "entropy": "mean entropy of the policy, in nats",
        "clip_fraction": "share of the steps whose likelihood ratio lies outside 1 ± `clip_range`",
        "gradient_norm": "mean Euclidean norm of the gradient, before clipping",
        "learning_rate": "step size of the optimiser in the update",
        "return_scale": "root of the mean squared discounted return so far: the unit of the critic",
    }

    def __init__(self, family: TaskFamily, config: TrialPpoConfig, seed: int, device: torch.device) -> None:
        self.config = config
        super().__init__(family, config, seed, device)
        if config.normalize_observations:
            self._require_unlearned_encoder()
            self.inputs.scale = ObservationScale(self.inputs.observation_size).to(device)
            self.network.add_module("observation_scale", self.inputs.scale)
        parameters, lr = self.network.parameters(), config.learning_rate
        self._optimizer = make_optimizer(config.optimizer, parameters, lr, eps=1e-5, fused=True)
        self._optimizers = [self._optimizer]
        self._updates, self._mean_square = 0, no_square(device)
        self._horizon = family.horizon

    def _require_unlearned_encoder(self) -> None:
        if self.inputs.encoder.learned:
            name = self.config.encoder
            raise InputError(
                f"normalize_observations needs raw observations, but the encoder {name} is learned; "
                "omit it, or use --encoder flat"
            )

    @property
    def learning_rate(self) -> float:
        """The step size of the next update."""
        return annealed(self.config.learning_rate, self._updates, self.config.anneal_iterations)

    @property
    def return_scale(self) -> Tensor:
        """Root of the mean squared discounted return over all updates so far, float64 ``[]``; 1 before a reward."""
        return root_or_one(self._mean_square)

    def update(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        """Maximise the clipped objective in several passes over the iteration's trials.

        Raises:
            RunError: when a gradient is NaN or infinite; the learner is then unchanged.
        """
        values = [*self.network.parameters(), *self.network.buffers()]
        moved = self.adaptation_kl(rollouts)
        with restored_on_error(self, self._accounts, values, self._optimizers):
            metrics = read({"adaptation_kl": moved, **self._learn(Trials.of(rollouts), rollouts)})
            for name, what in self._norms.items():
                if not math.isfinite(metrics[name]):
                    raise RunError(f"the update is not finite (NaN or infinity in {what})")
            return metrics

    @torch.no_grad()
    def adaptation_kl(self, rollouts: Sequence[Rollout]) -> Tensor:
        """Return how far ``[]`` the episodes before the last one of each trial have moved the policy, in nats.

        The distributions that acted in the last episode are known, so the episodes before it are not read again.

        Args:
            rollouts: of the trials' episodes, in order.
        """
        last = rollouts[-1]
        episode = Trials.of_episode(last)
        before, _ = self.network.read(self.known(episode), lengths_read(episode))
        after = last.known_distribution().map(lambda tensor: tensor.flatten(0, 1))
        kl = after.kl(before) * episode.valid
        return self.processes.mean(kl.sum()) / self.processes.mean(episode.valid.sum())

    def _learn(self, trials: Trials, rollouts: Sequence[Rollout]) -> dict[str, Tensor | float]:
        (group,) = self._optimizer.param_groups
        group["lr"] = learning_rate = self.learning_rate
        self._updates += 1
        returns = discounted_returns(trials.rewards, trials.valid, self._discounts(trials))
        total = self.processes.mean((returns.square() * trials.valid).sum())
        square = (total / self.processes.mean(trials.valid.sum())).double()
        self._mean_square = self._mean_square + (square - self._mean_square) / self._updates
        # Read once, by ``update``: reading after each step would wait for the device.
        steps = [self._step(loss, metrics) for loss, metrics in self._losses(trials)]
        if self.inputs.scale is not None:
            # Only now: all passes must read the inputs that the policy acted on, or ratios would not start at 1.
            observations = self.inputs.encoded_observations(trials.observations)
            self.inputs.scale.update(observations, trials.valid, self.processes)
        means = {name: sum(step[name].double() for step in steps) / len(steps) for name in steps[0]}
        return {**means, "learning_rate": learning_rate, "return_scale": self.return_scale}

    def _losses(self, trials: Trials) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """Yield the loss and metrics of each minibatch, with the parameters at that time."""
        # Unless the policy's gradient steps train the encoder, the input of ``read`` is the same in all of them.
        known = None if self.inputs.encoder.learned else self.known(trials)
        for rows in self._minibatches(len(trials.rewards)):
            yield self.loss(selected(trials, rows), None if known is None else known[own_or_first(rows)])

    def _minibatches(self, trials: int, used: Tensor | None = None) -> Iterator[Tensor]:
        """Yield the numbers of this process's trials in each minibatch, possibly none; each pass has its own order.

        Of this process's ``trials`` those are in minibatches that are ``used``, bool; all by default.
        """
        stream = generator(self._seed, "ppo", self._updates)
        own, total = self.processes.rows(trials)
        counted = torch.ones(total) if used is None else torch.cat(self.processes.gather(used.cpu()))
        every = counted.nonzero().flatten()
        for _ in range(self.config.epochs):
            for numbers in every[torch.randperm(len(every), generator=stream)].chunk(self.config.minibatches):
                mine = (numbers >= own.start) & (numbers < own.stop)
                yield send(numbers[mine] - own.start, self._device)

    def known(self, trials: Trials) -> Tensor:
        """Return the input of the network's ``read`` for B trials, ``[B, L, K]``."""
        return self.network.known(self.trial_inputs(trials), lengths_read(trials))

    def _step(self, loss: Tensor, metrics: dict[str, Tensor]) -> dict[str, Tensor]:
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.processes.average_gradients(self.network.parameters())
        # Checked after all steps; the mean over processes is NaN or infinite on all of them or on none.
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.max_gradient_norm)
        self._optimizer.step()
        return {**metrics, "gradient_norm": norm}

    def loss(self, trials: Trials, known: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return this process's share of the loss of a minibatch, of which it holds B trials, and all trials' metrics.

        The mean over processes of the shares is the mean over all steps of the minibatch.

        Args:
            trials: B of them.
            known: what ``known`` returned for them, where that has been computed.
        """
        config = self.config
        distribution, values = self.network.read(self.known(trials) if known is None else known, lengths_read(trials))
        if config.scale_values:
            values = values * self._share_ahead(trials)
        # The critic's targets come from advantages in units of the returns; only the policy's are normalised.
        advantages = self.advantages(trials, values.detach())
        return self.surrogate_loss(trials, distribution, values, advantages, advantages + values.detach())

    def surrogate_loss(
        self,
        trials: Trials,
        distribution: ActionDistribution,
        values: Tensor,
        advantages: Tensor,
        targets: Tensor,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what ``loss`` returns, from policy, values, advantages and the values' targets, all ``[B, L]``."""
        config = self.config
        steps = self.processes.mean(trials.valid.sum())
        weights = trials.valid.to(trials.rewards.dtype) / steps

        def mean(values: Tensor) -> Tensor:
            return (values * weights).sum()

        if config.normalize_advantages:
            centre = self.processes.mean(mean(advantages))
            variance = self.processes.mean(mean((advantages - centre).square()))
            advantages = (advantages - centre) / (variance.sqrt() + 1e-8)
        # PPO's clipped surrogate (Schulman et al. 2017, equation 7).
        ratio = torch.exp(distribution.log_prob(trials.actions) - trials.log_probs)
        clipped = ratio.clamp(1 - config.clip_range, 1 + config.clip_range)
        gain = mean(torch.minimum(ratio * advantages, clipped * advantages))
        entropy = mean(distribution.entropy())
        error = mean((values - targets).square())
        loss = 0.5 * config.value_weight * error - gain - config.entropy_weight * entropy
        clip_fraction = mean((ratio != clipped).to(ratio.dtype))
        metrics = self.processes.mean(torch.stack([gain, error, entropy, clip_fraction]).detach())
        names = ("policy_objective", "value_loss", "entropy", "clip_fraction")
        return loss, dict(zip(names, metrics, strict=True))

    def advantages(self, trials: Trials, values: Tensor) -> Tensor:
        """Return advantages ``[B, L]`` in units of ``return_scale``; nothing follows a trial's last step.

        Args:
            trials: B of them.
            values: ``[B, L]`` in the same units.
        """
        return generalized_advantages(
            trials.rewards / self.return_scale,
            values,
            torch.zeros_like(values[:, 0]),
            torch.zeros_like(trials.valid),
            trials.valid,
            self._discounts(trials),
            self.config.gae_lambda,
        )

    def _share_ahead(self, trials: Trials) -> Tensor:
        discounts = self.config.discount, self.config.episode_discount
        return share_ahead(trials, discounts, self.config.episodes_per_trial, self._horizon)

    def _discounts(self, trials: Trials) -> float | Tensor:
        return trials.discounts(self.config.discount, self.config.episode_discount)

    def state_dict(self) -> dict[str, Any]:
        """Return parameters, the optimiser's moments, the seed, the number of updates, and the scale of returns."""
        accounts = {"seed": self._seed, "updates": self._updates, "mean_square": float(self._mean_square)}
        return {**super().state_dict(), "moments": moments(self._optimizer), **accounts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        super().load_state_dict(state)
        self._seed, self._updates = int(state["seed"]), int(state["updates"])
        self._mean_square = torch.tensor(float(state["mean_square"]), dtype=torch.float64, device=self._device)
        restore_moments(self._optimizer, state["moments"])
