"""Reptile (Nichol, Achiam and Schulman 2018) with policy gradients in the inner loop.

Every task takes k inner steps from the meta-parameters phi, each on fresh rollouts, with its own newly initialised
optimiser. Then phi += epsilon * mean over tasks of (phi_k - phi). There are no second derivatives. With k = 1 the outer
step is the mean of the tasks' gradients, which is joint training on all tasks: Reptile learns to adapt through terms of
higher order in the step size.
"""

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
from tensordict import TensorDict
from torch import Tensor

from metarl.agents.gradient.adaptation import (
    ADAPTATION_KL,
    Advantages,
    Episodes,
    PolicyLearner,
    likelihood_ratio,
    mean_kl,
)
from metarl.agents.gradient.gradient_learner import PolicyConfig, annealed
from metarl.devices.transfer import read
from metarl.errors import RunError
from metarl.families.family import TaskFamily
from metarl.learning.learner import register_learner
from metarl.learning.policies import make_policy
from metarl.numerics.params import gradient, leaf, names, per_task, tensors
from metarl.rollouts.returns import per_task_mean
from metarl.rollouts.rollout import Rollout
from metarl.seeding import generator
from metarl.validation import require_choice, require_counts, require_not_negative, require_positive, require_unit

InnerOptimizer = Literal["adam", "sgd"]


@dataclass(frozen=True)
class ReptileConfig(PolicyConfig):
    """Settings of Reptile."""

    inner_steps: int = 2
    """Inner steps k, each on fresh rollouts. With 1 it is joint training."""
    inner_epochs: int = 5
    """Gradient steps on each rollout; 1 is the policy gradient, more is PPO."""
    inner_lr: float = 0.01
    """Step size of the inner optimiser."""
    inner_optimizer: InnerOptimizer = "adam"
    """adam (without momentum, as in the paper) or sgd."""
    clip_range: float = 0.2
    """Likelihood ratios are clipped at 1 plus or minus this, which matters from the second epoch on."""
    outer_lr: float = 1.0
    """Fraction of the way to the tasks' mean parameters that an update moves."""
    anneal_iterations: int = 0
    """Iterations over which outer_lr decays linearly to 0; 0 keeps it constant."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, "inner_steps", "inner_epochs")
        require_positive(self, "inner_lr", "clip_range")
        require_unit(self, "outer_lr")
        require_not_negative(self, "anneal_iterations")
        require_choice(self, "inner_optimizer", InnerOptimizer)


@dataclass(frozen=True)
class Inner:
    """The state for N tasks: their parameters ``[N]``, and their optimiser's moments, None before the first step."""

    params: TensorDict
    moments: dict[str, Any] | None


@register_learner
class Reptile(PolicyLearner):
    """First-order meta-learning: parameters move towards the mean of the tasks' adapted parameters."""

    name: ClassVar[str] = "reptile"
    config_class: ClassVar[type] = ReptileConfig
    metrics: ClassVar[Mapping[str, str]] = {
        "adaptation_kl": ADAPTATION_KL,
        "outer_lr": "fraction of the way to the tasks' mean parameters that this update moved",
        "move_norm": "Euclidean distance to the tasks' mean parameters before the update",
    }

    def __init__(self, family: TaskFamily, config: ReptileConfig, seed: int, device: torch.device) -> None:
        self.config = config
        # The training loop adapts between rollouts, so the last of the k inner steps is taken only in ``update``.
        self.inner_steps = config.inner_steps - 1
        if config.inner_steps == 1:
            warnings.warn(
                "reptile with inner_steps 1 is joint training, not meta-learning; use 2 or more", stacklevel=2
            )
        self.policy = make_policy(
            family.observation_space, family.action_space, config.hidden_sizes, config.activation, config.policy
        )
        self.params = self.policy.init_params(generator(seed, "policy")).to(device)
        self.updates = 0
        self._advantages = Advantages(self.policy, config.discount, config.gae_lambda, config.deviation_floor)

    def begin(self, num_tasks: int) -> Inner:
        """Return the meta-parameters for each task."""
        return Inner(per_task(self.params, num_tasks), None)

    def adapt(self, state: Inner, rollout: Rollout) -> Inner:
        """Take one inner step: ``inner_epochs`` steps of each task's optimiser on its clipped surrogate."""
        config = self.config
        episodes = self._advantages.of(rollout, self.processes)
        params = leaf(state.params)
        # Both optimisers work elementwise: one over the stacked parameters acts as one for each task.
        optimizer: torch.optim.Optimizer = (
            torch.optim.Adam(tensors(params), lr=config.inner_lr, betas=(0.0, 0.999), maximize=True)
            if config.inner_optimizer == "adam"
            else torch.optim.SGD(tensors(params), lr=config.inner_lr, maximize=True)
        )
        if state.moments is not None:
            optimizer.load_state_dict(copy.deepcopy(state.moments))
        for _ in range(config.inner_epochs):
            # The tasks' parameters are separate, so the gradient of the sum is each task's own.
            gradients = gradient(self.objective(params, episodes).sum(), params)
            for value, direction in zip(tensors(params), tensors(gradients), strict=True):
                value.grad = direction
            optimizer.step()
        return Inner(cast(TensorDict, params.detach()), optimizer.state_dict())

    def objective(self, params: TensorDict, episodes: Episodes) -> Tensor:
        """Return each task's clipped surrogate ``[N]`` (Schulman et al. 2017, equation 7)."""
        ratio = likelihood_ratio(self.policy.distribution(params, episodes.rollout.observations), episodes.rollout)
        clipped = ratio.clamp(1 - self.config.clip_range, 1 + self.config.clip_range)
        gains = torch.minimum(ratio * episodes.advantages, clipped * episodes.advantages)
        return per_task_mean(gains, episodes.rollout.valid)

    def update(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        """Repeat all inner steps on their rollouts, and move towards the mean of the tasks' final parameters.

        Raises:
            RunError: if the mean is NaN or infinite; the learner is then unchanged.
        """
        state = self.begin(rollouts[0].num_tasks)
        for rollout in rollouts:
            state = self.adapt(state, rollout)
        moved = self.adaptation_kl(state.params, rollouts[-1])
        weight = self.processes.weight(rollouts[0].num_tasks)
        means = self.processes.means([weight * value.mean(0) for value in tensors(state.params)])
        share = self.step_share
        moves = {name: mean - self.params[name] for name, mean in zip(names(self.params), means, strict=True)}
        length = torch.stack([move.square().sum() for move in moves.values()]).sum().sqrt()
        sound = torch.stack([value.isfinite().all() for value in means]).all()
        metrics = read({"adaptation_kl": moved, "outer_lr": share, "move_norm": length, "sound": sound})
        if not metrics.pop("sound"):
            raise RunError("the update is not finite (NaN or infinity in the tasks' parameters)")
        self.params = TensorDict({name: self.params[name] + share * move for name, move in moves.items()})
        self.updates += 1
        return metrics

    @torch.no_grad()
    def adaptation_kl(self, adapted: TensorDict, rollout: Rollout) -> Tensor:
        """Return the mean KL divergence ``[]`` of the policies after all inner steps from the initial one, in nats.

        Args:
            adapted: adapted parameters ``[N]``.
            rollout: rollout with the observations.
        """
        after = self.policy.distribution(adapted, rollout.observations)
        before = self.policy.distribution(per_task(self.params, rollout.num_tasks), rollout.observations)
        return self.processes.mean(mean_kl(after, before, rollout, self.processes))

    @property
    def step_share(self) -> float:
        """The outer step size of the next update."""
        return annealed(self.config.outer_lr, self.updates, self.config.anneal_iterations)

    def state_dict(self) -> dict[str, Any]:
        """Return the meta-parameters by name, and the number of updates."""
        return {"params": {key: value.cpu() for key, value in self.params.items()}, "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self.updates = int(state["updates"])
        self.params = TensorDict(
            {key: state["params"][key].to(value.device).view_as(value) for key, value in self.params.items()}
        )
