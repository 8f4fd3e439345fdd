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
from metarl.distributions import Distribution
from metarl.errors import RunError
from metarl.learner import register_learner
from metarl.params import flatten, gradient, leaf, tensors, unflatten
from metarl.returns import per_task_mean
from metarl.rollout import Rollout
from metarl.trust_region import Trial, TrustRegionConfig, trust_region_step
from metarl.validation import require_unit


@dataclass(frozen=True)
class MamlTrpoConfig(GradientConfig):
    """Settings of MAML-TRPO."""

    curvature_fraction: float = 0.25
    """Share of each task's episodes that curvature products use; gradient and line search always use all."""
    trust_region: TrustRegionConfig = field(default_factory=TrustRegionConfig)
    """Settings of the outer step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_unit(self, "curvature_fraction")


@register_learner
class MamlTrpo(GradientLearner):
    """MAML with a trust-region outer step: parameters from which one policy-gradient step adapts."""

    name: ClassVar[str] = "maml-trpo"
    config_class: ClassVar[type] = MamlTrpoConfig
    config: MamlTrpoConfig
    metrics: ClassVar[Mapping[str, str]] = {
        "surrogate_gain": "outer objective after the update minus before it, on this iteration's rollouts; 0 for a "
        "refused update",
        "kl": "mean KL divergence between the adapted policies before and after the update, in nats, at most "
        "`max_kl`; 0 for a refused update",
        "backtracks": "trials that the line search refused before the accepted one; `max_backtracks` for a refused "
        "update",
        "accepted": "1, or 0 when every trial was refused and the parameters stayed",
        "gradient_norm": "Euclidean norm of the meta-gradient",
    }

    def update(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        """Take one trust-region step on the meta-parameters."""
        *support, query = [self.episodes(rollout) for rollout in rollouts]
        params = leaf(self.params)
        objective = surrogate(self._adapted_policy(params, support, query), query).mean()
        slope = flatten(gradient(objective, params)).detach()
        fraction = self.config.curvature_fraction
        sampled = [episodes.first_episodes(fraction) for episodes in (*support, query)]
        step = trust_region_step(
            flatten(self.params),
            slope,
            self.curvature(sampled[:-1], sampled[-1]),
            lambda point: self._try(point, support, query),
            objective.item(),
            self.config.trust_region,
        )
        if not (slope.isfinite().all() and step.point.isfinite().all()):
            raise RunError("the update is not finite (NaN or infinity in the meta-gradient or the step)")
        self.params = cast(TensorDict, unflatten(step.point, self.params).detach())
        return {
            "surrogate_gain": step.trial.objective - objective.item(),
            "kl": step.trial.kl,
            "backtracks": float(step.backtracks),
            "accepted": float(step.accepted),
            "gradient_norm": slope.norm().item(),
        }

    def curvature(self, support: Sequence[Episodes], query: Episodes) -> Callable[[Tensor], Tensor]:
        """Return the product of a vector ``[P]`` with the Hessian of the mean KL between adapted policies.

        At the present parameters that Hessian is J' M J: J takes parameters to the adapted policies' distribution
        parameters, through the adaptation, and M is the Fisher matrix of these. Both products with J come from one
        recorded graph: J'u is a backward pass, and as it is linear in u, the backward pass through it gives Jv.
        """
        params = leaf(self.params)
        outputs = self._adapted_policy(params, support, query)
        inputs, ends = tensors(params), outputs.tensors()
        cotangents = [torch.zeros_like(end, requires_grad=True) for end in ends]
        pullback = torch.autograd.grad(ends, inputs, cotangents, create_graph=True)
        fixed = outputs.map(Tensor.detach)
        moving = fixed.map(lambda tensor: tensor.clone().requires_grad_())
        kl = per_task_mean(fixed.kl(moving), query.rollout.valid).mean()
        metric = torch.autograd.grad(kl, moving.tensors(), create_graph=True)

        def product(vector: Tensor) -> Tensor:
            tangents = tensors(unflatten(vector, params))
            pushed = torch.autograd.grad(pullback, cotangents, tangents, retain_graph=True)
            weighed = torch.autograd.grad(metric, moving.tensors(), pushed, retain_graph=True)
            pulled = torch.autograd.grad(ends, inputs, weighed, retain_graph=True)
            return torch.cat([value.reshape(-1) for value in pulled])

        return product

    def _adapted_policy(
        self, params: TensorDict, support: Sequence[Episodes], query: Episodes, differentiable: bool = True
    ) -> Distribution:
        """Adapt un-stacked parameters to every task, and return the adapted policies at the query's observations."""
        *_, adapted = self.adaptation(params, support, differentiable)
        with torch.set_grad_enabled(differentiable):
            return self.policy.distribution(adapted, query.rollout.observations)

    def _try(self, point: Tensor, support: Sequence[Episodes], query: Episodes) -> Trial:
        """Adapt anew from a trial point, on the same rollouts, and compare with the policies that collected them."""
        distribution = self._adapted_policy(leaf(unflatten(point, self.params)), support, query, differentiable=False)
        with torch.no_grad():
            kl = per_task_mean(query.rollout.known_distribution().kl(distribution), query.rollout.valid).mean()
            return Trial(surrogate(distribution, query).mean().item(), kl.item())
