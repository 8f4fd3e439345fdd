"""The options that gradient-based learners share, in each of them; the references are in ``by_hand``."""

import dataclasses
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from metarl.agents.gradient.adaptation import Adapted
from metarl.agents.gradient.gradient_learner import AdamConfig, GradientConfig, GradientLearner, PolicyConfig
from metarl.errors import InputError
from metarl.evaluation.evaluate import adaptation_curve
from metarl.learning.learner import LEARNERS
from metarl.numerics.params import flatten, names, unflatten
from metarl.rollouts.rollout import Rollout
from metarl.run.config import RunConfig, TrainConfig
from metarl.sampling.sampler import Sampler
from tests.agents.by_hand import (
    ADAMS,
    MAMLS,
    TASKS,
    Slopes,
    adaptation,
    iteration,
    mean,
    moving,
    outer_surrogate,
    slope_of_update,
)
from tests.runs import central_differences

CONTEXT = {"adapted": "context", "context_size": 3}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "two steps": {"inner_steps": 2},
    "step sizes": {"learned_step_sizes": True},
    "head": {"adapted": "head"},
    "head, step sizes, two steps": {"adapted": "head", "learned_step_sizes": True, "inner_steps": 2},
    "context": CONTEXT,
    "context, step sizes, two steps": {**CONTEXT, "learned_step_sizes": True, "inner_steps": 2},
    "dice": {"surrogate": "dice"},
    "dice, two steps": {"surrogate": "dice", "inner_steps": 2},
    "naive": {"surrogate": "naive"},
}
FIRST_ORDER = {name: {**settings, "first_order": True} for name, settings in OPTIONS.items()}
every_maml = pytest.mark.parametrize("name", MAMLS)
every_adam = pytest.mark.parametrize("name", ADAMS)
every_option = pytest.mark.parametrize("option", OPTIONS)


def settings(option: str, **others: Any) -> dict[str, Any]:
    # A large inner step makes the second-order terms count.
    return {"inner_lr": 0.5, **OPTIONS[option], **others}


def step_sizes(learner: GradientLearner) -> dict[str, Tensor]:
    return {name: learner.params[name] for name in names(learner.params) if name.startswith("step_size_")}


@cache
def reference(option: str, first_order: bool, family: str = "navigation-2d") -> Tensor:
    """Return the meta-gradient at the first parameters of seed 0, by central differences."""
    learner, rollouts = iteration("maml-vpg", family, **settings(option))
    data, start = [learner.episodes(rollout) for rollout in rollouts], flatten(learner.params)
    constant: list[Slopes] | None = None
    if first_order:
        constant = [
            {name: slope.detach() for name, slope in each.items()} for each in adaptation(learner, start, data[:-1])[1]
        ]
    return central_differences(lambda point: outer_surrogate(learner, point, data, constant), start)


@cache
def meta_gradient(name: str, option: str, first_order: bool = False) -> Tensor:
    """Return a learner's meta-gradient at the same parameters."""
    return slope_of_update(*iteration(name, **settings(option, first_order=first_order)))


@every_maml
@every_option
def test_the_meta_gradient_is_the_derivative_of_the_outer_objective(option: str, name: str) -> None:
    torch.testing.assert_close(meta_gradient(name, option), reference(option, False), rtol=1e-5, atol=1e-7)


@every_maml
@pytest.mark.parametrize("option", ["plain", "context, step sizes, two steps"])
def test_so_it_is_for_discrete_actions(option: str, name: str) -> None:
    found = slope_of_update(*iteration(name, "gridnavi", **settings(option)))
    torch.testing.assert_close(found, reference(option, False, "gridnavi"), rtol=1e-5, atol=1e-7)


@every_maml
@every_option
def test_the_first_order_meta_gradient_takes_the_inner_slopes_as_constants(option: str, name: str) -> None:
    torch.testing.assert_close(meta_gradient(name, option, True), reference(option, True), rtol=1e-5, atol=1e-7)


@every_maml
@every_option
def test_the_first_order_meta_gradient_is_another_one(option: str, name: str) -> None:
    second, first = (meta_gradient(name, option, first_order) for first_order in (False, True))
    assert (first - second).norm() > 0.02 * second.norm()


@every_maml
@every_option
def test_every_meta_parameter_has_a_gradient(option: str, name: str) -> None:
    params = iteration(name, **settings(option))[0].params
    for found in unflatten(meta_gradient(name, option), params).values():
        assert found.any()


@every_maml
@every_option
def test_adaptation_takes_the_steps_that_the_meta_gradient_goes_through(option: str, name: str) -> None:
    learner, rollouts = iteration(name, **settings(option))
    support = [learner.episodes(rollout) for rollout in rollouts[:-1]]
    state = learner.begin(TASKS)
    for rollout, expected in zip(rollouts, adaptation(learner, flatten(learner.params), support)[0][1:], strict=False):
        state = learner.adapt(state, rollout)
        torch.testing.assert_close(flatten(state.params), flatten(expected.detach()), rtol=1e-9, atol=1e-12)


@every_maml
@every_option
def test_only_what_is_to_adapt_moves(option: str, name: str) -> None:
    learner, rollouts = iteration(name, **settings(option))
    start = learner.begin(TASKS)
    adapted = learner.adapt(start, rollouts[0])
    moved = [each for each in names(start.params) if not torch.equal(start.params[each], adapted.params[each])]
    assert moved == moving(learner)


@every_maml
@every_option
def test_each_task_moves_elsewhere(option: str, name: str) -> None:
    learner, rollouts = iteration(name, **settings(option))
    adapted = learner.adapt(learner.begin(TASKS), rollouts[0]).params.select(*moving(learner))
    assert not torch.equal(flatten(adapted[0]), flatten(adapted[1]))


@every_maml
@every_option
def test_all_meta_parameters_are_trained(option: str, name: str) -> None:
    # By default the curvature is of one episode of the four, which proposes steps that the trust region refuses.
    whole = {"curvature_fraction": 1.0} if name == "maml-trpo" else {}
    learner, rollouts = iteration(name, **settings(option), **whole)
    before = learner.params.clone()
    learner.update(rollouts)
    assert all(bool((learner.params[each] != before[each]).any()) for each in names(before))


@every_maml
@every_option
def test_it_trains_evaluates_and_is_loaded_to_the_same_numbers(option: str, name: str, tmp_path: Path) -> None:
    config = TrainConfig(name, "navigation-2d", RunConfig(horizon=5), config_of(name, option))
    learner = config.make_learner()
    assert all(np.isfinite(value) for value in learner.update(sampled(config, learner, 0)).values())
    torch.save(learner.state_dict(), tmp_path / "state.pt")
    again = TrainConfig.from_json(json.loads(json.dumps(config.to_json())))
    assert again == config
    other = dataclasses.replace(again, run=dataclasses.replace(again.run, seed=2)).make_learner()
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    one, two = (returns(config, each) for each in (learner, other))
    assert one.shape == (TASKS, 3)
    assert np.array_equal(one, two)
    last = [each.update(sampled(config, each, 1)) for each in (learner, other)]
    assert last[0] == last[1]
    assert torch.equal(flatten(learner.params), flatten(other.params))


def config_of(name: str, option: str) -> Any:
    return LEARNERS[name].config_class(**{"hidden_sizes": (4,), **settings(option)})


def sampled(config: TrainConfig, learner: Any, number: int) -> list[Rollout]:
    """Return one training iteration's rollouts."""
    sampler, tasks = Sampler(config.make_family()), config.split().train_tasks(TASKS, number)
    state, rollouts = learner.begin(TASKS), []
    for step in range(learner.inner_steps + 1):
        if step > 0:
            state = learner.adapt(state, rollouts[-1])
        rollouts.append(sampler.collect(learner, state, tasks, 4, 10 * number + step))
    return rollouts


def returns(config: TrainConfig, learner: Any) -> np.ndarray:
    tasks = config.split().held_out_tasks("test", TASKS)
    return adaptation_curve(learner, Sampler(config.make_family()), tasks, steps=2, episodes=3).returns


def kl_slope(learner: Any, rollouts: list[Rollout], old: Any, point: Tensor) -> Tensor:
    """Return the gradient of the mean KL from ``old`` to the policies that are adapted from a point."""
    *support, query = [learner.episodes(rollout) for rollout in rollouts]
    point = point.detach().requires_grad_()
    adapted = adaptation(learner, point, support)[0][-1]
    kl = old.kl(learner.policy.distribution(adapted, query.rollout.observations))
    return torch.autograd.grad(mean(kl, query).mean(), point)[0]


@every_option
def test_the_trust_regions_curvature_is_that_of_the_kl(option: str) -> None:
    learner, rollouts = iteration("maml-trpo", **settings(option))
    *support, query = [learner.episodes(rollout) for rollout in rollouts]
    start = flatten(learner.params)
    direction = torch.randn(start.shape, dtype=start.dtype, generator=torch.Generator().manual_seed(1))
    old = rollouts[-1].distribution
    ahead, back = (kl_slope(learner, rollouts, old, start + step * direction) for step in (1e-5, -1e-5))
    found = learner.curvature(support, query)(direction)
    torch.testing.assert_close(found, (ahead - back) / 2e-5, rtol=1e-5, atol=1e-7)


@every_maml
def test_learned_step_sizes_start_at_the_inner_step_size(name: str) -> None:
    learner, _ = iteration(name, inner_lr=0.3, learned_step_sizes=True)
    found, plain = step_sizes(learner), iteration(name)[0].params
    assert sorted(found) == [f"step_size_{each}" for each in names(plain)]
    for each in names(plain):
        assert torch.equal(found[f"step_size_{each}"], torch.full_like(plain[each], 0.3))


@every_maml
@pytest.mark.parametrize(
    ("part", "expected"),
    [("head", ["step_size_bias_1", "step_size_weight_1"]), ("context", ["step_size_context"])],
)
def test_only_what_adapts_has_step_sizes(name: str, part: str, expected: list[str]) -> None:
    learner, _ = iteration(name, adapted=part, learned_step_sizes=True, context_size=3)
    assert sorted(step_sizes(learner)) == expected


@every_maml
@pytest.mark.parametrize("part", ["all", "head", "context"])
def test_untrained_step_sizes_adapt_as_the_inner_step_size_does(name: str, part: str) -> None:
    (learned, rollouts), (plain, _) = (
        iteration(name, inner_lr=0.5, adapted=part, learned_step_sizes=each) for each in (True, False)
    )
    one, other = (each.adapt(each.begin(TASKS), rollouts[0]).params for each in (learned, plain))
    torch.testing.assert_close(flatten(one.select(*names(other))), flatten(other), rtol=1e-12, atol=0)


@every_maml
def test_each_number_moves_by_its_own_step_size(name: str) -> None:
    learner, rollouts = iteration(name, inner_lr=0.5, learned_step_sizes=True)
    start = learner.begin(TASKS)
    moves = learner.adapt(start, rollouts[0]).params - start.params
    learner.params["step_size_weight_0"][0, 1] = 1.5  # three times as far
    learner.params["step_size_weight_0"][1, 2] = 0.0
    other = learner.adapt(learner.begin(TASKS), rollouts[0]).params - start.params
    factors = torch.ones(2, 4, dtype=torch.float64)
    factors[0, 1], factors[1, 2] = 3.0, 0.0
    torch.testing.assert_close(other["weight_0"], factors * moves["weight_0"], rtol=1e-9, atol=1e-12)
    assert torch.equal(other["weight_1"], moves["weight_1"])


@every_maml
@pytest.mark.parametrize("learned", [False, True], ids=["one step size", "learned step sizes"])
def test_after_the_trained_steps_adaptation_slows_down(name: str, learned: bool) -> None:
    learner, rollouts = iteration(name, inner_steps=2, later_lr_factor=0.25, learned_step_sizes=learned)
    start = learner.begin(TASKS)
    moves = []
    for steps in (1, 2):
        after = learner.adapt(Adapted(start.params, steps), rollouts[0])
        assert after.steps == steps + 1
        moves.append(flatten((after.params - start.params).select(*moving(learner))))
    torch.testing.assert_close(moves[1], 0.25 * moves[0], rtol=1e-9, atol=1e-12)


@every_maml
def test_the_head_is_the_last_layer_of_many(name: str) -> None:
    learner, rollouts = iteration(name, hidden_sizes=(4, 3, 5), adapted="head")
    start = learner.begin(TASKS)
    moved = learner.adapt(start, rollouts[0]).params - start.params
    assert [each for each in names(moved) if moved[each].any()] == ["bias_3", "weight_3"]


@every_maml
def test_the_context_starts_at_zero(name: str) -> None:
    learner, _ = iteration(name, **CONTEXT)
    assert torch.equal(learner.begin(TASKS).params["context"], torch.zeros(TASKS, 3))


@every_maml
def test_the_context_is_no_meta_parameter(name: str) -> None:
    learner, rollouts = iteration(name, **CONTEXT)
    learner.adapt(learner.begin(TASKS), rollouts[0])
    learner.update(rollouts)
    assert names(learner.params) == names(iteration(name)[0].params)
    assert set(learner.state_dict()["params"]) == set(names(learner.params))
    assert torch.equal(learner.begin(TASKS).params["context"], torch.zeros(TASKS, 3))


@every_maml
def test_the_context_is_three_further_inputs(name: str) -> None:
    # Observations (x, y), then the context: with the rows of the context's weights at work, actions depend on it.
    learner, _ = iteration(name, **CONTEXT)
    params, seen = learner.begin(TASKS).params, torch.ones(TASKS, 1, 2, dtype=torch.float64)
    assert learner.params["weight_0"].shape == (5, 4)
    context = torch.randn(TASKS, 3, generator=torch.Generator().manual_seed(0)).double()
    hidden = torch.tanh(torch.cat([seen[:, 0], context], -1) @ learner.params["weight_0"])
    expected = hidden @ learner.params["weight_1"]
    found = learner.policy.distribution(TensorDict({**dict(params.items()), "context": context}, [TASKS]), seen).mean
    torch.testing.assert_close(found[:, 0], expected, rtol=1e-9, atol=1e-12)


@every_maml
def test_the_policy_has_as_many_further_inputs_as_the_context_is_large(name: str) -> None:
    assert iteration(name, adapted="context", context_size=6)[0].params["weight_0"].shape == (8, 4)
    assert iteration(name, adapted="head", context_size=6)[0].params["weight_0"].shape == (2, 4)


@every_maml
def test_a_begun_state_stays_as_it_was_when_the_learner_learns_on(name: str) -> None:
    learner, rollouts = iteration(name)
    state, adapted = learner.begin(TASKS), learner.adapt(learner.begin(TASKS), rollouts[0])
    before = [flatten(each.params).clone() for each in (state, adapted)]
    learner.update(rollouts)
    assert torch.equal(flatten(state.params), before[0])
    assert torch.equal(flatten(adapted.params), before[1])


@every_adam
def test_a_saved_state_stays_as_it_was_when_the_learner_learns_on(name: str) -> None:
    learner, rollouts = iteration(name)
    learner.update(rollouts)
    state = learner.state_dict()
    saved = numbers(state).clone()
    learner.update(rollouts)
    assert torch.equal(numbers(state), saved)
    assert not torch.equal(numbers(learner.state_dict()), saved)


@every_adam
def test_a_loaded_state_stays_as_it_was_when_the_learner_learns_on(name: str) -> None:
    learner, rollouts = iteration(name)
    learner.update(rollouts)
    state = learner.state_dict()
    saved, (other, _) = numbers(state).clone(), iteration(name, seed=1)
    other.load_state_dict(state)
    other.update(rollouts)
    assert torch.equal(numbers(state), saved)


@every_adam
def test_two_half_runs_are_one_run_to_the_bit(name: str) -> None:
    config = TrainConfig(name, "navigation-2d", RunConfig(horizon=5), config_of(name, "step sizes"))
    whole, first, second = (config.make_learner() for _ in range(3))
    for number in range(4):
        whole.update(sampled(config, whole, number))
    for number in range(2):
        first.update(sampled(config, first, number))
    second.load_state_dict(first.state_dict())
    for number in range(2, 4):
        second.update(sampled(config, second, number))
    assert torch.equal(numbers(second.state_dict()), numbers(whole.state_dict()))


@every_adam
def test_without_its_moments_a_loaded_learner_takes_another_step(name: str) -> None:
    learner, rollouts = iteration(name)
    learner.update(rollouts)
    kept, forgetful = iteration(name)[0], iteration(name)[0]
    kept.load_state_dict(learner.state_dict())
    forgetful.load_state_dict({**learner.state_dict(), "moments": {}})
    for each in (kept, forgetful):
        each.update(rollouts)
    assert not torch.equal(flatten(kept.params), flatten(forgetful.params))


def numbers(state: dict[str, Any]) -> Tensor:
    """Return the numbers of a learner's state in one vector."""
    moments = [entry[key] for _, entry in sorted(state["moments"].items()) for key in sorted(entry)]
    params = [state["params"][name] for name in sorted(state["params"])]
    return torch.cat([torch.as_tensor(value, dtype=torch.float64).reshape(-1) for value in (*params, *moments)])


@every_adam
def test_the_outer_step_is_adams(name: str) -> None:
    # Adam's first step is outer_lr * g / (|g| + 1e-8), upwards.
    learner, rollouts = iteration(name, outer_lr=0.02)
    before, slope = flatten(learner.params).clone(), slope_of_update(learner, rollouts)
    learner.ascend(unflatten(slope, learner.params))
    expected = 0.02 * slope / (slope.abs() + 1e-8)
    torch.testing.assert_close(flatten(learner.params) - before, expected, rtol=1e-9, atol=1e-12)


@every_adam
def test_a_long_meta_gradient_is_shortened(name: str) -> None:
    (free, rollouts), (bound, _) = (iteration(name, outer_lr=0.02, max_gradient_norm=norm) for norm in (0.0, 1e-9))
    slope = slope_of_update(free, rollouts)
    before = flatten(bound.params).clone()
    assert bound.ascend(unflatten(slope, bound.params)) == pytest.approx(slope.norm().item(), rel=1e-9)
    short = 1e-9 * slope / slope.norm()
    torch.testing.assert_close(flatten(bound.params) - before, 0.02 * short / (short.abs() + 1e-8), rtol=1e-6, atol=0)


@every_adam
def test_the_outer_step_falls_to_nothing_if_it_is_to(name: str) -> None:
    learner, rollouts = iteration(name, anneal_iterations=2)
    moves = []
    for _ in range(3):
        before = flatten(learner.params).clone()
        learner.update(rollouts)
        moves.append((flatten(learner.params) - before).norm().item())
    assert moves[0] > 0 < moves[1]
    assert moves[2] == 0


@every_maml
def test_it_says_how_long_the_meta_gradient_is(name: str) -> None:
    learner, rollouts = iteration(name, **({"epochs": 1} if name == "maml-ppo" else {}))
    slope = slope_of_update(learner, rollouts)
    assert learner.update(rollouts)["gradient_norm"] == pytest.approx(slope.norm().item(), rel=1e-9)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"discount": 1.1}, r"discount must lie in \[0, 1\], not 1.1"),
        ({"gae_lambda": -0.1}, r"gae_lambda must lie in \[0, 1\], not -0.1"),
    ],
    ids=str,
)
def test_settings_of_a_policy_that_make_no_sense_are_refused(bad: dict[str, Any], message: str) -> None:
    for config in (PolicyConfig, *(LEARNERS[name].config_class for name in [*MAMLS, "reptile"])):
        with pytest.raises(InputError, match=f"^{message}$"):
            config(**bad)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"inner_lr": 0.0}, "inner_lr must be positive, not 0.0"),
        ({"inner_lr": float("nan")}, "inner_lr must be positive, not nan"),
        ({"inner_steps": 0}, "inner_steps must be at least 1, not 0"),
        ({"context_size": 0}, "context_size must be at least 1, not 0"),
        ({"later_lr_factor": 1.5}, r"later_lr_factor must lie in \[0, 1\], not 1.5"),
        ({"surrogate": "lvc"}, "surrogate must be one of likelihood-ratio, dice, naive, not 'lvc'"),
        ({"adapted": "body"}, "adapted must be one of all, head, context, not 'body'"),
    ],
    ids=str,
)
def test_settings_of_the_adaptation_that_make_no_sense_are_refused(bad: dict[str, Any], message: str) -> None:
    for config in (GradientConfig, *(LEARNERS[name].config_class for name in MAMLS)):
        with pytest.raises(InputError, match=f"^{message}$"):
            config(**bad)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"outer_lr": 0.0}, "outer_lr must be positive, not 0.0"),
        ({"outer_lr": -1.0}, "outer_lr must be positive, not -1.0"),
        ({"max_gradient_norm": -1.0}, "max_gradient_norm must be 0 or more, not -1.0"),
        ({"anneal_iterations": -1}, "anneal_iterations must be 0 or more, not -1"),
        ({"exploration": -0.5}, "exploration must be 0 or more, not -0.5"),
        ({"exploration": float("nan")}, "exploration must be 0 or more, not nan"),
    ],
    ids=str,
)
def test_settings_of_adam_that_make_no_sense_are_refused(bad: dict[str, Any], message: str) -> None:
    for config in (AdamConfig, *(LEARNERS[name].config_class for name in ADAMS)):
        with pytest.raises(InputError, match=f"^{message}$"):
            config(**bad)


@every_maml
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"hidden_sizes": (0,)}, "every hidden layer needs at least one unit"),
        ({"activation": "linear"}, "activation must be tanh, relu, another elementwise function"),
        ({"policy": "categorical"}, "a categorical policy cannot act in Box"),
    ],
    ids=str,
)
def test_a_policy_that_cannot_be_made_is_refused(name: str, bad: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainConfig(name, "navigation-2d", RunConfig(), LEARNERS[name].config_class(**bad)).make_learner()
