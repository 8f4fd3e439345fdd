"""MAML with a trust-region outer step (Finn, Abbeel and Levine 2017, algorithm 3; Schulman et al. 2015).

For every task i: theta_i = theta + inner_lr * grad J_i(theta), on rollouts of theta. The outer step maximises the mean
over tasks of the surrogate of theta_i on rollouts of theta_i, as a function of theta, keeping the mean
KL(pi_old_i || pi_theta_i) between the adapted policies before and after the step below max_kl.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import torch
from tensordict import TensorDict
from torch import Tensor

from metarl.agents.adaptation import Adapted, Episodes, inner_step, surrogate
from metarl.distributions import Distribution
from metarl.errors import InputError, RunError
from metarl.family import TaskFamily
from metarl.learner import Learner, register_learner
from metarl.params import flatten, gradient, leaf, per_task, tensors, unflatten
from metarl.policies import PolicyKind, make_policy
from metarl.returns import per_task_mean
from metarl.rollout import Rollout
from metarl.seeding import generator
from metarl.trust_region import Trial, TrustRegionConfig, trust_region_step


@dataclass(frozen=True)
class MamlTrpoConfig:
    """Settings of MAML-TRPO."""

    inner_lr: float = 0.1
    """Step size of the adaptation."""
    inner_steps: int = 1
    """Gradient steps of the adaptation in training, each on fresh rollouts."""
    later_lr_factor: float = 0.5
    """Factor on inner_lr for adaptation steps beyond those of training, which MAML's own evaluation halves."""
    first_order: bool = False
    """Ignore how the inner gradient depends on the parameters (first-order MAML)."""
    discount: float = 0.99
    """Discount of rewards, per step."""
    gae_lambda: float = 1.0
    """Lambda of the generalised advantage estimate; 1 is the Monte Carlo return."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Units of the policy's hidden layers."""
    activation: str = "tanh"
    """Between layers: tanh or relu."""
    policy: PolicyKind = "auto"
    """Action distribution; auto takes the one that fits the action space."""
    curvature_fraction: float = 0.25
    """Share of each task's episodes that curvature products use; gradient and line search always use all."""
    trust_region: TrustRegionConfig = field(default_factory=TrustRegionConfig)
    """Settings of the outer step."""

    def __post_init__(self) -> None:
        if not self.inner_lr > 0:
            raise InputError(f"inner_lr must be positive, not {self.inner_lr}")
        if self.inner_steps < 1:
            raise InputError(f"inner_steps must be at least 1, not {self.inner_steps}")
        for name in ("discount", "gae_lambda", "curvature_fraction", "later_lr_factor"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must lie in [0, 1], not {getattr(self, name)}")


@register_learner
class MamlTrpo(Learner):
    """MAML with a trust-region outer step: parameters from which one policy-gradient step adapts."""

    name: ClassVar[str] = "maml-trpo"
    config_class: ClassVar[type] = MamlTrpoConfig

    def __init__(self, family: TaskFamily, config: MamlTrpoConfig, seed: int, device: torch.device) -> None:
        self.config = config
        self.inner_steps = config.inner_steps
        self.policy = make_policy(
            family.observation_space, family.action_space, config.hidden_sizes, config.activation, config.policy
        )
        self.params = self.policy.init_params(generator(seed, "policy")).to(device)

    def begin(self, num_tasks: int) -> Adapted:
        """Return the meta-parameters for each task."""
        return Adapted(per_task(self.params, num_tasks), 0)

    def act(
        self, state: Adapted, observations: Tensor, generator: torch.Generator, deterministic: bool = False
    ) -> tuple[Tensor, Distribution]:
        """Act by each task's parameters."""
        return self.policy.act(state.params, observations, generator, deterministic)

    def adapt(self, state: Adapted, rollout: Rollout) -> Adapted:
        """Take one inner step from each task's parameters."""
        trained = state.steps < self.config.inner_steps
        inner_lr = self.config.inner_lr * (1 if trained else self.config.later_lr_factor)
        params = inner_step(self.policy, leaf(state.params), self._episodes(rollout), inner_lr)
        return Adapted(cast(TensorDict, params.detach()), state.steps + 1)

    def update(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        """Take one trust-region step on the meta-parameters."""
        *support, query = [self._episodes(rollout) for rollout in rollouts]
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

    def state_dict(self) -> dict[str, Any]:
        """Return the meta-parameters by name."""
        return {"params": {key: value.cpu() for key, value in self.params.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over meta-parameters; their names and shapes must be the policy's."""
        self.params = TensorDict(
            {key: state["params"][key].to(value.device).view_as(value) for key, value in self.params.items()}
        )

    def _episodes(self, rollout: Rollout) -> Episodes:
        return Episodes.of(rollout, self.policy, self.config.discount, self.config.gae_lambda)

    def _adapted_policy(
        self, params: TensorDict, support: Sequence[Episodes], query: Episodes, differentiable: bool = True
    ) -> Distribution:
        """Adapt un-stacked parameters to every task, and return the adapted policies at the query's observations."""
        create_graph = differentiable and not self.config.first_order
        adapted = per_task(params, query.rollout.num_tasks)
        for episodes in support:
            adapted = inner_step(self.policy, adapted, episodes, self.config.inner_lr, create_graph)
        with torch.set_grad_enabled(differentiable):
            return self.policy.distribution(adapted, query.rollout.observations)

    def _try(self, point: Tensor, support: Sequence[Episodes], query: Episodes) -> Trial:
        """Adapt anew from a trial point, on the same rollouts, and compare with the policies that collected them."""
        distribution = self._adapted_policy(leaf(unflatten(point, self.params)), support, query, differentiable=False)
        with torch.no_grad():
            kl = per_task_mean(query.rollout.distribution.kl(distribution), query.rollout.valid).mean()
            return Trial(surrogate(distribution, query).mean().item(), kl.item())
