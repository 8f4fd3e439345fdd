"""Adaptation by policy gradient: the inner loop that gradient-based meta-learners share.

The inner objective of a task is the likelihood-ratio surrogate: the mean over steps of
exp(log pi(a|s) - log pi_sampling(a|s)) A, with pi_sampling the policy that collected the data. At the sampling
parameters its value is the mean advantage and its gradient the policy gradient, and its second derivatives keep the
dependence of the sampling distribution on the parameters, which log pi * A drops (Rothfuss et al. 2019, section 4).
"""

from dataclasses import dataclass

import torch
from tensordict import TensorDict
from torch import Tensor

from metarl.baselines import estimate_advantages
from metarl.distributions import Distribution
from metarl.params import gradient
from metarl.policies import Policy
from metarl.returns import per_task_mean
from metarl.rollout import Rollout


@dataclass(frozen=True)
class Adapted:
    """What a gradient-based learner knows of N tasks: their parameters ``[N]``, and the inner steps that led there."""

    params: TensorDict
    steps: int


@dataclass(frozen=True)
class Episodes:
    """A rollout with its advantages ``[N, E, T]``: all that a policy-gradient step looks at."""

    rollout: Rollout
    advantages: Tensor

    @classmethod
    def of(cls, rollout: Rollout, policy: Policy, discount: float, gae_lambda: float) -> "Episodes":
        """Estimate the advantages of a rollout, task by task."""
        inputs, final = policy.features(rollout.observations), policy.features(rollout.final_observations)
        return cls(rollout, estimate_advantages(rollout, inputs, final, discount, gae_lambda))

    def first_episodes(self, fraction: float) -> "Episodes":
        """Return the first ``fraction`` of each task's episodes, at least one."""
        part = self.rollout.first_episodes(fraction)
        return Episodes(part, self.advantages[:, : part.rewards.shape[1]].contiguous())


def surrogate(distribution: Distribution, episodes: Episodes) -> Tensor:
    """Return the likelihood-ratio surrogate ``[N]`` of each task, to be maximised.

    Args:
        distribution: of the policy at the rollout's observations.
        episodes: what was sampled.
    """
    rollout = episodes.rollout
    ratio = torch.exp(distribution.log_prob(rollout.actions) - rollout.log_probs)
    return per_task_mean(ratio * episodes.advantages, rollout.valid)


def inner_step(
    policy: Policy, params: TensorDict, episodes: Episodes, inner_lr: float, create_graph: bool = False
) -> TensorDict:
    """Return each task's parameters ``[N]`` after one gradient step on its own surrogate.

    Args:
        policy: whose parameters they are.
        params: ``[N]``, part of a graph.
        episodes: of the N tasks.
        inner_lr: step size.
        create_graph: keep the step's own derivative, as second-order meta-gradients need.
    """
    objective = surrogate(policy.distribution(params, episodes.rollout.observations), episodes).sum()
    return params + inner_lr * gradient(objective, params, create_graph)
