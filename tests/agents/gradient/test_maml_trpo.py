import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from metarl.agents.gradient import maml_trpo
from metarl.agents.gradient.adaptation import Adapted, Episodes, inner_step, surrogate
from metarl.agents.gradient.maml_trpo import MamlTrpo, MamlTrpoConfig
from metarl.errors import InputError, RunError
from metarl.learning.trust_region import Candidate, Step, TrustRegionConfig
from metarl.numerics.distributions import Distribution
from metarl.numerics.params import flatten, gradient, leaf, per_task, unflatten
from metarl.rollouts.rollout import Rollout
from tests.runs import central_differences, learner_and_rollouts, one_task, vector

# A large inner step makes the second-order term count.
SETTINGS: list[Any] = [
    pytest.param("navigation-2d", {"inner_lr": 0.5}, id="gaussian"),
    pytest.param("gridnavi", {"inner_lr": 0.5}, id="categorical"),
    pytest.param("navigation-2d", {"inner_lr": 0.5, "inner_steps": 2}, id="two steps"),
]


def episodes(learner: MamlTrpo, rollouts: list[Rollout]) -> list[Episodes]:
    config = learner.config
    return [Episodes.of(rollout, learner.policy, config.discount, config.gae_lambda) for rollout in rollouts]


def adapted_policy(learner: MamlTrpo, point: Tensor, data: list[Episodes], second_order: bool = True) -> Distribution:
    """Write the adaptation out: from a vector through every support rollout to the policies on the query."""
    *support, query = data
    params = per_task(unflatten(point, learner.params), query.rollout.num_tasks)
    for each in support:
        params = inner_step(learner.policy, params, each, learner.config.inner_lr, create_graph=second_order)
    return learner.policy.distribution(params, query.rollout.observations)


def objective(learner: MamlTrpo, data: list[Episodes]) -> Callable[[Tensor], Tensor]:
    """Return the outer objective as a function of the meta-parameters."""

    def function(point: Tensor) -> Tensor:
        distribution = adapted_policy(learner, point.detach().requires_grad_(), data)
        return surrogate(distribution, data[-1]).mean()

    return function


def slope_of_update(learner: MamlTrpo, rollouts: list[Rollout], monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """Return the meta-gradient that ``update`` hands to the trust-region step."""
    seen: list[Tensor] = []

    def stay(point: Tensor, slope: Tensor, product: Any, evaluate: Any, start: float, config: Any) -> Step:
        seen.append(slope)
        return Step(point, Candidate(start, 0.0), 0, False)

    with monkeypatch.context() as patch:
        patch.setattr(maml_trpo, "trust_region_step", stay)
        learner.update(rollouts)
    return seen[0]


@pytest.mark.parametrize(("family", "settings"), SETTINGS)
def test_the_meta_gradient_is_the_derivative_of_the_outer_objective(
    family: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, rollouts = learner_and_rollouts(family, **settings)
    slope = slope_of_update(learner, rollouts, monkeypatch)
    expected = central_differences(objective(learner, episodes(learner, rollouts)), vector(learner))
    torch.testing.assert_close(slope, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("family", "settings"), SETTINGS)
def test_the_first_order_meta_gradient_is_another_one(
    family: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, rollouts = learner_and_rollouts(family, **settings)
    second = slope_of_update(learner, rollouts, monkeypatch)
    learner.config = replace(learner.config, first_order=True)
    first = slope_of_update(learner, rollouts, monkeypatch)
    assert (first - second).norm() > 0.02 * second.norm()


def test_the_first_order_meta_gradient_is_the_mean_gradient_at_the_adapted_parameters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learner, rollouts = learner_and_rollouts(first_order=True, inner_lr=0.5)
    query = episodes(learner, rollouts)[-1]
    adapted = leaf(learner.adapt(learner.begin(3), rollouts[0]).params)
    value = surrogate(learner.policy.distribution(adapted, query.rollout.observations), query).sum()
    expected = flatten(cast(TensorDict, gradient(value, adapted).mean(0)))
    torch.testing.assert_close(slope_of_update(learner, rollouts, monkeypatch), expected, rtol=1e-9, atol=1e-12)


def test_the_meta_gradient_of_many_tasks_is_the_mean_of_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, rollouts = learner_and_rollouts(inner_lr=0.5)
    together = slope_of_update(learner, rollouts, monkeypatch)
    alone = [
        slope_of_update(learner, [one_task(rollout, task) for rollout in rollouts], monkeypatch) for task in range(3)
    ]
    torch.testing.assert_close(together, torch.stack(alone).mean(0), rtol=1e-8, atol=1e-11)


def mean_kl(learner: MamlTrpo, data: list[Episodes], second_order: bool) -> Callable[[Tensor], Tensor]:
    """Return the gradient of the mean KL(old adapted policies || those of a point), as a function of the point."""
    start = vector(learner)
    old = adapted_policy(learner, start.clone().requires_grad_(), data).map(Tensor.detach)

    def slope(point: Tensor) -> Tensor:
        point = point.detach().requires_grad_()
        if second_order:
            new = adapted_policy(learner, point, data)
        else:
            # First order: adapted parameters move as the meta-parameters do.
            state = learner.begin(data[-1].rollout.num_tasks)
            for each in data[:-1]:
                state = learner.adapt(state, each.rollout)
            moved = per_task(unflatten(point - start, learner.params), data[-1].rollout.num_tasks)
            new = learner.policy.distribution(cast(TensorDict, state.params + moved), data[-1].rollout.observations)
        valid = data[-1].rollout.valid
        kl = ((old.kl(new) * valid).sum((1, 2)) / valid.sum((1, 2))).mean()
        return torch.autograd.grad(kl, point)[0]

    return slope


@pytest.mark.parametrize("first_order", [False, True], ids=["second order", "first order"])
@pytest.mark.parametrize(("family", "settings"), SETTINGS)
def test_the_curvature_product_is_the_derivative_of_the_kls_gradient(
    family: str, settings: dict[str, Any], first_order: bool
) -> None:
    learner, rollouts = learner_and_rollouts(family, **settings, first_order=first_order)
    data = episodes(learner, rollouts)
    product = learner.curvature(data[:-1], data[-1])
    hessian = central_differences(mean_kl(learner, data, not first_order), vector(learner))
    direction = torch.randn(len(hessian), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(product(direction), hessian @ direction, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("family", "settings"), SETTINGS)
def test_the_curvature_goes_through_the_adaptation(family: str, settings: dict[str, Any]) -> None:
    learner, rollouts = learner_and_rollouts(family, **settings)
    data = episodes(learner, rollouts)
    direction = torch.ones_like(vector(learner))
    second = learner.curvature(data[:-1], data[-1])(direction)
    learner.config = replace(learner.config, first_order=True)
    first = learner.curvature(data[:-1], data[-1])(direction)
    assert (first - second).norm() > 0.02 * second.norm()


def curvature_matrix(learner: MamlTrpo, rollouts: list[Rollout]) -> Tensor:
    data = episodes(learner, rollouts)
    product = learner.curvature(data[:-1], data[-1])
    return torch.stack([product(row) for row in torch.eye(len(vector(learner)), dtype=torch.float64)])


@pytest.mark.parametrize(("family", "settings"), SETTINGS)
def test_the_curvature_is_symmetric(family: str, settings: dict[str, Any]) -> None:
    matrix = curvature_matrix(*learner_and_rollouts(family, **settings))
    torch.testing.assert_close(matrix, matrix.T, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("family", "settings"), SETTINGS)
def test_the_curvature_is_positive_semidefinite(family: str, settings: dict[str, Any]) -> None:
    values = torch.linalg.eigvalsh(curvature_matrix(*learner_and_rollouts(family, **settings)))
    # It is no zero matrix, and what falls below zero is rounding.
    assert values.max() > 1e-3
    assert values.min() > -1e-12


def candidate(learner: MamlTrpo, point: Tensor, data: list[Episodes]) -> Candidate:
    return Candidate(*learner._evaluate(point, data[:-1], data[-1]).tolist())


def test_a_candidate_at_the_present_parameters_finds_the_starting_objective() -> None:
    learner, rollouts = learner_and_rollouts(inner_lr=0.5)
    data = episodes(learner, rollouts)
    expected = objective(learner, data)(vector(learner)).item()
    assert candidate(learner, vector(learner), data).objective == pytest.approx(expected, abs=1e-12)


def test_a_candidate_at_the_present_parameters_finds_no_kl() -> None:
    learner, rollouts = learner_and_rollouts(inner_lr=0.5)
    assert candidate(learner, vector(learner), episodes(learner, rollouts)).kl == pytest.approx(0.0, abs=1e-12)


def elsewhere(learner: MamlTrpo) -> Tensor:
    stream = torch.Generator().manual_seed(2)
    start = vector(learner)
    return start + 0.3 * torch.randn(start.shape, dtype=start.dtype, generator=stream)


def test_a_candidate_adapts_from_its_own_parameters() -> None:
    learner, rollouts = learner_and_rollouts(inner_lr=0.5)
    data, point = episodes(learner, rollouts), elsewhere(learner)
    expected = objective(learner, data)(point).item()
    assert candidate(learner, point, data).objective == pytest.approx(expected, abs=1e-12)


def test_a_trial_does_not_keep_the_old_adaptation() -> None:
    # The mistake would be to move the adapted parameters along, with the inner gradients of the old point.
    learner, rollouts = learner_and_rollouts(inner_lr=0.5)
    data, point = episodes(learner, rollouts), elsewhere(learner)
    old = learner.adapt(learner.begin(3), rollouts[0]).params
    moved = old + per_task(unflatten(point - vector(learner), learner.params), 3)
    distribution = learner.policy.distribution(cast(TensorDict, moved), rollouts[-1].observations)
    frozen = surrogate(distribution, data[-1]).mean().item()
    assert abs(candidate(learner, point, data).objective - frozen) > 1e-3


def test_a_trials_kl_is_from_the_policies_that_sampled_to_those_of_the_point() -> None:
    learner, rollouts = learner_and_rollouts(inner_lr=0.5)
    # Other policies than the present ones, so that nothing but the recorded distribution can give the number.
    recorded = rollouts[-1].distribution.map(lambda tensor: tensor + 0.2)
    rollouts[-1] = replace(rollouts[-1], distribution=recorded)
    data, point = episodes(learner, rollouts), elsewhere(learner)
    new = adapted_policy(learner, point.requires_grad_(), data).map(Tensor.detach)
    kl = recorded.kl(new)
    valid = rollouts[-1].valid
    expected = ((kl * valid).sum((1, 2)) / valid.sum((1, 2))).mean().item()
    assert candidate(learner, point, data).kl == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("family", "settings"), SETTINGS)
def test_an_update_stays_inside_the_trust_region(family: str, settings: dict[str, Any]) -> None:
    learner, rollouts = learner_and_rollouts(family, **settings)
    data = episodes(learner, rollouts)
    metrics = learner.update(rollouts)
    # Measured anew, at the parameters that the learner has now.
    assert metrics["accepted"] == 1
    assert 0 < candidate(learner, vector(learner), data).kl <= learner.config.trust_region.max_kl


def test_an_update_improves_the_objective() -> None:
    learner, rollouts = learner_and_rollouts(inner_lr=0.5)
    data = episodes(learner, rollouts)
    before = objective(learner, data)(vector(learner)).item()
    metrics = learner.update(rollouts)
    gain = objective(learner, data)(vector(learner)).item() - before
    assert gain > 0
    assert metrics["surrogate_gain"] == pytest.approx(gain, abs=1e-9)


def test_an_update_reports_the_kl_of_the_step_it_took() -> None:
    learner, rollouts = learner_and_rollouts(inner_lr=0.5)
    data = episodes(learner, rollouts)
    metrics = learner.update(rollouts)
    assert metrics["kl"] == pytest.approx(candidate(learner, vector(learner), data).kl, rel=1e-9)


def test_when_every_candidate_is_rejected_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, rollouts = learner_and_rollouts()
    before = vector(learner)
    monkeypatch.setattr(learner, "_evaluate", lambda point, support, query: torch.tensor([-math.inf, 0.0]))
    metrics = learner.update(rollouts)
    assert metrics["accepted"] == 0
    assert torch.equal(vector(learner), before)


def test_the_curvature_uses_its_share_of_the_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, rollouts = learner_and_rollouts(episodes=4, curvature_fraction=0.5, curvature_steps=1)
    seen: list[int] = []
    whole = learner.curvature

    def spy(support: list[Episodes], query: Episodes) -> Callable[[Tensor], Tensor]:
        seen.extend(each.advantages.shape[1] for each in (*support, query))
        return whole(support, query)

    monkeypatch.setattr(learner, "curvature", spy)
    learner.update(rollouts)
    assert seen == [2, 2]


@pytest.mark.parametrize(("least", "share"), [(1, 0.25), (5, 0.25), (10, 0.5), (15, 0.75), (20, 1.0), (500, 1.0)])
def test_the_curvature_uses_at_least_so_many_steps(least: int, share: float) -> None:
    # Four episodes of five steps for each task.
    learner, _ = learner_and_rollouts(episodes=4, curvature_fraction=0.25, curvature_steps=least)
    assert learner.curvature_share(20.0) == share


def test_after_the_trained_steps_adaptation_slows_down() -> None:
    learner, rollouts = learner_and_rollouts(inner_lr=0.5, later_lr_factor=0.25)
    start = learner.begin(3)
    trained = learner.adapt(start, rollouts[0]).params - start.params
    later = learner.adapt(Adapted(start.params, 1), rollouts[0]).params - start.params
    torch.testing.assert_close(flatten(later), 0.25 * flatten(trained), rtol=1e-9, atol=1e-12)


def test_all_trained_steps_have_the_full_step_size() -> None:
    learner, rollouts = learner_and_rollouts(inner_steps=2)
    start = learner.begin(3)
    first = learner.adapt(start, rollouts[0]).params
    second = learner.adapt(Adapted(start.params, 1), rollouts[0]).params
    assert torch.equal(flatten(first), flatten(second))


def test_adaptation_weighs_what_others_recorded_by_the_likelihood_ratio() -> None:
    learner, rollouts = learner_and_rollouts()
    recorded = replace(rollouts[0], log_probs=rollouts[0].log_probs - math.log(2))
    # Actions that are twice as likely now as when they were recorded count twice.
    own = learner.adapt(learner.begin(3), rollouts[0]).params - learner.begin(3).params
    others = learner.adapt(learner.begin(3), recorded).params - learner.begin(3).params
    torch.testing.assert_close(flatten(others), 2 * flatten(own), rtol=1e-9, atol=1e-12)


def test_adaptation_takes_a_rollout_of_another_learner() -> None:
    learner, _ = learner_and_rollouts(seed=0)
    _, foreign = learner_and_rollouts(seed=1)
    adapted = flatten(learner.adapt(learner.begin(3), foreign[0]).params)
    assert adapted.isfinite().all()
    assert not torch.equal(adapted, flatten(learner.begin(3).params))


def test_adaptation_leaves_the_meta_parameters_alone() -> None:
    learner, rollouts = learner_and_rollouts()
    before = vector(learner)
    learner.adapt(learner.begin(3), rollouts[0])
    assert torch.equal(vector(learner), before)


def test_adapted_parameters_hold_no_graph() -> None:
    learner, rollouts = learner_and_rollouts()
    assert not flatten(learner.adapt(learner.begin(3), rollouts[0]).params).requires_grad


def test_a_tasks_rewards_adapt_no_other_task() -> None:
    learner, rollouts = learner_and_rollouts()
    rewards = rollouts[0].rewards.clone()
    rewards[2] = rewards[2].square()  # of the same size: the floor under the others' standard deviations stays low
    start = learner.begin(3)
    one, other = learner.adapt(start, rollouts[0]), learner.adapt(start, replace(rollouts[0], rewards=rewards))
    same = [torch.equal(flatten(one.params[task]), flatten(other.params[task])) for task in range(3)]
    assert same == [True, True, False]


def test_adapting_all_tasks_is_adapting_each() -> None:
    learner, rollouts = learner_and_rollouts()
    together = learner.adapt(learner.begin(3), rollouts[0]).params
    for task in range(3):
        alone = learner.adapt(learner.begin(1), one_task(rollouts[0], task)).params
        torch.testing.assert_close(flatten(together[task]), flatten(alone), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("which", [0, 1], ids=["support", "query"])
@pytest.mark.parametrize(
    ("name", "poison"),
    [
        ("rewards", math.nan),
        ("rewards", math.inf),
        ("observations", math.nan),
        ("actions", math.nan),
        ("log_probs", math.nan),
    ],
)
def test_an_update_from_nan_changes_nothing_and_says_so(name: str, poison: float, which: int) -> None:
    learner, rollouts = learner_and_rollouts()
    values = getattr(rollouts[which], name).clone()
    values[0, 1, 2] = poison
    rollouts[which] = replace(rollouts[which], **{name: values})
    before = vector(learner)
    with pytest.raises(RunError, match="not finite"):
        learner.update(rollouts)
    assert torch.equal(vector(learner), before)


def test_a_loaded_learner_has_the_saved_parameters() -> None:
    (one, _), (other, _) = learner_and_rollouts(seed=0), learner_and_rollouts(seed=1)
    other.load_state_dict(one.state_dict())
    assert torch.equal(vector(one), vector(other))


def test_a_saved_state_stays_when_the_learner_learns_on() -> None:
    learner, rollouts = learner_and_rollouts()
    state, before = learner.state_dict(), vector(learner)
    learner.update(rollouts)
    learner.load_state_dict(state)
    assert torch.equal(vector(learner), before)


def test_parameters_of_another_shape_are_refused() -> None:
    (small, _), (large, _) = learner_and_rollouts(), learner_and_rollouts(hidden_sizes=(6,))
    with pytest.raises(RuntimeError):
        large.load_state_dict(small.state_dict())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inner_lr": 0.0}, "inner_lr must be positive, not 0.0"),
        ({"inner_lr": -0.1}, "inner_lr must be positive, not -0.1"),
        ({"inner_lr": math.nan}, "inner_lr must be positive, not nan"),
        ({"inner_steps": 0}, "inner_steps must be at least 1, not 0"),
        ({"discount": 1.1}, r"discount must lie in \[0, 1\], not 1.1"),
        ({"gae_lambda": -0.1}, r"gae_lambda must lie in \[0, 1\], not -0.1"),
        ({"curvature_fraction": 2.0}, r"curvature_fraction must lie in \[0, 1\], not 2.0"),
        ({"later_lr_factor": -1.0}, r"later_lr_factor must lie in \[0, 1\], not -1.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MamlTrpoConfig(**settings)


@pytest.mark.parametrize(
    "settings",
    [{"max_kl": 0.0}, {"max_kl": -1.0}, {"cg_iterations": 0}, {"max_backtracks": 0}, {"backtrack_ratio": 1.5},
     {"backtrack_ratio": 0.0}, {"cg_damping": -1.0}],
    ids=str,
)  # fmt: skip
def test_a_trust_region_that_makes_no_sense_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        TrustRegionConfig(**settings)
