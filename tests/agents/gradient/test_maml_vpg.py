import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from metarl.agents.gradient.adaptation import Episodes
from metarl.agents.gradient.maml_vpg import MamlVpg
from metarl.numerics.params import flatten, leaf, names
from metarl.rollouts.rollout import Rollout
from tests.agents.by_hand import (
    TASKS,
    adaptation,
    iteration,
    mean,
    outer_surrogate,
    refuses_nan,
    slope_of_update,
    weights,
)
from tests.runs import central_differences, one_task

WEIGHT = 0.3


def made(family: str = "navigation-2d", **settings: Any) -> tuple[MamlVpg, list[Rollout]]:
    return iteration("maml-vpg", family, **{"inner_lr": 0.5, **settings})


def episodes(learner: MamlVpg, rollouts: Sequence[Rollout]) -> list[Episodes]:
    return [learner.episodes(rollout) for rollout in rollouts]


def credit(rollouts: list[Rollout], **settings: Any) -> Tensor:
    """Return what E-MAML's term adds to the meta-gradient, per unit of its weight."""
    with_term, without = (
        slope_of_update(made(**settings, exploration=weight)[0], rollouts) for weight in (WEIGHT, 0.0)
    )
    return (with_term - without) / WEIGHT


def support_slopes(learner: MamlVpg, rollout: Rollout) -> Tensor:
    """Return the gradient of each task's mean log pi over the valid steps of a rollout, ``[N, P]``."""
    rows = []
    for task in range(TASKS):
        params = leaf(learner.params)
        distribution = learner.policy.distribution(params.unsqueeze(0), rollout.observations[task : task + 1])
        log_probs = distribution.log_prob(rollout.actions[task : task + 1])[0]
        slopes = torch.autograd.grad(log_probs[rollout.valid[task]].mean(), [params[name] for name in names(params)])
        rows.append(torch.cat([slope.reshape(-1) for slope in slopes]))
    return torch.stack(rows)


@pytest.mark.parametrize("family", ["navigation-2d", "gridnavi"])
def test_an_update_is_one_step_of_adam_up_the_meta_gradient(family: str) -> None:
    learner, rollouts = made(family, outer_lr=0.02)
    data, point = episodes(learner, rollouts), flatten(learner.params).clone().requires_grad_()
    optimizer = torch.optim.Adam([point], lr=0.02, maximize=True)
    for _ in range(2):
        optimizer.zero_grad()
        outer_surrogate(learner, point, data).backward()
        optimizer.step()
        learner.update(rollouts)
        torch.testing.assert_close(flatten(learner.params), point.detach(), rtol=1e-9, atol=1e-11)


def test_an_update_climbs_the_surrogate_of_the_adapted_policies() -> None:
    learner, rollouts = made()
    data, before = episodes(learner, rollouts), flatten(learner.params).clone()
    learner.update(rollouts)
    gain = outer_surrogate(learner, flatten(learner.params), data) - outer_surrogate(learner, before, data)
    assert gain > 1e-4


def test_exploration_credits_support_actions_with_the_return_after_adaptation() -> None:
    # The mean over tasks of weight_i * mean grad log pi(support actions of task i).
    learner, rollouts = made()
    expected = (weights(rollouts[-1])[:, None] * support_slopes(learner, rollouts[0])).mean(0)
    torch.testing.assert_close(credit(rollouts), expected, rtol=1e-6, atol=1e-8)


def test_its_weights_are_the_tasks_returns_in_deviations_from_their_mean() -> None:
    # Returns 1, 2 and 6 of each episode: mean 3, deviation sqrt(14 / 3).
    learner, rollouts = made()
    rewards = torch.zeros_like(rollouts[-1].rewards)
    rewards[..., 0] = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64)[:, None]
    rollouts[-1] = replace(rollouts[-1], rewards=rewards)
    tasks = torch.tensor([-2.0, -1.0, 3.0], dtype=torch.float64) / math.sqrt(14 / 3)
    expected = (tasks[:, None] * support_slopes(learner, rollouts[0])).mean(0)
    torch.testing.assert_close(credit(rollouts), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("settings", [{"inner_steps": 2}, {"inner_steps": 2, "learned_step_sizes": True}], ids=str)
def test_every_support_rollout_is_credited_at_the_parameters_that_collected_it(settings: dict[str, Any]) -> None:
    # The second stage's parameters depend on the meta-parameters through the first step.
    learner, rollouts = made(**settings)
    *support, query = episodes(learner, rollouts)
    scale = weights(query.rollout)

    def term(point: Tensor) -> Tensor:
        stages, _ = adaptation(learner, point, support)
        total = torch.zeros(TASKS, dtype=torch.float64)
        for params, each in zip(stages[:-1], support, strict=True):
            log_probs = learner.policy.distribution(params, each.rollout.observations).log_prob(each.rollout.actions)
            total = total + mean(log_probs, each)
        return (scale * total).mean()

    expected = central_differences(term, flatten(learner.params))
    torch.testing.assert_close(credit(rollouts, **settings), expected, rtol=1e-5, atol=1e-7)


def test_exploration_makes_the_better_adapted_tasks_support_actions_likelier() -> None:
    learner, rollouts = made(exploration=100.0)
    tasks = weights(rollouts[-1])
    best, worst = int(tasks.argmax()), int(tasks.argmin())
    learner.update(rollouts)
    rollout = rollouts[0]
    log_probs = learner.policy.distribution(learner.begin(TASKS).params, rollout.observations).log_prob(rollout.actions)
    likelier = ((log_probs - rollout.log_probs) * rollout.valid).sum((1, 2))
    assert likelier[best] > likelier[worst]


def scaled(rollouts: list[Rollout], scale: float, shift: float = 0.0) -> list[Rollout]:
    """Return rollouts with other query rewards; each episode's return grows by ``shift``."""
    rewards = rollouts[-1].rewards * scale
    rewards[..., 0] += shift
    return [*rollouts[:-1], replace(rollouts[-1], rewards=rewards)]


@pytest.mark.parametrize(("scale", "shift"), [(1000.0, 0.0), (0.001, 0.0), (1.0, -50.0)])
def test_neither_scale_nor_level_of_the_returns_matters(scale: float, shift: float) -> None:
    _, rollouts = made()
    expected = credit(rollouts)
    torch.testing.assert_close(credit(scaled(rollouts, scale, shift)), expected, rtol=1e-4, atol=1e-6)


def test_turned_round_returns_turn_the_credit_round() -> None:
    _, rollouts = made()
    torch.testing.assert_close(credit(scaled(rollouts, -1.0)), -credit(rollouts), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("returns", [(0.0,) * 4, (-1.8,) * 4, (3.1,) * 4, (0.1, 20.3, -3.3, 7.7)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_when_all_tasks_end_up_alike_no_credit_is_given(dtype: torch.dtype, returns: tuple[float, ...]) -> None:
    # In float32 the mean of three times 3.1 is another number, and so is a sum in another order: such rounding must not
    # pass for a deviation. Every task has the same returns, in an order of its own.
    learner, rollouts = made()
    rewards = torch.zeros_like(rollouts[-1].rewards)
    for task in range(TASKS):
        rewards[task, :, 0] = torch.tensor(returns, dtype=torch.float64).roll(task + 1)
    rollouts[-1] = replace(rollouts[-1], rewards=rewards)
    data = episodes(learner, [rollout.map(lambda tensor: as_type(tensor, dtype)) for rollout in rollouts])
    point = leaf(learner.params.to(dtype))
    term = learner.exploration([point.expand(TASKS)], data[:-1], data[-1])
    slopes = torch.autograd.grad(term, [point[name] for name in names(point)])
    assert max(float(slope.abs().max()) for slope in slopes) < 1e-6


def as_type(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def test_a_single_task_has_nothing_to_be_compared_with() -> None:
    _, rollouts = made()
    assert not credit([one_task(rollout, 0) for rollout in rollouts]).any()


@pytest.mark.parametrize("which", [0, 1], ids=["support", "query"])
@pytest.mark.parametrize("name", ["rewards", "observations", "actions", "log_probs"])
def test_an_update_from_nan_changes_nothing_and_says_so(name: str, which: int) -> None:
    learner, rollouts = made(exploration=WEIGHT)
    refuses_nan(learner, rollouts, which, name)
    assert not learner.state_dict()["moments"]
