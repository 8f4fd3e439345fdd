"""MAML with a trust-region outer step (Finn, Abbeel and Levine 2017, algorithm 3; Schulman et al. 2015).

For every task i: theta_i = theta + inner_lr * grad J_i(theta), on rollouts of theta. The outer step maximises the mean
over tasks of the surrogate of theta_i on rollouts of theta_i, as a function of theta, keeping the mean
KL(pi_old_i || pi_theta_i) between the adapted policies before and after the step below max_kl.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, cast

import torch
from tensordict import TensorDict
from torch import Tensor

from metarl.agents.gradient.adaptation import Episodes, surrogate
from metarl.agents.gradient.gradient_learner import GradientConfig, GradientLearner
from metarl.devices.transfer import read
from metarl.errors import RunError
from metarl.learning.learner import register_learner
from metarl.learning.rollback import restored_on_error
from metarl.learning.trust_region import TrustRegionConfig, trust_region_step
from metarl.networks.compiled_mlp import changes_of_outputs_only
from metarl.numerics.distributions import Distribution
from metarl.numerics.params import flatten, gradient, leaf, tensors, unflatten
from metarl.rollouts.returns import per_task_mean
from metarl.rollouts.rollout import Rollout
from metarl.validation import require_counts, require_unit


@dataclass(frozen=True)
class MamlTrpoConfig(GradientConfig):
    """Settings of MAML-TRPO."""

    curvature_fraction: float = 0.25
    """Fraction of each task's episodes for curvature products; gradient and line search always use all."""
    curvature_steps: int = 500
    """Minimum number of steps per task for curvature products, or all if there are fewer."""
    trust_region: TrustRegionConfig = field(default_factory=TrustRegionConfig)
    """Settings of the outer step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_unit(self, "curvature_fraction")
        require_counts(self, "curvature_steps")


@register_learner
class MamlTrpo(GradientLearner):
    """MAML with a trust-region outer step: parameters that adapt with one policy-gradient step."""

    name: ClassVar[str] = "maml-trpo"
    kl_metric: ClassVar[str | None] = "kl"
    config_class: ClassVar[type] = MamlTrpoConfig
    config: MamlTrpoConfig
    metrics: ClassVar[Mapping[str, str]] = {
        **GradientLearner.metrics,
        "surrogate_gain": "outer objective after the update minus before it, on this iteration's rollouts; 0 for a "
        "rejected update",
        "kl": "mean KL divergence between the adapted policies before and after the update, in nats, at most "
        "`max_kl`; 0 for a rejected update",
        "backtracks": "candidates that the line search rejected before the accepted one; `max_backtracks` for a "
        "rejected update",
        "accepted": "1, or 0 when every candidate was rejected and the parameters were kept",
        "gradient_norm": "Euclidean norm of the meta-gradient",
    }

    def update(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        """Take one trust-region step on the meta-parameters.

        On a GPU it synchronises once for the shapes of the curvature products, and in the line search.

        Raises:
            RunError: when the meta-gradient is NaN or infinite; the learner is then unchanged.
        """
        with restored_on_error(self, ("earlier",), tensors(self.params), ()):
            self.earlier = self.earlier.met(self, rollouts)
            return self._ascend(rollouts)

    def _ascend(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        *support, query = [self.episodes(rollout) for rollout in rollouts]
        moved = self.adaptation_kl(query.rollout)
        params = leaf(self.params)
        own = self.mean_over_tasks(surrogate(self._adapted_policy(params, support, query), query))
        own = own - self.earlier.penalty(self, params)
        slope = self.processes.mean(flatten(gradient(own, params)).detach())
        found = read(
            {
                "adaptation_kl": moved,
                "objective": self.processes.mean(own.detach()),
                "gradient_norm": slope.norm(),
                "finite": slope.isfinite().all(),
                **{f"steps {number}": self._steps(each.rollout) for number, each in enumerate((*support, query))},
            }
        )
        if not found["finite"]:
            raise RunError("the update is not finite (NaN or infinity in the meta-gradient)")
        objective = found["objective"]
        sampled = [
            episodes.first_episodes(self.curvature_share(found[f"steps {number}"]))
            for number, episodes in enumerate((*support, query))
        ]
        step = trust_region_step(
            flatten(self.params),
            slope,
            self._curvature(sampled[:-1], sampled[-1]),
            lambda point: self._evaluate(point, support, query),
            objective,
            self.config.trust_region,
        )
        self.params = cast(TensorDict, unflatten(step.point, self.params).detach())
        return {
            "adaptation_kl": found["adaptation_kl"],
            "surrogate_gain": step.candidate.objective - objective,
            "kl": step.candidate.kl,
            "backtracks": float(step.backtracks),
            "accepted": float(step.accepted),
            "gradient_norm": found["gradient_norm"],
        }

    def _steps(self, rollout: Rollout) -> Tensor:
        """Return the mean number of steps of a task, ``[]``."""
        return self.processes.mean(self.mean_over_tasks(rollout.valid.sum((1, 2)).to(rollout.rewards.dtype)))

    def curvature_share(self, steps: float) -> float:
        """Return the fraction of each task's episodes for curvature products.

        With few steps the sampled curvature is too small in the directions that conjugate gradient favours, and the
        step is too long; docs/maml-trpo.md has the measurements.

        Args:
            steps: mean number of steps of a task.
        """
        return max(self.config.curvature_fraction, min(1.0, self.config.curvature_steps / steps))

    def _curvature(self, support: Sequence[Episodes], query: Episodes) -> Callable[[Tensor], Tensor]:
        """Return the product with the curvature of the mean KL and of the penalty of earlier tasks.

        Without the latter a step would be long where the present task's policies hardly depend on a parameter, which
        may matter to earlier ones.
        """
        present, earlier = self.curvature(support, query), self.earlier.curvature(self.params, self.curvature)
        return present if earlier is None else lambda vector: present(vector) + earlier(vector)

    def curvature(self, support: Sequence[Episodes], query: Episodes) -> Callable[[Tensor], Tensor]:
        """Return the product of a vector ``[P]`` with the Hessian of the mean KL between adapted policies.

        At the current parameters that Hessian is J' M J: J is the derivative of the adapted policies' distribution
        parameters with respect to the meta-parameters, through the adaptation, and M is the Fisher matrix of the
        distributions. Both products with J come from one recorded graph: J'u is a backward pass, and as it is linear
        in u, the backward pass through it gives Jv. Each product is the mean over processes.
        """
        params = leaf(self.params)
        outputs = self._adapted_policy(params, support, query)
        inputs, ends = tensors(params), outputs.tensors()
        # J'u for a u whose value does not matter: only its derivative with respect to u is used.
        cotangents = [torch.zeros_like(end, requires_grad=True) for end in ends]
        pullback = torch.autograd.grad(ends, inputs, cotangents, create_graph=True)
        # The gradient of the mean KL with respect to the outputs is zero here, and its derivative is M.
        fixed = outputs.map(Tensor.detach)
        moving = fixed.map(lambda tensor: tensor.clone().requires_grad_())
        kl = self.mean_over_tasks(per_task_mean(fixed.kl(moving), query.rollout.valid))
        metric = torch.autograd.grad(kl, moving.tensors(), create_graph=True)

        def product(vector: Tensor) -> Tensor:
            tangents = tensors(unflatten(vector, params))
            with changes_of_outputs_only():
                pushed = torch.autograd.grad(pullback, cotangents, tangents, retain_graph=True)  # J v
            weighed = torch.autograd.grad(metric, moving.tensors(), pushed, retain_graph=True)  # M J v
            pulled = torch.autograd.grad(ends, inputs, weighed, retain_graph=True)  # J' M J v
            return self.processes.mean(torch.cat([value.reshape(-1) for value in pulled]))

        return product

    def _adapted_policy(
        self, params: TensorDict, support: Sequence[Episodes], query: Episodes, differentiable: bool = True
    ) -> Distribution:
        """Adapt un-stacked parameters to every task, and return the adapted policies at the query's observations."""
        *_, adapted = self.adaptation(params, support, differentiable)
        with torch.set_grad_enabled(differentiable):
            return self.policy.distribution(adapted, query.rollout.observations)

    def _evaluate(self, point: Tensor, support: Sequence[Episodes], query: Episodes) -> Tensor:
        """Repeat the adaptation from a candidate; return its objective and mean KL divergence ``[2]``."""
        params = leaf(unflatten(point, self.params))
        distribution = self._adapted_policy(params, support, query, differentiable=False)
        penalty = self.earlier.penalty(self, params, differentiable=False)
        with torch.no_grad():
            objective = self.mean_over_tasks(surrogate(distribution, query)) - penalty
            kl = per_task_mean(query.rollout.known_distribution().kl(distribution), query.rollout.valid)
            # A point with a NaN or infinity is rejected, even if no policy depends on it.
            sound = torch.where(point.isfinite().all(), objective, torch.nan)
            return self.processes.mean(torch.stack([sound, self.mean_over_tasks(kl)]))
