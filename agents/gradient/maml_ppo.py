"""Proximal meta-policy search, ProMP (Rothfuss et al. 2019, algorithm 1): MAML with a clipped outer objective.

Inner steps maximise the likelihood-ratio surrogate. The outer objective is PPO's clipped surrogate of the adapted
policies on the rollouts that they collected, minus a penalty on how far the policies before and between the inner steps
move from those that collected their rollouts. Several Adam steps maximise it; each repeats the adaptation on the
recorded rollouts.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from tensordict import TensorDict
from torch import Tensor

from metarl.agents.gradient.adaptation import Episodes, likelihood_ratio, mean_kl, require_finite
from metarl.agents.gradient.gradient_learner import AdamConfig, AdamLearner
from metarl.devices.transfer import read
from metarl.families.family import TaskFamily
from metarl.learning.learner import register_learner
from metarl.learning.rollback import restored_on_error
from metarl.numerics.distributions import Distribution
from metarl.numerics.params import gradient, leaf, tensors
from metarl.rollouts.returns import per_task_mean
from metarl.rollouts.rollout import Rollout
from metarl.validation import require_counts, require_not_negative, require_positive, require_unit


@dataclass(frozen=True)
class MamlPpoConfig(AdamConfig):
    """Settings of MAML-PPO."""

    epochs: int = 5
    """Adam steps on each iteration's rollouts."""
    clip_range: float = 0.3
    """Likelihood ratios of adapted policies are clipped at 1 plus or minus this."""
    clip_decay: float = 1.0
    """Factor on clip_range after each update (ProMP's annealing); 1 keeps it constant."""
    inner_kl: float = 5e-4
    """Weight of the mean KL divergence of the pre-adaptation policies from those that collected the rollouts."""
    target_inner_kl: float = 0.0
    """Target KL divergence for adapting the weight of each inner step, which starts at inner_kl; 0 keeps inner_kl."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, "epochs")
        require_positive(self, "clip_range", "clip_decay")
        require_unit(self, "clip_decay")
        require_not_negative(self, "inner_kl", "target_inner_kl")
        if self.target_inner_kl:
            require_positive(self, "inner_kl")


def adapted_weight(weight: float, kl: float, target: float) -> float:
    """Return the new weight of a KL divergence: doubled above 1.5 times the target, halved below two thirds of it.

    Source: Schulman et al. 2017, section 4, as in ProMP's code.
    """
    if kl > 1.5 * target:
        return 2 * weight
    if kl < target / 1.5:
        return weight / 2
    return weight


def _numbered(name: str, values: Iterable[Tensor]) -> dict[str, Tensor]:
    return {f"{name} {index}": value for index, value in enumerate(values)}


@register_learner
class MamlPpo(AdamLearner):
    """MAML with PPO's clipped objective in the outer loop: ProMP.

    Attributes:
        inner_kl_weights: weight of the KL divergence before each inner step.
    """

    name: ClassVar[str] = "maml-ppo"
    kl_metric: ClassVar[str | None] = "kl"
    config_class: ClassVar[type] = MamlPpoConfig
    config: MamlPpoConfig
    metrics: ClassVar[Mapping[str, str]] = {
        **AdamLearner.metrics,
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
        "clip_range": "clip range used in the update",
        "inner_kl_weight": "weight of the divergences before and between the inner steps in the update, mean over "
        "inner steps",
    }

    def __init__(self, family: TaskFamily, config: MamlPpoConfig, seed: int, device: torch.device) -> None:
        super().__init__(family, config, seed, device)
        self.inner_kl_weights = [config.inner_kl] * config.inner_steps

    @property
    def clip_range(self) -> float:
        """The clip range of the next update."""
        return self.config.clip_range * self.config.clip_decay**self.updates

    def update(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        """Take several steps on the meta-parameters.

        Raises:
            RunError: if the meta-gradient of an epoch is NaN or infinite; the learner is then unchanged.
        """
        with restored_on_error(self, ("earlier",), tensors(self.params), [self._optimizer]):
            self.earlier = self.earlier.met(self, rollouts)
            return self._ascend_epochs(rollouts)

    def _ascend_epochs(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        *support, query = [self.episodes(rollout) for rollout in rollouts]
        moved = self.adaptation_kl(query.rollout)
        terms: list[dict[str, Tensor]] = []
        norms = []
        for _ in range(self.config.epochs):
            params = leaf(self.params)
            objective, metrics = self._objective(params, support, query)
            terms.append(metrics)
            norms.append(self.ascend(gradient(objective - self.earlier.penalty(self, params), params)))
        measured = {"adaptation_kl": moved, "objective_before": terms[0]["objective_last_epoch"], **terms[-1]}
        weight = sum(self.inner_kl_weights) / len(self.inner_kl_weights)
        used = {"clip_range": self.clip_range, "inner_kl_weight": weight}
        # All metrics of the update are read at once.
        found = read({**measured, **_numbered("norm", norms), **_numbered("inner kl", self._moved(support))})
        for epoch in range(len(norms)):
            require_finite(found[f"norm {epoch}"])
        if target := self.config.target_inner_kl:
            self.inner_kl_weights = [
                adapted_weight(weight, found[f"inner kl {step}"], target)
                for step, weight in enumerate(self.inner_kl_weights)
            ]
        self.updates += 1
        return {**{name: found[name] for name in measured}, "gradient_norm": found[f"norm {len(norms) - 1}"], **used}

    @torch.no_grad()
    def _moved(self, support: Sequence[Episodes]) -> Tensor:
        """Return the KL divergence before each inner step after the update; empty if no weight depends on it."""
        if not self.config.target_inner_kl:
            return torch.empty(0)
        with torch.enable_grad():
            stages = self.adaptation(leaf(self.params), support, differentiable=False)
        return self.processes.mean(torch.stack(self._inner_kls(stages, support)))

    def _inner_kls(self, stages: Sequence[TensorDict], support: Sequence[Episodes]) -> list[Tensor]:
        """Return the KL divergence of each stage except the last from the policy that collected its rollout."""
        return [self._kl(self.policy_at(stage, data), data) for stage, data in zip(stages, support, strict=False)]

    def _objective(
        self, params: TensorDict, support: Sequence[Episodes], query: Episodes
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return this process's share of the outer objective of un-stacked meta-parameters, and all tasks' metrics."""
        config = self.config
        stages = self.adaptation(params, support)
        adapted = self.policy_at(stages[-1], query)
        # PPO's clipped surrogate of the adapted policies.
        ratio = likelihood_ratio(adapted, query.rollout)
        clipped = ratio.clamp(1 - self.clip_range, 1 + self.clip_range)
        gains = torch.minimum(ratio * query.advantages, clipped * query.advantages)
        valid = query.rollout.valid
        inner_kls = torch.stack(self._inner_kls(stages, support))
        inner_kl = inner_kls.sum()
        weights = torch.stack([inner_kl.new_full((), weight) for weight in self.inner_kl_weights])
        penalty = (inner_kls * weights).sum()
        objective = self.mean_over_tasks(per_task_mean(gains, valid)) - penalty
        if config.exploration:
            objective = objective + config.exploration * self.exploration(stages, support, query)
        with torch.no_grad():
            kl = self._kl(adapted, query)
            clip_fraction = self.mean_over_tasks(per_task_mean((ratio != clipped).to(ratio.dtype), valid))
            means = self.processes.mean(torch.stack([objective, kl, inner_kl, clip_fraction]))
        names = ("objective_last_epoch", "kl", "inner_kl", "clip_fraction")
        return objective, dict(zip(names, means, strict=True))

    def _kl(self, distribution: Distribution, episodes: Episodes) -> Tensor:
        """Return this process's share of the mean KL divergence from the policies that collected the episodes."""
        rollout = episodes.rollout
        return mean_kl(rollout.known_distribution(), distribution, rollout, self.processes)

    def state_dict(self) -> dict[str, Any]:
        """Return the meta-parameters, the optimiser's moments, the updates so far, and the inner weights."""
        return {**super().state_dict(), "inner_kl_weights": list(self.inner_kl_weights)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        super().load_state_dict(state)
        self.inner_kl_weights = [float(weight) for weight in state["inner_kl_weights"]]
