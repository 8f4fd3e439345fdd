import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from metarl.agents.gradient.adaptation import Episodes
from metarl.agents.gradient.maml_ppo import MamlPpo, MamlPpoConfig, adapted_weight
from metarl.errors import InputError, RunError
from metarl.numerics.distributions import DiagonalGaussian
from metarl.numerics.params import flatten, leaf, unflatten
from metarl.rollouts.rollout import Rollout
from tests.agents.by_hand import adaptation, float64, iteration, mean, refuses_nan, slope_of_update, weights
from tests.runs import central_differences

SETTINGS: list[Any] = [
    pytest.param("navigation-2d", {}, id="gaussian"),
    pytest.param("gridnavi", {}, id="categorical"),
    pytest.param("navigation-2d", {"inner_steps": 2}, id="two steps"),
    pytest.param("navigation-2d", {"exploration": 0.3}, id="exploration"),
    pytest.param("navigation-2d", {"inner_steps": 2, "exploration": 0.3, "first_order": True}, id="first order"),
]


def made(family: str = "navigation-2d", **settings: Any) -> tuple[MamlPpo, list[Rollout]]:
    """Return a learner and rollouts for which each term of the objective counts."""
    return iteration("maml-ppo", family, **{"inner_lr": 0.5, "inner_kl": 0.7, "epochs": 1, **settings})


def episodes(learner: MamlPpo, rollouts: Sequence[Rollout]) -> list[Episodes]:
    return [learner.episodes(rollout) for rollout in rollouts]


def elsewhere(learner: MamlPpo, distance: float = 0.15) -> Tensor:
    """Return a vector of parameters at which ratios are far from 1, some of them beyond the clip."""
    start = flatten(learner.params)
    return start + distance * torch.randn(start.shape, dtype=start.dtype, generator=torch.Generator().manual_seed(2))


def move(learner: MamlPpo, point: Tensor) -> None:
    learner.load_state_dict({**learner.state_dict(), "params": dict(unflatten(point, learner.params).items())})


def ratio(learner: MamlPpo, params: Any, data: Episodes) -> Tensor:
    log_probs = learner.policy.distribution(params, data.rollout.observations).log_prob(data.rollout.actions)
    return (log_probs - data.rollout.log_probs).exp()


def objective(learner: MamlPpo, data: Sequence[Episodes], point: Tensor, constant: Any = None) -> Tensor:
    """Write ProMP's objective out, case by case."""
    config, (*support, query) = learner.config, data
    stages, _ = adaptation(learner, point, support, constant)
    change, gain = ratio(learner, stages[-1], query), query.advantages
    too_good = (change > 1 + config.clip_range) & (gain > 0)
    too_bad = (change < 1 - config.clip_range) & (gain < 0)
    counted = torch.where(too_good, 1 + config.clip_range, torch.where(too_bad, 1 - config.clip_range, change))
    total = mean(counted * gain, query).mean()
    for params, each in zip(stages[:-1], support, strict=True):
        now = learner.policy.distribution(params, each.rollout.observations)
        total = total - config.inner_kl * mean(each.rollout.distribution.kl(now), each).mean()
        likelier = mean(ratio(learner, params, each), each)
        total = total + config.exploration * (weights(query.rollout) * likelier).mean()
    return total


def constant_slopes(learner: MamlPpo, data: Sequence[Episodes]) -> list[dict[str, Tensor]] | None:
    if not learner.config.first_order:
        return None
    slopes = adaptation(learner, flatten(learner.params), data[:-1])[1]
    return [{name: slope.detach() for name, slope in each.items()} for each in slopes]


@pytest.mark.parametrize(("family", "settings"), SETTINGS)
def test_the_objective_is_promps(family: str, settings: dict[str, Any]) -> None:
    learner, rollouts = made(family, **settings)
    move(learner, elsewhere(learner))
    data = episodes(learner, rollouts)
    expected = objective(learner, data, flatten(learner.params)).item()
    assert learner.update(rollouts)["objective_before"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("family", "settings"), SETTINGS)
def test_the_gradient_of_the_whole_objective_is_its_derivative(family: str, settings: dict[str, Any]) -> None:
    learner, rollouts = made(family, **settings)
    move(learner, elsewhere(learner))
    data = episodes(learner, rollouts)
    constant = constant_slopes(learner, data)
    expected = central_differences(lambda point: objective(learner, data, point, constant), flatten(learner.params))
    torch.testing.assert_close(slope_of_update(learner, rollouts), expected, rtol=1e-5, atol=1e-7)
    # Each term was at work.
    metrics = learner.update(rollouts)
    assert 0.05 < metrics["clip_fraction"] < 0.95
    assert metrics["inner_kl"] > 0.01


@pytest.mark.parametrize(("family", "settings"), SETTINGS[:3])
def test_the_first_epochs_gradient_is_that_of_the_other_mamls(family: str, settings: dict[str, Any]) -> None:
    # At the sampling parameters the ratio is 1 and the inner KL flat: what is left is the surrogate's meta-gradient.
    found = slope_of_update(*made(family, **settings))
    for name in ("maml-trpo", "maml-vpg"):
        other = slope_of_update(*iteration(name, family, inner_lr=0.5, **settings))
        torch.testing.assert_close(found, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("family", "settings"), SETTINGS[:3])
def test_in_the_first_epoch_nothing_has_moved(family: str, settings: dict[str, Any]) -> None:
    metrics = made(family, **settings)
    found = metrics[0].update(metrics[1])
    assert found["clip_fraction"] == 0
    assert found["inner_kl"] == pytest.approx(0.0, abs=1e-12)
    assert found["kl"] == pytest.approx(0.0, abs=1e-12)
    # The mean ratio is 1: the objective is the mean of the normalised advantages.
    assert found["objective_before"] == pytest.approx(0.0, abs=1e-7)


def with_ratios(learner: MamlPpo, rollouts: list[Rollout], ratios: Tensor) -> list[Rollout]:
    """Return rollouts whose query actions are ``ratios`` times as likely now as they were recorded to be."""
    query = rollouts[-1]
    return [*rollouts[:-1], replace(query, log_probs=query.log_probs - ratios.log())]


def in_turn(rollout: Rollout, *values: float) -> Tensor:
    """Return the values by turns, in the shape of the rollout's rewards."""
    return (
        torch.tensor(values, dtype=torch.float64)
        .repeat(rollout.rewards.numel())[: rollout.rewards.numel()]
        .view_as(rollout.rewards)
    )


def test_ratios_count_up_to_the_clip() -> None:
    # With clip range 0.3, 2 A becomes 1.3 A for A > 0 and 0.5 A becomes 0.7 A for A < 0; the others are not clipped.
    learner, rollouts = made(clip_range=0.3)
    gain = learner.episodes(rollouts[-1]).advantages
    ratios = in_turn(rollouts[-1], 2.0, 0.5, 1.2, 0.8, 1.0)
    counted = torch.where(gain > 0, ratios.clamp(max=1.3), ratios.clamp(min=0.7))
    expected = mean(counted * gain, learner.episodes(rollouts[-1])).mean().item()
    found = learner.update(with_ratios(learner, rollouts, ratios))
    assert found["objective_before"] == pytest.approx(expected, abs=1e-9)


def test_the_clip_fraction_counts_ratios_outside_whatever_they_gain() -> None:
    learner, rollouts = made(clip_range=0.3)
    ratios = in_turn(rollouts[-1], 2.0, 1.2, 0.5, 0.8, 1.0)
    expected = mean(((ratios > 1.3) | (ratios < 0.7)).double(), learner.episodes(rollouts[-1])).mean().item()
    assert 0 < expected < 1
    found = learner.update(with_ratios(learner, rollouts, ratios))["clip_fraction"]
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("value", "good"), [(1.5, True), (0.5, False)])
def test_what_is_clipped_pulls_no_more(value: float, good: bool) -> None:
    # All actions 1.5 times likelier: only those of A < 0 still have a slope. And the other way round.
    learner, rollouts = made(inner_kl=0.0)
    changed = with_ratios(learner, rollouts, torch.full_like(rollouts[-1].rewards, value))
    *support, query = episodes(learner, changed)
    kept = query.advantages.clamp(max=0.0) if good else query.advantages.clamp(min=0.0)

    def left(point: Tensor) -> Tensor:
        adapted = adaptation(learner, point, support)[0][-1]
        return mean(ratio(learner, adapted, query) * kept, query).mean()

    expected = central_differences(left, flatten(learner.params))
    torch.testing.assert_close(slope_of_update(learner, changed), expected, rtol=1e-5, atol=1e-7)


def test_a_wide_clip_is_no_clip() -> None:
    learner, rollouts = made(clip_range=1e6)
    ratios = in_turn(rollouts[-1], 3.0, 0.2)
    query = learner.episodes(rollouts[-1])
    expected = mean(ratios * query.advantages, query).mean().item()
    found = learner.update(with_ratios(learner, rollouts, ratios))
    assert found["objective_before"] == pytest.approx(expected, abs=1e-9)
    assert found["clip_fraction"] == 0


def shifted(rollout: Rollout, shift: float, widening: float) -> Rollout:
    """Return a rollout as one that a policy of other means and deviations recorded; log-probabilities stay."""
    recorded = rollout.distribution
    assert isinstance(recorded, DiagonalGaussian)
    return replace(rollout, distribution=DiagonalGaussian(recorded.mean + shift, recorded.log_std + widening))


def gaussian_kl(shift: float, widening: float) -> float:
    """KL(N(m + shift, (s e^widening)^2) || N(m, s^2)) of two actions, for s = 1."""
    return 2 * (-widening + (math.exp(2 * widening) + shift**2) / 2 - 0.5)


def test_the_inner_kl_is_from_those_that_sampled_to_those_of_now() -> None:
    learner, rollouts = made(inner_kl=0.7)
    before = learner.update(rollouts)["objective_before"]
    learner, _ = made(inner_kl=0.7)
    found = learner.update([shifted(rollouts[0], 0.4, 0.3), rollouts[1]])
    expected = gaussian_kl(0.4, 0.3)
    assert found["inner_kl"] == pytest.approx(expected, rel=1e-9)
    assert found["objective_before"] == pytest.approx(before - 0.7 * expected, rel=1e-9)
    # The other direction is another number: KL(N(0, 1) || N(0.4, e^0.6)) = 2 (0.3 + (1 + 0.16) e^-0.6 / 2 - 0.5).
    assert abs(expected - 2 * (0.3 + 1.16 * math.exp(-0.6) / 2 - 0.5)) > 0.05


def test_the_inner_kl_pulls_back_to_those_that_sampled() -> None:
    # All else away: the gradient of -0.7 KL, whose slope on log_std is -0.7 * (1 - e^0.6 - 0.16) for each action.
    learner, rollouts = made(inner_kl=0.7)
    flat = [replace(rollout, rewards=torch.zeros_like(rollout.rewards)) for rollout in rollouts]
    found = unflatten(slope_of_update(learner, [shifted(flat[0], 0.4, 0.3), flat[1]]), learner.params)
    expected = torch.full((2,), -0.7 * (1 - math.exp(0.6) - 0.16), dtype=torch.float64)
    torch.testing.assert_close(found["log_std"], expected, rtol=1e-9, atol=1e-12)
    assert (found["log_std"] > 0).all()


def test_the_inner_kl_sums_over_inner_steps() -> None:
    # Two inner steps; the second stage's deviation is its own: KL is measured against s = e^log_std of each task.
    learner, rollouts = made(inner_steps=2)
    changed = [shifted(rollouts[0], 0.4, 0.3), shifted(rollouts[1], -0.2, 0.1), rollouts[2]]
    data = episodes(learner, changed)
    stages, _ = adaptation(learner, flatten(learner.params), data[:-1])
    terms = []
    for params, shift, widening in ((stages[0], 0.4, 0.3), (stages[1], -0.2, 0.1)):
        spread = -widening + (math.exp(2 * widening) - 1) / 2
        terms.append((2 * spread + shift**2 * (-2 * params["log_std"]).exp().sum(-1) / 2).mean().item())
    assert learner.update(changed)["inner_kl"] == pytest.approx(sum(terms), rel=1e-9)


def test_the_query_rollout_has_no_part_in_the_inner_kl() -> None:
    learner, rollouts = made()
    found = learner.update([rollouts[0], shifted(rollouts[1], 0.4, 0.3)])
    assert found["inner_kl"] == pytest.approx(0.0, abs=1e-12)
    assert found["kl"] > 0.1


@pytest.mark.parametrize("epochs", [1, 3])
def test_every_epoch_is_one_step_of_adam_from_where_the_last_one_led(epochs: int) -> None:
    # Torch's Adam on one vector, with the objective adapted anew at each point.
    learner, rollouts = made(epochs=epochs, outer_lr=0.05, inner_steps=2, exploration=0.3)
    data = episodes(learner, rollouts)
    point = flatten(learner.params).clone().requires_grad_()
    optimizer = torch.optim.Adam([point], lr=0.05, maximize=True)
    values = []
    for _ in range(epochs):
        optimizer.zero_grad()
        value = objective(learner, data, point)
        value.backward()
        optimizer.step()
        values.append(value.item())
    metrics = learner.update(rollouts)
    torch.testing.assert_close(flatten(learner.params), point.detach(), rtol=1e-9, atol=1e-11)
    assert metrics["objective_before"] == pytest.approx(values[0], abs=1e-12)
    assert metrics["objective_last_epoch"] == pytest.approx(values[-1], abs=1e-12)


def test_adam_counts_every_epoch() -> None:
    learner, rollouts = made(epochs=3)
    for _ in range(2):
        learner.update(rollouts)
    steps = {int(entry["step"]) for entry in learner.state_dict()["moments"].values()}
    assert steps == {6}


def test_an_update_climbs_the_objective() -> None:
    learner, rollouts = made(epochs=5)
    data, before = episodes(learner, rollouts), flatten(learner.params).clone()
    learner.update(rollouts)
    assert objective(learner, data, flatten(learner.params)) > objective(learner, data, before) + 1e-3


def test_a_heavier_inner_kl_keeps_the_policy_before_adaptation_closer() -> None:
    moved = []
    for weight in (0.0, 100.0):
        learner, rollouts = made(epochs=10, outer_lr=0.02, inner_kl=weight)
        moved.append(learner.update(rollouts)["inner_kl"])
    assert moved[1] < 0.5 * moved[0]


def test_means_over_steps_do_not_see_after_the_end() -> None:
    learner, rollouts = made(exploration=0.3)
    expected = slope_of_update(learner, rollouts)
    junk = [
        replace(rollout, actions=torch.where(rollout.valid.unsqueeze(-1), rollout.actions, 3.0)) for rollout in rollouts
    ]
    assert all(not rollout.valid.all() for rollout in rollouts)
    assert torch.equal(slope_of_update(learner, junk), expected)


@pytest.mark.parametrize("which", [0, 1], ids=["support", "query"])
@pytest.mark.parametrize("name", ["rewards", "observations", "actions", "log_probs"])
def test_an_update_from_nan_changes_nothing_and_says_so(name: str, which: int) -> None:
    learner, rollouts = made(epochs=3)
    refuses_nan(learner, rollouts, which, name)
    assert not learner.state_dict()["moments"]


def test_an_update_that_breaks_in_a_later_epoch_changes_nothing_either() -> None:
    # The first step leads so far away that the second epoch's KL is infinite.
    learner, rollouts = made(epochs=3, outer_lr=1e200)
    before = flatten(learner.params).clone()
    with pytest.raises(RunError, match="not finite"):
        learner.update(rollouts)
    assert torch.equal(flatten(learner.params), before)
    assert not learner.state_dict()["moments"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
        ({"clip_range": 0.0}, "clip_range must be positive, not 0.0"),
        ({"clip_range": -0.3}, "clip_range must be positive, not -0.3"),
        ({"inner_kl": -1.0}, "inner_kl must be 0 or more, not -1.0"),
        ({"inner_kl": math.nan}, "inner_kl must be 0 or more, not nan"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}$"):
        MamlPpoConfig(**bad)


def test_no_inner_kl_and_no_exploration_are_settings_too() -> None:
    assert MamlPpoConfig(inner_kl=0.0, exploration=0.0).inner_kl == 0


def test_the_clip_range_decays_with_each_update() -> None:
    learner, rollouts = iteration("maml-ppo", clip_range=0.4, clip_decay=0.5, epochs=1)
    with float64():
        ranges = [learner.update(rollouts)["clip_range"] for _ in range(3)]
    assert ranges == [0.4, 0.2, 0.1]


@pytest.mark.parametrize(
    ("kl", "weight"), [(0.0016, 6.0), (0.0015, 3.0), (0.001, 3.0), (0.0007, 3.0), (0.0006, 1.5), (0.0, 1.5)]
)
def test_a_weight_follows_its_target(kl: float, weight: float) -> None:
    # The target is 0.001: between two thirds and 1.5 times it the weight stays.
    assert adapted_weight(3.0, kl, target=0.001) == weight


def test_each_inner_steps_weight_is_adapted_to_the_divergence_after_the_update() -> None:
    learner, rollouts = iteration("maml-ppo", inner_steps=2, inner_kl=0.01, target_inner_kl=1e-3, outer_lr=0.05)
    with float64():
        assert learner.update(rollouts)["inner_kl_weight"] == 0.01
        stages = learner.adaptation(leaf(learner.params), [learner.episodes(each) for each in rollouts[:-1]])
        expected = []
        for stage, rollout in zip(stages[:-1], rollouts[:-1], strict=True):
            kl = rollout.distribution.kl(learner.policy.distribution(stage, rollout.observations))
            means = [kl[task][rollout.valid[task]].mean() for task in range(len(kl))]
            expected.append(adapted_weight(0.01, torch.stack(means).mean().item(), 1e-3))
        assert learner.inner_kl_weights == expected
        assert expected != [0.01, 0.01]
        assert learner.update(rollouts)["inner_kl_weight"] == pytest.approx(sum(expected) / 2)


def test_each_inner_step_has_its_own_weight() -> None:
    learner, rollouts = iteration("maml-ppo", inner_steps=2, inner_kl=1.0)
    with float64():
        learner.update(rollouts)  # away from the policy that collected the rollouts, so that there is a divergence
        *support, query = [learner.episodes(rollout) for rollout in rollouts]
        params = leaf(learner.params)
        kls = [kl.item() for kl in learner._inner_kls(learner.adaptation(params, support), support)]
        assert min(kls) > 0
        objectives = []
        for weights in ([1.0, 1.0], [3.0, 1.0], [1.0, 3.0]):
            learner.inner_kl_weights = weights
            objectives.append(learner._objective(params, support, query)[0].item())
    assert objectives[0] - objectives[1] == pytest.approx(2 * kls[0], rel=1e-6)
    assert objectives[0] - objectives[2] == pytest.approx(2 * kls[1], rel=1e-6)


def test_weights_and_the_clip_range_live_on_in_the_checkpoint() -> None:
    settings = {"target_inner_kl": 1e-3, "clip_decay": 0.5}
    learner, rollouts = iteration("maml-ppo", **settings)
    with float64():
        learner.update(rollouts)
        other = iteration("maml-ppo", **settings)[0]
        other.load_state_dict(learner.state_dict())
    assert other.inner_kl_weights == learner.inner_kl_weights != [learner.config.inner_kl]
    assert other.clip_range == learner.clip_range == 0.15


def test_a_target_needs_a_weight_to_start_from() -> None:
    with pytest.raises(InputError, match="inner_kl must be positive"):
        MamlPpoConfig(inner_kl=0.0, target_inner_kl=0.01)
