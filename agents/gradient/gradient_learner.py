"""Base classes of meta-learners that adapt by policy gradient: parameters, acting, the inner loop, and its options."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast, get_args

import torch
from tensordict import TensorDict
from torch import Tensor

from metarl.agents.gradient.adaptation import (
    ADAPTATION_KL,
    STEP_SIZE,
    SURROGATES,
    Adapted,
    Advantages,
    Episodes,
    PolicyLearner,
    SurrogateName,
    inner_step,
    likelihood_ratio,
    mean_kl,
)
from metarl.agents.gradient.earlier_tasks import Continual, EarlierTasks, EarlierTasksConfig
from metarl.families.family import TaskFamily
from metarl.learning.policies import CONTEXT, PolicyKind, make_policy
from metarl.networks.optimizers import OptimizerConfig, make_optimizer, moments, restore_moments
from metarl.numerics.distributions import Distribution
from metarl.numerics.params import leaf, names, per_task, tensors
from metarl.rollouts.returns import DEVIATION_FLOOR, per_task_mean
from metarl.rollouts.rollout import Rollout
from metarl.seeding import generator
from metarl.validation import (
    require_choice,
    require_counts,
    require_layers,
    require_not_negative,
    require_positive,
    require_unit,
)

AdaptedPart = Literal["all", "head", "context"]


@dataclass(frozen=True)
class PolicyConfig:
    """Settings of a policy and its advantages."""

    discount: float = 0.99
    """Discount of rewards, per step."""
    gae_lambda: float = 1.0
    """Lambda of the generalised advantage estimate; 1 is the Monte Carlo return."""
    deviation_floor: float = DEVIATION_FLOOR
    """Floor on a task's standard deviation of advantages, as a share of the root mean square of all tasks'."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Units of the policy's hidden layers."""
    activation: str = "tanh"
    """Activation between layers: tanh, relu, another function of torch.nn.functional, or your own as module:name."""
    policy: PolicyKind = "auto"
    """Action distribution; auto selects the one that fits the action space."""

    def __post_init__(self) -> None:
        require_unit(self, "discount", "gae_lambda")
        require_not_negative(self, "deviation_floor")
        require_layers(self, "hidden_sizes")


@dataclass(frozen=True)
class GradientConfig(EarlierTasksConfig, PolicyConfig):
    """Settings of a policy and of its adaptation by gradient steps."""

    inner_lr: float = 0.1
    """Step size of the adaptation; with learned step sizes, their initial value."""
    inner_steps: int = 1
    """Gradient steps of the adaptation in training, each on fresh rollouts."""
    later_lr_factor: float = 0.5
    """Factor on inner_lr for adaptation steps beyond those of training, for which MAML's own evaluation halves it."""
    first_order: bool = False
    """Ignore how the inner gradient depends on the parameters (first-order MAML)."""
    surrogate: SurrogateName = "likelihood-ratio"
    """Inner objective: likelihood-ratio (ProMP's low-variance curvature), dice, or naive (log pi times advantage)."""
    learned_step_sizes: bool = False
    """Learn a step size for each parameter (Meta-SGD, Li et al. 2017)."""
    adapted: AdaptedPart = "all"
    """Adapted parameters: all, head (the last layer: ANIL) or context (inputs of the policy that start at 0: CAVIA)."""
    context_size: int = 8
    """Number of context inputs, if the context is adapted."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_earlier_tasks()
        require_positive(self, "inner_lr")
        require_counts(self, "inner_steps", "context_size")
        require_unit(self, "later_lr_factor")
        require_choice(self, "surrogate", SurrogateName)
        require_choice(self, "adapted", AdaptedPart)


@dataclass(frozen=True)
class AdamConfig(OptimizerConfig, GradientConfig):
    """Settings of a gradient-based learner with Adam, or another optimiser, in the outer loop."""

    outer_lr: float = 1e-3
    """Step size of the optimiser on the meta-parameters."""
    anneal_iterations: int = 0
    """Iterations over which outer_lr decays linearly to 0; 0 keeps it constant."""
    max_gradient_norm: float = 0.0
    """Norm to which the meta-gradient is clipped; 0 disables clipping."""
    exploration: float = 0.0
    """Weight of E-MAML's term, which credits episodes before adaptation with the returns after it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "outer_lr")
        require_not_negative(self, "anneal_iterations", "max_gradient_norm", "exploration")


def annealed(step_size: float, updates: int, anneal_iterations: int) -> float:
    """Return a step size that decays linearly to 0 over ``anneal_iterations`` updates, or is constant if that is 0."""
    return step_size * max(0.0, 1 - updates / anneal_iterations) if anneal_iterations else step_size


class GradientLearner(PolicyLearner):
    """A learner whose state for N tasks is policy parameters ``[N]``, adapted by gradient steps.

    Attributes:
        params: the meta-parameters, un-stacked: the policy's, and the learned step sizes.
        earlier: what is kept of earlier tasks in a stream of them.
    """

    config: GradientConfig
    metrics: ClassVar[Mapping[str, str]] = {"adaptation_kl": ADAPTATION_KL}
    continual: ClassVar[Sequence[str]] = get_args(Continual)

    def __init__(self, family: TaskFamily, config: GradientConfig, seed: int, device: torch.device) -> None:
        self.config = config
        self.inner_steps = config.inner_steps
        self.earlier = EarlierTasks(config, seed, device)
        context = config.context_size if config.adapted == "context" else 0
        spaces = family.observation_space, family.action_space
        self.policy = make_policy(*spaces, config.hidden_sizes, config.activation, config.policy, context)
        self._advantages = Advantages(self.policy, config.discount, config.gae_lambda, config.deviation_floor)
        self.params = self.policy.init_params(generator(seed, "policy")).to(device)
        self._context = torch.zeros(context, device=device)
        self._moving = {"all": names(self.params), "head": self.policy.head, "context": [CONTEXT]}[config.adapted]
        if config.learned_step_sizes:
            for name in self._moving:
                like: Tensor = self._context if name == CONTEXT else self.params[name]
                self.params[f"{STEP_SIZE}{name}"] = torch.full_like(like, config.inner_lr)

    def begin(self, num_tasks: int) -> Adapted:
        """Return the meta-parameters for each task."""
        return Adapted(self._for_tasks(self.params.clone(), num_tasks), 0)

    def adapt(self, state: Adapted, rollout: Rollout) -> Adapted:
        """Take one inner step from each task's parameters."""
        factor = 1.0 if state.steps < self.inner_steps else self.config.later_lr_factor
        params = self._inner_step(leaf(state.params), self.episodes(rollout), factor)
        return Adapted(cast(TensorDict, params.detach()), state.steps + 1)

    def state_dict(self) -> dict[str, Any]:
        """Return the meta-parameters by name, and what is kept of earlier tasks."""
        params = {key: value.cpu().clone() for key, value in self.params.items()}
        return {"params": params, **self.earlier.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore meta-parameters, whose names and shapes must match the policy's."""
        self.params = TensorDict(
            {key: state["params"][key].to(value.device).view_as(value) for key, value in self.params.items()}
        )
        self.earlier = self.earlier.restored(self, state)

    def episodes(self, rollout: Rollout) -> Episodes:
        """Return a rollout with its advantages."""
        return self._advantages.of(rollout, self.processes)

    def adaptation(
        self, params: TensorDict, support: Sequence[Episodes], differentiable: bool = True
    ) -> list[TensorDict]:
        """Return every task's parameters ``[N]`` before and after each inner step, as functions of meta-parameters.

        Args:
            params: un-stacked leaves.
            support: the episodes of each inner step.
            differentiable: make the inner steps differentiable, unless the learner is first-order.
        """
        create_graph = differentiable and not self.config.first_order
        stages = [self._for_tasks(params, support[0].rollout.num_tasks)]
        for episodes in support:
            stages.append(self._inner_step(stages[-1], episodes, 1.0, create_graph))
        return stages

    @torch.no_grad()
    def adaptation_kl(self, query: Rollout) -> Tensor:
        """Return the mean KL ``[]`` of the policies that collected a rollout from the initial policy, in nats."""
        before = self.policy.distribution(self._for_tasks(self.params, query.num_tasks), query.observations)
        return self.processes.mean(mean_kl(query.known_distribution(), before, query, self.processes))

    def mean_over_tasks(self, values: Tensor) -> Tensor:
        """Return this process's share of the mean ``[]`` of values ``[N]`` of its tasks.

        The mean over processes of the shares is the mean over the tasks of all processes.
        """
        return self.processes.weight(len(values)) * values.mean()

    def _for_tasks(self, params: TensorDict, num_tasks: int) -> TensorDict:
        stacked = per_task(params, num_tasks)
        if not self._context.numel():
            return stacked
        entries = {name: stacked[name] for name in names(stacked)}
        start = self._context.expand(num_tasks, -1)
        # A leaf where gradients are taken: the context starts at a constant, not at a learned value.
        entries[CONTEXT] = start.clone().requires_grad_() if torch.is_grad_enabled() else start
        return TensorDict(entries, [num_tasks])

    def _inner_step(
        self, params: TensorDict, episodes: Episodes, factor: float, create_graph: bool = False
    ) -> TensorDict:
        learned = self.config.learned_step_sizes
        return inner_step(
            self.policy,
            params,
            episodes,
            factor * (1.0 if learned else self.config.inner_lr),
            create_graph,
            objective=SURROGATES[self.config.surrogate],
            adapted=self._moving,
        )


class AdamLearner(GradientLearner):
    """A gradient-based learner with Adam, or another optimiser, in the outer loop.

    Attributes:
        updates: number of updates so far.
    """

    config: AdamConfig

    def __init__(self, family: TaskFamily, config: AdamConfig, seed: int, device: torch.device) -> None:
        super().__init__(family, config, seed, device)
        self.updates = 0
        self._optimizer = make_optimizer(config.optimizer, tensors(self.params), config.outer_lr)

    def ascend(self, gradients: TensorDict) -> Tensor:
        """Take one step of the optimiser along the meta-gradient; return its norm ``[]`` before clipping.

        The norm is not checked: the caller checks it, and undoes the step if it is not finite.

        Args:
            gradients: the meta-gradient of this process's tasks; the step is along the mean over processes.
        """
        means = self.processes.means([each.detach() for each in tensors(gradients)])
        norm: Tensor = torch.cat([each.reshape(-1) for each in means]).norm()
        largest = self.config.max_gradient_norm
        share = (largest / norm.double()).clamp(max=1) if largest else 1.0
        for value, direction in zip(tensors(self.params), means, strict=True):
            value.grad = -share * direction  # optimisers descend
        (group,) = self._optimizer.param_groups
        group["lr"] = annealed(self.config.outer_lr, self.updates, self.config.anneal_iterations)
        self._optimizer.step()
        return norm

    def exploration(self, stages: Sequence[TensorDict], support: Sequence[Episodes], query: Episodes) -> Tensor:
        """Return E-MAML's term, which makes support actions more likely if the adapted policy did well after them.

        It is the mean over tasks of the query's mean return, normalised over tasks, times the mean likelihood ratio of
        the support actions (Stadie et al. 2018, equation 8). The result is this process's share of it.
        """
        # In float64, because with equal returns float32 would normalise the rounding error of their mean.
        returns = query.rollout.episode_returns().double().mean(1)
        mean, variance, _ = self.processes.moments(returns)
        weights = (returns - mean) / (variance.sqrt() + 1e-8)
        ratios = []
        for params, episodes in zip(stages, support, strict=False):  # the last stage has no support rollout
            ratio = likelihood_ratio(self.policy_at(params, episodes), episodes.rollout)
            ratios.append(per_task_mean(ratio, episodes.rollout.valid))
        total = torch.stack(ratios).sum(0)
        return self.mean_over_tasks(weights.to(total.dtype) * total)

    def state_dict(self) -> dict[str, Any]:
        """Return the meta-parameters by name, the optimiser's moments, and the number of updates."""
        return {**super().state_dict(), "moments": moments(self._optimizer), "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self.updates = int(state["updates"])
        for key, value in self.params.items():
            value.copy_(state["params"][key].view_as(value))
        self.earlier = self.earlier.restored(self, state)
        restore_moments(self._optimizer, state["moments"])

    def policy_at(self, params: TensorDict, episodes: Episodes) -> Distribution:
        """Return the action distributions of parameters ``[N]`` at the observations of episodes."""
        return self.policy.distribution(params, episodes.rollout.observations)
