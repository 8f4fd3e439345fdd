"""AMAGO: a long memory that policies and critics share, trained off-policy (Grigsby et al. 2024a, 2024b).

As in RL², the policy adapts through its memory of the trial. Policies and critics of several discounts read one memory,
and everything is trained in one step on the sum of their losses. The policy of the largest discount acts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from metarl.agents.gradient.gradient_learner import annealed
from metarl.agents.in_context.amago_networks import AmagoNetworks, MlpShape
from metarl.agents.in_context.return_encodings import ReturnEncoding, ScalarReturns, TwoHotReturns
from metarl.agents.in_context.soft_actions import make_soft_actions
from metarl.agents.in_context.trial_learner import ADAPTATION_KL
from metarl.agents.in_context.trial_replay import ReplayedTrialConfig, ReplayedTrialLearner, ends_the_trial
from metarl.errors import InputError
from metarl.families.family import TaskFamily
from metarl.learning.learner import register_learner
from metarl.networks.activations import choose_activation
from metarl.numerics.distributions import Categorical
from metarl.numerics.noise import draw_rows
from metarl.rollouts.rollout import Rollout
from metarl.rollouts.trials import Trials
from metarl.validation import (
    require_choice,
    require_counts,
    require_not_negative,
    require_positive,
    require_unit,
)

CriticKind = Literal["scalar", "two-hot"]
MemoryLosses = Literal["all", "critics"]
# Imitated actions in a Box are clipped to this: at the bounds a squashed Gaussian's log-density has no finite slope.
IMITATED_BOUND = 0.99


@dataclass(frozen=True)
class AmagoConfig(ReplayedTrialConfig):
    """Settings of AMAGO."""

    memory: str = "transformer"
    """Memory of the trial: gru, lstm, min-gru, transformer, external, set, splagger, language-model, or your own as
    module:name."""
    discounts: tuple[float, ...] = (0.1, 0.9, 0.95, 0.97, 0.99, 0.995, 0.999)
    """Discounts of rewards, per step of the trial, each with a policy and critics of its own; the largest one's policy
    acts."""
    critics: int = 4
    """Critics in the ensemble."""
    target_critics: int = 2
    """Critics of the random subset whose minimum is the target."""
    critic: CriticKind = "scalar"
    """What critics predict: scalar returns, or two-hot, a classification of returns that does not depend on their
    scale."""
    bins: int = 64
    """Bins of two-hot critics."""
    largest_return: float = 10_000.0
    """Largest return of two-hot critics, in either direction."""
    reward_scale: float = 10.0
    """Bins of two-hot critics are evenly spaced up to returns of about 1 / reward_scale, and exponentially beyond."""
    critic_weight: float = 10.0
    """Weight of the critics' loss in the sum of losses."""
    policy_gradient_weight: float = 1.0
    """Weight of the policies' values, the off-policy policy gradient; with 0, targets are the mean of the subset."""
    imitation_weight: float = 0.1
    """Weight of filtered behaviour cloning: imitation of replayed actions better than the policy's."""
    entropy_weight: float = 0.0
    """Weight of the policies' entropy in the loss; the targets have none."""
    memory_losses: MemoryLosses = "all"
    """Losses that train the memory: all of them, or those of the critics."""
    action_samples: int = 1
    """Actions of the policy that estimate its value in a Box; in Discrete spaces it is exact."""
    max_gradient_norm: float = 1.0
    """Largest norm of the gradient; a larger one is scaled down."""
    exploration: float = 0.5
    """Initial exploration: probability of a uniform action in Discrete spaces, standard deviation of noise in a Box."""
    exploration_iterations: int = 50
    """Iterations over which exploration decreases to 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, "critics", "target_critics", "action_samples", "exploration_iterations")
        require_choice(self, "critic", CriticKind)
        require_choice(self, "memory_losses", MemoryLosses)
        require_positive(self, "largest_return", "reward_scale", "critic_weight", "max_gradient_norm")
        require_not_negative(self, "policy_gradient_weight", "imitation_weight", "entropy_weight")
        require_unit(self, "exploration")
        if not self.discounts or not all(0 <= discount < 1 for discount in self.discounts):
            raise InputError(f"discounts must be one or more numbers in [0, 1), not {list(self.discounts)}")
        if list(self.discounts) != sorted(set(self.discounts)):
            raise InputError(f"discounts must be in ascending order, without repeats, not {list(self.discounts)}")
        if self.target_critics > self.critics:
            raise InputError(f"target_critics must be at most critics = {self.critics}, not {self.target_critics}")
        if self.bins < 2:
            raise InputError(f"bins must be at least 2, not {self.bins}")
        if self.policy_gradient_weight == self.imitation_weight == 0:
            raise InputError("the policy needs a policy_gradient_weight or an imitation_weight above 0")


@register_learner
class Amago(ReplayedTrialLearner):
    """A policy that adapts through a memory that its critics share, trained off-policy on replayed trials."""

    name: ClassVar[str] = "amago"
    config_class: ClassVar[type] = AmagoConfig
    numbers: ClassVar[int] = 2  # 2: noise on actions in a Box is added after tanh
    metrics: ClassVar[Mapping[str, str]] = {
        "adaptation_kl": ADAPTATION_KL,
        "critic_loss": "mean loss of critics and discounts: squared errors in units of the targets' variance, or with "
        "two-hot critics cross-entropies in nats",
        "actor_loss": "weighted sum of the losses of the policies, mean over discounts",
        "entropy": "mean entropy of the policy of the largest discount at replayed steps, in nats; in a Box estimated "
        "from its actions",
        "imitated_share": "share of replayed steps whose action the policy of the largest discount imitates",
        "value": "mean value of replayed actions at the largest discount, in rewards",
        "target_std": "standard deviation of the targets at the largest discount so far, in rewards",
        "gradient_norm": "Euclidean norm of the gradient of the sum of losses, before clipping, mean over the updates",
        "exploration": "exploration of the iteration's rollouts; 0 if they are recorded ones",
        "replay_trials": "trials in the replay buffer",
    }
    config: AmagoConfig
    network: AmagoNetworks

    def __init__(self, family: TaskFamily, config: AmagoConfig, seed: int, device: torch.device) -> None:
        super().__init__(family, config, seed, device)
        self._train([value for value in self.network.parameters() if value.requires_grad])
        self._discounts = torch.tensor(config.discounts, device=device)
        self.network.exploration.fill_(self._next_exploration)

    def make_network(self, family: TaskFamily) -> AmagoNetworks:
        """Return memory, policies, critics and targets."""
        config = self.config
        actions = make_soft_actions(self.name, family.action_space, 0.0, 0.0)
        code: ReturnEncoding = ScalarReturns()
        if config.critic == "two-hot":
            code = TwoHotReturns(config.bins, config.largest_return, config.reward_scale)
        shape = MlpShape(config.hidden_sizes, choose_activation(config.activation, torch.relu))
        reader, samples = self.make_reader(), config.action_samples
        return AmagoNetworks(reader, actions, config.discounts, config.critics, code, shape, samples)

    @property
    def _next_exploration(self) -> float:
        """Exploration of the next iteration."""
        return annealed(self.config.exploration, self._updates, self.config.exploration_iterations)

    def update(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        """Add the trials to the replay buffer, and train on trials from it; then decrease exploration.

        Raises:
            RunError: when a gradient is NaN or infinite; the learner is then unchanged.
        """
        recorded = rollouts[-1].log_probs is None  # by others: without exploration of its own
        exploration = 0.0 if recorded else self._next_exploration
        metrics = super().update(rollouts)
        self.network.exploration.fill_(0.0 if recorded else self._next_exploration)
        return {**metrics, "exploration": exploration}

    def _step(self, trials: Trials, noise: torch.Generator) -> dict[str, Tensor]:
        """Take one step of the optimiser on the sum of all losses; return metrics."""
        network, config = self.network, self.config
        features = network.reader.whole(self.inputs_to_the_end(trials))
        targets = self.targets(trials, features.detach(), noise)
        self._measure(targets, trials.valid)
        metrics = self.losses(trials, features[:, :-1], targets, noise)
        loss = config.critic_weight * metrics["critic_loss"] + metrics["actor_loss"]
        gradients = self.processes.means(torch.autograd.grad(loss, self._trained))
        norm = torch.nn.utils.get_total_norm(gradients)
        for value, direction in zip(self._trained, gradients, strict=True):
            value.grad = direction
        torch.nn.utils.clip_grads_with_norm_(self._trained, config.max_gradient_norm, norm)
        self._optimizer.step()
        network.follow(config.tau)
        shares = self.processes.mean(torch.stack(list(metrics.values())).detach())
        return {
            **dict(zip(metrics, shares, strict=True)),
            "target_std": network.spread()[-1],
            "gradient_norm": norm,
        }

    @torch.no_grad()
    def targets(self, trials: Trials, features: Tensor, noise: torch.Generator) -> Tensor:
        """Return the targets ``[B, L, G]`` of all discounts.

        Args:
            trials: B trials of up to L steps.
            features: of their steps and of what follows the last one, ``[B, L + 1, F]``.
            noise: generator of random numbers for the whole batch.
        """
        network, config = self.network, self.config
        policies = network.policies_at(features[:, 1:], network.target_policies)
        values = network.target_critics.expected(features[:, 1:], policies, noise).movedim(0, -1)
        keys = draw_rows(torch.rand, values.shape, noise, device=values.device)
        subset = values.gather(-1, keys.topk(config.target_critics).indices)
        # The minimum counters overestimates, which only the policy gradient seeks out.
        following = subset.amin(-1) if config.policy_gradient_weight else subset.mean(-1)
        goes_on = ~ends_the_trial(trials).unsqueeze(-1)
        return trials.rewards.unsqueeze(-1) + self._discounts * goes_on * following

    def _measure(self, targets: Tensor, valid: Tensor) -> None:
        """Add targets ``[B, L, G]`` at valid steps ``[B, L]`` to the running moments."""
        weights = valid.unsqueeze(-1)
        sums = torch.stack([(targets * weights).sum((0, 1)), (targets.square() * weights).sum((0, 1))])
        self.network.spread.update(self.processes.mean(sums) / self.processes.mean(valid.sum()))

    def losses(self, trials: Trials, features: Tensor, targets: Tensor, noise: torch.Generator) -> dict[str, Tensor]:
        """Return this process's shares of the losses, and of metrics, by name.

        The mean of the shares over processes is the mean over all steps of the batch.

        Args:
            trials: B trials of up to L steps.
            features: of their steps, ``[B, L, F]``.
            targets: of the critics, ``[B, L, G]``.
            noise: generator of random numbers for the whole batch.
        """
        network, config, code = self.network, self.config, self.network.critics.code
        spread, actions = network.spread(), self.inputs.actions(trials.actions)
        outputs = network.critics.taken(features, actions)
        errors = code.losses(outputs, targets, spread).mean((0, -1))
        read_by_policies = features if config.memory_losses == "all" else features.detach()
        policies = network.policies_at(read_by_policies, network.policies)
        values = network.critics.expected(features.detach(), policies, noise)
        taken = code.values(outputs.detach()).mean(0)
        better = (taken > values.detach().mean(0)).to(taken.dtype)
        gain = config.policy_gradient_weight * values.amin(0) / spread
        imitation = config.imitation_weight * better * log_probs(policies, actions)
        entropy = entropies(policies, noise)
        of_steps = {
            "critic_loss": errors,
            "actor_loss": -(gain + imitation + config.entropy_weight * entropy).mean(-1),
            "entropy": entropy[..., -1],
            "imitated_share": better[..., -1],
            "value": taken[..., -1],
        }
        steps = self.processes.mean(trials.valid.sum())
        return {name: (each * trials.valid).sum() / steps for name, each in of_steps.items()}


def log_probs(policies: Any, actions: Tensor) -> Tensor:
    """Return the log-probabilities ``[B, L, G]`` of actions ``[B, L, A]``, one-hot or in [-1, 1], in all policies."""
    each = actions.unsqueeze(-2)
    if isinstance(policies, Categorical):
        return (policies.logits.log_softmax(-1) * each).sum(-1)
    found: Tensor = policies.log_prob(each.clamp(-IMITATED_BOUND, IMITATED_BOUND))
    return found


def entropies(policies: Any, noise: torch.Generator) -> Tensor:
    """Return the entropies ``[B, L, G]`` of all policies, exact or estimated from one action, in nats."""
    if isinstance(policies, Categorical):
        return policies.entropy()
    mean: Tensor = policies.mean
    log_densities: Tensor = policies.of_noise(draw_rows(torch.randn, mean.shape, noise, device=mean.device))[1]
    return -log_densities
