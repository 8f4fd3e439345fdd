"""Adaptation by policy gradient: the inner loop shared by gradient-based meta-learners.

All surrogates have the policy gradient as their first derivative at the sampling parameters. They differ in the second,
which the meta-gradient needs (Rothfuss et al. 2019, section 4; Foerster et al. 2018):

- ``likelihood-ratio``: the mean over steps of exp(log pi(a|s) - log pi_sampling(a|s)) A. It accounts for how the
  sampling distribution of each single step depends on the parameters, with low variance.
- ``dice``: the same for whole trajectories: unbiased, with high variance.
- ``naive``: the mean over steps of log pi(a|s) A. It drops that dependence, and its meta-gradient is biased.
"""

import math
import weakref
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from tensordict import TensorDict
from torch import Tensor

from metarl.devices.processes import ONE_PROCESS, Processes
from metarl.errors import RunError
from metarl.learning.baselines import estimate_advantages
from metarl.learning.learner import Learner, OpenState
from metarl.learning.policies import Policy
from metarl.numerics.distributions import Distribution
from metarl.numerics.params import gradient, names
from metarl.rollouts.returns import DEVIATION_FLOOR, per_task_mean
from metarl.rollouts.rollout import Rollout

SurrogateName = Literal["likelihood-ratio", "dice", "naive"]
# Description of the metric ``adaptation_kl``.
ADAPTATION_KL = (
    "mean KL divergence of the policies after adaptation from those before it, in nats, at the observations of the "
    "iteration's last rollout: how far adaptation moves the policy"
)
# A learned step size has the name of its parameter with this prefix.
STEP_SIZE = "step_size_"


@dataclass(frozen=True)
class Adapted:
    """The state for N tasks: their parameters ``[N]``, and how many inner steps they have taken."""

    params: TensorDict
    steps: int


@dataclass
class OpenPolicy(OpenState[Any]):
    """The parameters ``[N]`` of the policies that act in running episodes."""

    params: TensorDict


class PolicyLearner(Learner):
    """A learner whose state for N tasks has ``params`` ``[N]`` of a policy for each."""

    policy: Policy
    numbers: ClassVar[int] = 2  # 2: networks with tanh are evaluated by compiled loops
    capturable: ClassVar[bool] = True
    parameters_at: ClassVar[Sequence[str]] = ("params",)
    continual: ClassVar[Sequence[str]] = ("fine-tuning",)

    def open(self, state: Any, episodes: int, generator: torch.Generator, deterministic: bool = False) -> OpenPolicy:
        """Start an episode in each row, with the parameters of its task."""
        return OpenPolicy(state, state.params)

    def action_distribution(self, working: OpenPolicy, observations: Tensor) -> Distribution:
        """Return the action distribution of each task's policy."""
        return self.policy.distribution(working.params, observations)


@dataclass(frozen=True)
class Episodes:
    """A rollout with its advantages ``[N, E, T]``: everything that a policy-gradient step needs."""

    rollout: Rollout
    advantages: Tensor

    @classmethod
    def of(
        cls,
        rollout: Rollout,
        policy: Policy,
        discount: float,
        gae_lambda: float,
        processes: Processes = ONE_PROCESS,
        floor: float = DEVIATION_FLOOR,
    ) -> "Episodes":
        """Estimate the advantages of a rollout; see ``estimate_advantages``."""
        inputs, final = policy.features(rollout.observations), policy.features(rollout.final_observations)
        return cls(rollout, estimate_advantages(rollout, inputs, final, discount, gae_lambda, processes, floor))

    def first_episodes(self, fraction: float) -> "Episodes":
        """Return the first ``fraction`` of each task's episodes, at least one."""
        part = self.rollout.first_episodes(fraction)
        return Episodes(part, self.advantages[:, : part.rewards.shape[1]].contiguous())


class Advantages:
    """Caches the advantages of rollouts, because support rollouts are used in both ``adapt`` and ``update``.

    Entries live as long as their rollout. The arguments are those of ``Episodes.of``.
    """

    def __init__(self, policy: Policy, discount: float, gae_lambda: float, floor: float) -> None:
        self._policy, self._discount, self._gae_lambda, self._floor = policy, discount, gae_lambda, floor
        self._known: dict[int, Tensor] = {}

    def of(self, rollout: Rollout, processes: Processes) -> Episodes:
        """Return a rollout with its advantages."""
        key = id(rollout)  # unique among rollouts that exist
        if key not in self._known:
            made = Episodes.of(rollout, self._policy, self._discount, self._gae_lambda, processes, self._floor)
            self._known[key] = made.advantages
            weakref.finalize(rollout, self._known.pop, key, None)
        return Episodes(rollout, self._known[key])


def likelihood_ratio(distribution: Distribution, rollout: Rollout) -> Tensor:
    """Return pi(a|s) / pi_sampling(a|s) of every step, ``[N, E, T]``."""
    return torch.exp(distribution.log_prob(rollout.actions) - rollout.known_log_probs())


def mean_kl(one: Distribution, other: Distribution, rollout: Rollout, processes: Processes) -> Tensor:
    """Return this process's share of the mean of KL(one || other) over tasks and their steps, ``[]``, in nats.

    The mean over processes of the shares is the mean over the tasks of all processes.

    Args:
        one: distributions at the rollout's observations.
        other: distributions at the same observations.
        rollout: the rollout whose steps count.
        processes: the processes whose tasks form the batch.
    """
    divergences = per_task_mean(one.kl(other), rollout.valid)
    return processes.weight(len(divergences)) * divergences.mean()


def require_finite(norm: float) -> None:
    """Raise ``RunError`` where the norm of a meta-gradient is NaN or infinite."""
    if not math.isfinite(norm):
        raise RunError("the update is not finite (NaN or infinity in the meta-gradient)")


def surrogate(distribution: Distribution, episodes: Episodes) -> Tensor:
    """Return the likelihood-ratio surrogate ``[N]`` of each task, to be maximised.

    Args:
        distribution: distributions of the policy at the rollout's observations.
        episodes: the sampled episodes.
    """
    ratio = likelihood_ratio(distribution, episodes.rollout)
    return per_task_mean(ratio * episodes.advantages, episodes.rollout.valid)


def dice(distribution: Distribution, episodes: Episodes) -> Tensor:
    """Return the surrogate ``[N]`` whose derivatives of every order are unbiased for those of the expected return.

    Its value is zero: it sums (box(t) - box(t - 1)) A_t, with box(t) = exp(l - stop(l)) and l the log-probability of
    all actions up to step t (Foerster et al. 2018; with advantages: Farquhar et al. 2019, equation 8). Its derivatives
    are correct only at the sampling parameters.
    """
    rollout = episodes.rollout
    log_probs = distribution.log_prob(rollout.actions) * rollout.valid
    # Of all actions up to step t, and up to the step before it.
    through = log_probs.cumsum(-1)
    before = through - log_probs
    boxes = torch.exp(through - through.detach()) - torch.exp(before - before.detach())
    return per_task_mean(boxes * episodes.advantages, rollout.valid)


def naive(distribution: Distribution, episodes: Episodes) -> Tensor:
    """Return the mean ``[N]`` of log pi(a|s) A."""
    log_probs = distribution.log_prob(episodes.rollout.actions)
    return per_task_mean(log_probs * episodes.advantages, episodes.rollout.valid)


SURROGATES: dict[SurrogateName, Callable[[Distribution, Episodes], Tensor]] = {
    "likelihood-ratio": surrogate,
    "dice": dice,
    "naive": naive,
}


def inner_step(
    policy: Policy,
    params: TensorDict,
    episodes: Episodes,
    inner_lr: float,
    create_graph: bool = False,
    *,
    objective: Callable[[Distribution, Episodes], Tensor] = surrogate,
    adapted: Collection[str] | None = None,
) -> TensorDict:
    """Return each task's parameters ``[N]`` after one gradient step on its own surrogate.

    Args:
        policy: the policy.
        params: ``[N]``, part of a graph; including learned step sizes, if any.
        episodes: of the N tasks.
        inner_lr: step size, or factor on the learned ones.
        create_graph: make the step differentiable, as second-order meta-gradients require.
        objective: the surrogate.
        adapted: names of the adapted parameters; all except step sizes if None.
    """
    moving = [name for name in names(params) if not name.startswith(STEP_SIZE)] if adapted is None else list(adapted)
    # The tasks' parameters are separate, so the gradient of the sum is each task's own.
    value = objective(policy.distribution(params, episodes.rollout.observations), episodes).sum()
    gradients = gradient(value, params.select(*moving), create_graph)
    stepped = {name: params[name] + inner_lr * _scaled(params, name, gradients[name]) for name in moving}
    return TensorDict({**{name: params[name] for name in names(params)}, **stepped}, params.batch_size)


def _scaled(params: TensorDict, name: str, slope: Tensor) -> Tensor:
    own = f"{STEP_SIZE}{name}"
    return slope * params[own] if own in params.keys() else slope
