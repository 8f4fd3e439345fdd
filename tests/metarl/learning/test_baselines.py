import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from metarl.learning.baselines import (
    MAX_OBSERVATION,
    PRIMAL_FEATURES,
    PROJECTED,
    RIDGE,
    LinearBaseline,
    estimate_advantages,
    linear_features,
    projected,
)
from metarl.rollouts.returns import discounted_returns, generalized_advantages, normalize_per_task
from metarl.rollouts.rollout import Rollout
from tests.fakes import made_up_rollout
from tests.forked import Child


def advantages(rollout: Rollout, discount: float = 0.9, lam: float = 0.95) -> Tensor:
    return estimate_advantages(rollout, rollout.observations, rollout.final_observations, discount, lam)


def with_second_task(rollout: Rollout, **changes: Tensor) -> Rollout:
    """Replace the rows of task 1 in the named tensors."""
    changed = {name: torch.stack([getattr(rollout, name)[0], value]) for name, value in changes.items()}
    return dataclasses.replace(rollout, **changed)


def test_features_by_hand() -> None:
    # Observation 3, at step 50: o, o², t/100, its square and cube, 1.
    found = linear_features(torch.tensor([[3.0]]), torch.tensor([50]))
    torch.testing.assert_close(found, torch.tensor([[3.0, 9.0, 0.5, 0.25, 0.125, 1.0]]))


def test_observations_are_clipped_to_ten() -> None:
    found = linear_features(torch.tensor([[-50.0]]), torch.tensor([0]))
    assert found[0, :2].tolist() == [-10.0, 100.0]


def test_features_of_a_rollout_have_two_d_plus_four_columns() -> None:
    assert linear_features(torch.zeros(2, 3, 5, 7), torch.arange(5)).shape == (2, 3, 5, 18)


def test_a_linear_target_is_recovered() -> None:
    features = torch.randn(2, 5, 20, 3)
    weights = torch.tensor([[1.0, -2.0, 0.5], [3.0, 0.0, 1.0]])
    targets = (features * weights[:, None, None]).sum(-1)
    fitted = LinearBaseline.fit(features, targets, torch.ones(2, 5, 20, dtype=torch.bool))
    torch.testing.assert_close(fitted.weights, weights, rtol=1e-4, atol=1e-4)


def test_values_are_features_times_weights() -> None:
    baseline = LinearBaseline(torch.tensor([[1.0, 2.0], [10.0, 20.0]]))
    assert baseline(torch.ones(2, 3, 4, 2))[:, 2, 3].tolist() == [3.0, 30.0]


def test_values_of_final_features_have_no_step_axis() -> None:
    assert LinearBaseline(torch.ones(2, 4))(torch.ones(2, 3, 4)).shape == (2, 3)


def test_steps_outside_episodes_do_not_count_in_the_fit() -> None:
    features, targets = torch.randn(1, 4, 10, 3), torch.randn(1, 4, 10)
    valid = (torch.arange(10) < 6).expand(1, 4, 10)
    dirty_features = torch.where(valid[..., None], features, torch.full_like(features, 1e6))
    dirty_targets = torch.where(valid, targets, torch.full_like(targets, 1e6))
    clean = LinearBaseline.fit(features, targets, valid)
    dirty = LinearBaseline.fit(dirty_features, dirty_targets, valid)
    assert torch.equal(clean.weights, dirty.weights)


def test_one_tasks_data_never_reach_anothers_baseline() -> None:
    features, targets = torch.randn(2, 4, 10, 3), torch.randn(2, 4, 10)
    valid = torch.ones(2, 4, 10, dtype=torch.bool)
    before = LinearBaseline.fit(features, targets, valid)
    features[1], targets[1] = torch.randn(4, 10, 3) * 5, torch.randn(4, 10) * 100
    after = LinearBaseline.fit(features, targets, valid)
    assert torch.equal(before(features)[0], after(features)[0])


def test_constant_features_do_not_break_the_fit() -> None:
    # As on a bandit: the observation is always 0 and the only step is step 0. The value is the mean return, ¾.
    features = linear_features(torch.zeros(1, 4, 1, 1), torch.arange(1))
    fitted = LinearBaseline.fit(features, torch.tensor([[[1.0], [1.0], [0.0], [1.0]]]), torch.ones(1, 4, 1).bool())
    torch.testing.assert_close(fitted(features), torch.full((1, 4, 1), 0.75), rtol=1e-4, atol=0)


def test_weights_are_float32() -> None:
    fitted = LinearBaseline.fit(torch.randn(1, 2, 3, 2), torch.randn(1, 2, 3), torch.ones(1, 2, 3).bool())
    assert fitted.weights.dtype == torch.float32


def test_a_baseline_never_enters_the_graph() -> None:
    with torch.enable_grad():
        features = torch.randn(1, 2, 3, 2, requires_grad=True)
        targets = torch.randn(1, 2, 3, requires_grad=True)
        fitted = LinearBaseline.fit(features, targets, torch.ones(1, 2, 3).bool())
    assert not fitted.weights.requires_grad


def test_advantages_never_enter_the_graph() -> None:
    rollout = made_up_rollout().map(lambda x: x.requires_grad_() if x.is_floating_point() else x)
    with torch.enable_grad():
        assert not advantages(rollout).requires_grad


def test_another_tasks_data_leave_a_tasks_advantages_bit_for_bit_alone_above_the_floor() -> None:
    rollout, other = made_up_rollout(seed=0), made_up_rollout(seed=1)
    changed = with_second_task(rollout, rewards=3 * other.rewards[1], observations=other.observations[1])
    assert torch.equal(advantages(rollout)[0], advantages(changed)[0])


@pytest.mark.parametrize(("scale", "shift"), [(4.0, 0.0), (1.0, 10.0), (0.25, -0.1)])
def test_scale_and_shift_of_a_tasks_rewards_hardly_change_its_advantages(scale: float, shift: float) -> None:
    # Undiscounted, a shift adds a multiple of the steps that are left, which the baseline's t/100 and 1 take up, but
    # for the ridge: that leaves an error of 0.0084 for a shift of ten deviations, and in proportion for others.
    rollout = made_up_rollout(episodes=8, steps=20)
    changed = with_second_task(rollout, rewards=scale * rollout.rewards[1] + shift)
    one, other = advantages(rollout, discount=1.0), advantages(changed, discount=1.0)
    assert torch.equal(one[0], other[0])
    torch.testing.assert_close(one[1], other[1], rtol=0, atol=0.02)


def test_advantages_have_mean_zero_and_deviation_one_within_each_task() -> None:
    found = advantages(with_second_task(made_up_rollout(), rewards=4 * torch.randn(3, 6))).flatten(1)
    torch.testing.assert_close(found.mean(1), torch.zeros(2), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.std(1, unbiased=False), torch.ones(2), rtol=0, atol=1e-4)


def test_a_task_whose_episodes_all_earn_the_same_hardly_counts() -> None:
    rollout = made_up_rollout(episodes=8, steps=20)
    # No episode is better than another: what is left of the advantages is what the baseline cannot fit.
    alike = with_second_task(rollout, rewards=torch.full((8, 20), -0.1))
    found = advantages(alike, discount=0.9)
    assert found[0].square().mean() == pytest.approx(1.0, abs=1e-3)
    assert 0 < found[1].square().mean() < 0.01


def test_advantages_are_baseline_gae_and_normalisation_in_turn() -> None:
    rollout = made_up_rollout()
    features = linear_features(rollout.observations, torch.arange(6))
    returns = discounted_returns(rollout.rewards, rollout.valid, 0.9)
    baseline = LinearBaseline.fit(features, returns, rollout.valid)
    # Six steps precede the final observation: its time is 6.
    final = baseline(linear_features(rollout.final_observations, torch.full((2, 3), 6)))
    raw = generalized_advantages(
        rollout.rewards, baseline(features), final, rollout.terminated, rollout.valid, 0.9, 0.95
    )
    torch.testing.assert_close(advantages(rollout), normalize_per_task(raw, rollout.valid))


def test_garbage_after_an_end_never_reaches_the_advantages() -> None:
    rollout = made_up_rollout()
    valid = (torch.arange(6) < 4).expand(2, 3, 6)
    clean = dataclasses.replace(rollout, valid=valid)
    dirty = dataclasses.replace(
        clean,
        rewards=torch.where(valid, rollout.rewards, torch.full_like(rollout.rewards, 1e6)),
        observations=torch.where(valid[..., None], rollout.observations, torch.full_like(rollout.observations, 1e6)),
    )
    assert torch.equal(advantages(clean), advantages(dirty))


def test_the_final_observation_counts_only_if_the_episode_was_cut_off() -> None:
    rollout = made_up_rollout()
    ended = dataclasses.replace(rollout, terminated=rollout.truncated, truncated=rollout.terminated)
    moved = torch.randn_like(rollout.final_observations)
    assert torch.equal(advantages(ended), advantages(dataclasses.replace(ended, final_observations=moved)))
    assert not torch.equal(advantages(rollout), advantages(dataclasses.replace(rollout, final_observations=moved)))


def primal(features: Tensor, returns: Tensor, valid: Tensor) -> Tensor:
    """Return the weights of the normal equations, whatever their number."""
    inputs = (features * valid.unsqueeze(-1)).flatten(1, 2).double()
    targets = (returns * valid).flatten(1, 2).unsqueeze(-1).double()
    gram = inputs.mT @ inputs + RIDGE * torch.eye(inputs.shape[-1], dtype=inputs.dtype)
    # One after the other: a batch of large ones hangs on two threads.
    solved = [torch.linalg.solve(own, target) for own, target in zip(gram, inputs.mT @ targets, strict=True)]
    return torch.stack(solved).squeeze(-1).float()


@pytest.mark.parametrize(("size", "steps"), [(PRIMAL_FEATURES, 4), (40, 4), (900, 1000)])
def test_the_primal_form_is_solved_where_it_is_small(size: int, steps: int) -> None:
    features, returns = torch.rand(2, 1, steps, size), torch.rand(2, 1, steps)
    valid = torch.ones(2, 1, steps, dtype=torch.bool)
    found = LinearBaseline.fit(features, returns, valid)
    torch.testing.assert_close(found.weights, primal(features, returns, valid), rtol=1e-3, atol=1e-5)


def test_the_dual_form_has_the_same_solution() -> None:
    features, returns = torch.rand(2, 3, 8, PRIMAL_FEATURES + 1), torch.rand(2, 3, 8)
    valid = (torch.arange(8) < 5).expand(2, 3, 8)
    found = LinearBaseline.fit(features, returns, valid)
    torch.testing.assert_close(found.weights, primal(features, returns, valid), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "samples", "kept"),
    [
        (510, 10_000, True),
        (511, 1024, True),
        (511, 1025, False),
        (MAX_OBSERVATION, 24, True),
        (MAX_OBSERVATION + 1, 24, False),
    ],
)
def test_observations_are_projected_where_the_fit_would_be_too_large(size: int, samples: int, kept: bool) -> None:
    observations = torch.rand(2, 3, size)
    found = projected(observations, samples)
    if kept:
        assert found is observations
    else:
        assert found.shape == (2, 3, PROJECTED)
        assert torch.equal(found, projected(observations, samples))


def test_projections_keep_distances_and_the_size_of_numbers() -> None:
    observations = torch.randn(30, 12_288, generator=torch.Generator().manual_seed(0))
    found = projected(observations, 24)
    assert 0.9 < found.std() < 1.1
    # The squares of Gaussian projections to 128 numbers deviate by sqrt(2 / 128) = 1/8 of their mean.
    ratios = torch.pdist(found) / torch.pdist(observations) * (12_288 / PROJECTED) ** 0.5
    assert 0.7 < ratios.min() < ratios.max() < 1.3


def test_a_baseline_on_projected_pixels_explains_what_they_show() -> None:
    # The reward is the mean brightness of a picture, which its random projections hold.
    stream = torch.Generator().manual_seed(0)
    brightness = torch.rand(1, 20, 30, 1, generator=stream)
    pictures = (brightness * torch.rand(3072, generator=stream)).clamp(0, 1)
    features = linear_features(projected(pictures, 600), torch.arange(30))
    valid = torch.ones(1, 20, 30, dtype=torch.bool)
    values = LinearBaseline.fit(features, brightness.squeeze(-1), valid)(features)
    torch.testing.assert_close(values, brightness.squeeze(-1), rtol=0, atol=0.01)


def fit_many_features() -> None:
    torch.set_num_threads(2)
    torch.manual_seed(0)
    for size in (500, PRIMAL_FEATURES, PRIMAL_FEATURES + 1):
        features = (torch.rand(4, 3, 10, size) < 0.1).float()
        fitted = LinearBaseline.fit(features, torch.randn(4, 3, 10), torch.ones(4, 3, 10, dtype=torch.bool))
        assert fitted.weights.isfinite().all()


def test_more_features_than_samples_on_two_threads_come_to_an_end(tmp_path: Path) -> None:
    # The LU factorisation of a batch hung for ever in oneMKL; only another process can be given a time limit.
    assert Child(fit_many_features, folder=tmp_path).ended().returncode == 0


def test_a_fit_that_cannot_be_solved_is_not_a_number() -> None:
    features = torch.full((1, 1, 2, 3), torch.inf)
    fitted = LinearBaseline.fit(features, torch.ones(1, 1, 2), torch.ones(1, 1, 2, dtype=torch.bool))
    assert fitted.weights.isnan().all()
