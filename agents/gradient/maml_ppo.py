"""Proximal meta-policy search, ProMP (Rothfuss et al. 2019, algorithm 1): MAML with a clipped outer objective.

Inner steps maximise the likelihood-ratio surrogate. The outer objective is PPO's clipped surrogate of the adapted
policies on the rollouts that they collected, minus a penalty on how far the policies before and between the inner steps
move from those that collected their rollouts. Several steps of Adam maximise it; each repeats the adaptation on the
recorded rollouts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from tensordict import TensorDict
from torch import Tensor

from metarl.agents.gradient.adaptation import Episodes, likelihood_ratio
from metarl.agents.gradient.gradient_learner import AdamConfig, AdamLearner
from metarl.distributions import Distribution
from metarl.learner import register_learner
from metarl.params import gradient, leaf, tensors
from metarl.returns import per_task_mean
from metarl.rollback import restored_on_error
from metarl.rollout import Rollout
from metarl.validation import require_counts, require_not_negative, require_positive


@dataclass(frozen=True)
class MamlPpoConfig(AdamConfig):
    """Settings of MAML-PPO."""

    epochs: int = 5
    """Steps of Adam on each iteration's rollouts."""
    clip_range: float = 0.3
    """Likelihood ratios of adapted policies are clipped at 1 plus or minus this."""
    inner_kl: float = 5e-4
    """Weight of the mean KL divergence between policies before adaptation, those that sampled and those updated."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, "epochs")
        require_positive(self, "clip_range")
        require_not_negative(self, "inner_kl")


@register_learner
class MamlPpo(AdamLearner):
    """MAML with PPO's clipped objective in the outer loop: ProMP."""

    name: ClassVar[str] = "maml-ppo"
    kl_metric: ClassVar[str | None] = "kl"
    config_class: ClassVar[type] = MamlPpoConfig
    config: MamlPpoConfig
    metrics: ClassVar[Mapping[str, str]] = {
        "objective_before": "outer objective in the first epoch; zero up to rounding, because advantages are "
        "normalised and every ratio is 1",
        "objective_last_epoch": "outer objective in the last epoch, before its step",
        "kl": "mean KL divergence of the adapted policies from those that collected their rollouts, in nats, before "
        "the last epoch's step",
        "inner_kl": "mean KL divergence of the policies before and between the inner steps from those that collected "
        "their rollouts, in nats, summed over the inner steps",
        "clip_fraction": "share of the adapted policies' steps whose ratio lies outside 1 ± `clip_range`, before the "
        "last epoch's step",
        "gradient_norm": "Euclidean norm of the meta-gradient of the last epoch, before clipping",
    }

    def update(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        """Take several steps on the meta-parameters.

        Raises:
            RunError: when the meta-gradient of an epoch is NaN or infinite; the learner is then unchanged.
        """
        with restored_on_error(self, (), tensors(self.params), [self._optimizer]):
            return self._ascend_epochs(rollouts)

    def _ascend_epochs(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        *support, query = [self.episodes(rollout) for rollout in rollouts]
        metrics: dict[str, float] = {}
        for _ in range(self.config.epochs):
            params = leaf(self.params)
            objective, terms = self._objective(params, support, query)
            norm = self.ascend(gradient(objective, params))
            start = metrics.get("objective_before", terms["objective_last_epoch"])
            metrics = {"objective_before": start, **terms, "gradient_norm": norm}
        self.updates += 1
        return metrics

    def _objective(
        self, params: TensorDict, support: Sequence[Episodes], query: Episodes
    ) -> tuple[Tensor, dict[str, float]]:
        """Return this process's share of the outer objective of un-stacked meta-parameters, and all tasks' metrics."""
        config = self.config
        stages = self.adaptation(params, support)
        adapted = self.policy_at(stages[-1], query)
        # PPO's clipped surrogate of the adapted policies.
        ratio = likelihood_ratio(adapted, query.rollout)
        clipped = ratio.clamp(1 - config.clip_range, 1 + config.clip_range)
        gains = torch.minimum(ratio * query.advantages, clipped * query.advantages)
        valid = query.rollout.valid
        # The penalty: each stage but the last against the policy that collected the rollout it adapts on.
        inner_kls = [self._kl(self.policy_at(stage, data), data) for stage, data in zip(stages, support, strict=False)]
        inner_kl = torch.stack(inner_kls).sum()
        objective = self.mean_over_tasks(per_task_mean(gains, valid)) - config.inner_kl * inner_kl
        if config.exploration:
            objective = objective + config.exploration * self.exploration(stages, support, query)
        with torch.no_grad():
            kl = self._kl(adapted, query)
            clip_fraction = self.mean_over_tasks(per_task_mean((ratio != clipped).to(ratio.dtype), valid))
            means = self.processes.mean(torch.stack([objective, kl, inner_kl, clip_fraction]))
        names = ("objective_last_epoch", "kl", "inner_kl", "clip_fraction")
        return objective, dict(zip(names, means.tolist(), strict=True))

    def _kl(self, distribution: Distribution, episodes: Episodes) -> Tensor:
        """Return this process's share of the mean KL divergence from the policies that collected the episodes."""
        rollout = episodes.rollout
        return self.mean_over_tasks(per_task_mean(rollout.known_distribution().kl(distribution), rollout.valid))
