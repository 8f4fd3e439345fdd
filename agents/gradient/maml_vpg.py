"""MAML with the policy gradient in both loops (Finn, Abbeel and Levine 2017, algorithm 3; Stadie et al. 2018).

The outer step is one Adam step along the gradient of the adapted policies' surrogate, through the adaptation. With
``exploration`` it is E-MAML: rollouts before adaptation are credited with the returns after it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from metarl.agents.gradient.adaptation import require_finite, surrogate
from metarl.agents.gradient.gradient_learner import AdamConfig, AdamLearner
from metarl.devices.transfer import read
from metarl.learning.learner import register_learner
from metarl.learning.rollback import restored_on_error
from metarl.numerics.params import gradient, leaf, tensors
from metarl.rollouts.rollout import Rollout


@dataclass(frozen=True)
class MamlVpgConfig(AdamConfig):
    """Settings of MAML-VPG."""


@register_learner
class MamlVpg(AdamLearner):
    """MAML with one policy-gradient step in the outer loop; E-MAML with --exploration."""

    name: ClassVar[str] = "maml-vpg"
    config_class: ClassVar[type] = MamlVpgConfig
    config: MamlVpgConfig
    metrics: ClassVar[Mapping[str, str]] = {
        **AdamLearner.metrics,
        "gradient_norm": "Euclidean norm of the meta-gradient, before clipping",
    }

    def update(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        """Take one step on the meta-parameters.

        Raises:
            RunError: when the meta-gradient is NaN or infinite; the learner is then unchanged.
        """
        *support, query = [self.episodes(rollout) for rollout in rollouts]
        moved = self.adaptation_kl(query.rollout)
        params = leaf(self.params)
        stages = self.adaptation(params, support)
        objective = self.mean_over_tasks(surrogate(self.policy_at(stages[-1], query), query))
        if self.config.exploration:
            objective = objective + self.config.exploration * self.exploration(stages, support, query)
        with restored_on_error(self, ("earlier",), tensors(self.params), [self._optimizer]):
            self.earlier = self.earlier.met(self, rollouts)
            norm = self.ascend(gradient(objective - self.earlier.penalty(self, params), params))
            metrics = read({"adaptation_kl": moved, "gradient_norm": norm})
            require_finite(metrics["gradient_norm"])
        self.updates += 1
        return metrics
