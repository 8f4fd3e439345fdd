"""The metric ``adaptation_kl`` of gradient-based learners: how far adaptation moves the policy."""

from typing import Any

import pytest
import torch
from torch import Tensor

from metarl.numerics.params import per_task
from metarl.rollouts.rollout import Rollout
from tests.agents.by_hand import float64, iteration

GRADIENT_LEARNERS = ["maml-trpo", "maml-ppo", "maml-vpg", "reptile"]


def gaussian_kl(mean: Tensor, deviation: Tensor, other_mean: Tensor, other_deviation: Tensor) -> Tensor:
    """Return the divergence of one diagonal Gaussian from another, ``[...]``."""
    square = (deviation.square() + (mean - other_mean).square()) / other_deviation.square()
    return (torch.log(other_deviation / deviation) + square / 2 - 0.5).sum(-1)


def expected_kl(learner: Any, adapted: Any, rollout: Rollout) -> float:
    """Return the mean divergence of adapted policies from the initial one, task by task."""
    kls = []
    after = learner.policy.distribution(adapted, rollout.observations)
    before = learner.policy.distribution(per_task(learner.params, rollout.num_tasks), rollout.observations)
    for task in range(rollout.num_tasks):
        inside = rollout.valid[task]
        shape = after.mean[task].shape
        numbers = (
            after.mean[task],
            after.log_std[task].exp().expand(shape),
            before.mean[task],
            before.log_std[task].exp().expand(shape),
        )
        kls.append(gaussian_kl(*(number[inside] for number in numbers)).mean())
    return float(torch.stack(kls).mean())


@pytest.mark.parametrize("name", GRADIENT_LEARNERS)
def test_it_is_the_mean_divergence_of_adapted_policies_from_the_initial_one(name: str) -> None:
    learner, rollouts = iteration(name)
    with float64():
        state = learner.begin(3)
        # Reptile takes its last inner step in ``update``.
        for rollout in rollouts if name == "reptile" else rollouts[:-1]:
            state = learner.adapt(state, rollout)
        expected = expected_kl(learner, state.params, rollouts[-1])
        assert learner.update(rollouts)["adaptation_kl"] == pytest.approx(expected, rel=1e-6)
    assert expected > 1e-6


@pytest.mark.parametrize("name", GRADIENT_LEARNERS)
def test_a_tiny_step_size_is_seen_for_what_it_is(name: str) -> None:
    found = []
    for inner_lr in (1e-6, 0.1):
        learner, rollouts = iteration(name, inner_lr=inner_lr)
        with float64():
            found.append(learner.update(rollouts)["adaptation_kl"])
    assert 0 <= found[0] < 1e-7 < found[1]
