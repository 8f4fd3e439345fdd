import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from metarl.devices.processes import Processes
from metarl.rollouts.returns import (
    discount_matrix,
    discounted_returns,
    discounted_sums,
    generalized_advantages,
    normalize_per_task,
    per_task_mean,
)
from tests.processes import in_threads

GARBAGE = 1e6
FACTORS = st.floats(0, 1)
SEEDS = st.integers(0, 10_000)


def episode(*numbers: float) -> Tensor:
    """Return one episode of one task, ``[1, 1, T]``."""
    return torch.tensor(numbers, dtype=torch.float32).view(1, 1, -1)


def inside(length: int, steps: int) -> Tensor:
    return (torch.arange(steps) < length).view(1, 1, -1)


def ended(at: int | None, steps: int) -> Tensor:
    """Return ``terminated``: true at step ``at``, nowhere if None."""
    return (torch.arange(steps) == (steps if at is None else at)).view(1, 1, -1)


def worked_advantages(terminated_at: int | None, gae_lambda: float) -> list[float]:
    """Advantages of rewards (1, 2, 3), values (½, 1, 1½), final value 2, at discount ½."""
    return (
        generalized_advantages(
            episode(1, 2, 3),
            episode(0.5, 1, 1.5),
            torch.full((1, 1), 2.0),
            ended(terminated_at, 3),
            inside(3, 3),
            discount=0.5,
            gae_lambda=gae_lambda,
        )
        .flatten()
        .tolist()
    )


def test_returns_by_hand() -> None:
    # Discount ½: 3, 2 + 3/2 = 3.5, 1 + 3.5/2 = 2.75.
    assert discounted_returns(episode(1, 2, 3), inside(3, 3), 0.5).flatten().tolist() == [2.75, 3.5, 3.0]


def test_returns_stop_at_the_end_of_the_episode() -> None:
    # Two steps: 2, 1 + 2/2 = 2; nothing follows.
    found = discounted_returns(episode(1, 2, GARBAGE, GARBAGE), inside(2, 4), 0.5)
    assert found.flatten().tolist() == [2.0, 2.0, 0.0, 0.0]


def test_undiscounted_returns_are_plain_sums() -> None:
    assert discounted_returns(episode(1, 2, 3), inside(3, 3), 1.0).flatten().tolist() == [6.0, 5.0, 3.0]


def test_zero_discount_leaves_the_rewards() -> None:
    assert discounted_returns(episode(1, 2, 3), inside(3, 3), 0.0).flatten().tolist() == [1.0, 2.0, 3.0]


def test_advantages_of_a_truncated_episode_at_lambda_one() -> None:
    # The final value 2 replaces the later rewards: returns 3 + 2/2 = 4, 2 + 4/2 = 4, 1 + 4/2 = 3;
    # less the values: 3 - ½, 4 - 1, 4 - 1½.
    assert worked_advantages(None, 1.0) == pytest.approx([2.5, 3.0, 2.5])


def test_advantages_of_a_terminated_episode_at_lambda_one() -> None:
    # Nothing follows: returns 3, 2 + 3/2 = 3½, 1 + 3½/2 = 2¾; less the values.
    assert worked_advantages(2, 1.0) == pytest.approx([2.25, 2.5, 1.5])


def test_advantages_of_a_truncated_episode_at_lambda_half() -> None:
    # Errors: 1 + 1/2 - ½ = 1, 2 + 1½/2 - 1 = 1¾, 3 + 2/2 - 1½ = 2½. They decay by ½·½ = ¼:
    # 2½, 1¾ + 2½/4 = 2.375, 1 + 2.375/4 = 1.59375.
    assert worked_advantages(None, 0.5) == pytest.approx([1.59375, 2.375, 2.5])


def test_advantages_of_a_terminated_episode_at_lambda_half() -> None:
    # Only the last error changes: 3 - 1½ = 1½. Then 1¾ + 1½/4 = 2.125, 1 + 2.125/4 = 1.53125.
    assert worked_advantages(2, 0.5) == pytest.approx([1.53125, 2.125, 1.5])


def test_early_termination_does_not_bootstrap() -> None:
    # Two steps of four, terminated: returns 2, 1 + 2/2 = 2; less the values ½ and 1.
    found = generalized_advantages(
        episode(1, 2, GARBAGE, GARBAGE), episode(0.5, 1, GARBAGE, GARBAGE), torch.full((1, 1), 2.0),
        ended(1, 4), inside(2, 4), 0.5, 1.0,
    )  # fmt: skip
    assert found.flatten().tolist() == pytest.approx([1.5, 1.0, 0.0, 0.0])


def test_an_early_cut_bootstraps_from_the_final_value() -> None:
    # Two steps of four, cut off: returns 2 + 2/2 = 3, 1 + 3/2 = 2½; less the values ½ and 1.
    found = generalized_advantages(
        episode(1, 2, GARBAGE, GARBAGE), episode(0.5, 1, GARBAGE, GARBAGE), torch.full((1, 1), 2.0),
        ended(None, 4), inside(2, 4), 0.5, 1.0,
    )  # fmt: skip
    assert found.flatten().tolist() == pytest.approx([2.0, 2.0, 0.0, 0.0])


@given(st.integers(1, 6), FACTORS)
@settings(deadline=None, max_examples=30)
def test_discount_matrix_entries(steps: int, factor: float) -> None:
    expected = [[factor ** (k - t) if k >= t else 0.0 for t in range(steps)] for k in range(steps)]
    torch.testing.assert_close(discount_matrix(steps, factor, torch.zeros(1)), torch.tensor(expected))


def test_discount_matrix_has_the_type_of_its_model() -> None:
    assert discount_matrix(3, 0.9, torch.zeros(1, dtype=torch.float64)).dtype == torch.float64


def returns_by_loop(rewards: list[float], length: int, discount: float) -> list[float]:
    found, following = [0.0] * len(rewards), 0.0
    for step in reversed(range(length)):
        following = rewards[step] + discount * following
        found[step] = following
    return found


def advantages_by_loop(
    rewards: list[float], values: list[float], final: float, terminates: bool, length: int, discount: float, lam: float
) -> list[float]:
    found, advantage, next_value = [0.0] * len(rewards), 0.0, 0.0 if terminates else final
    for step in reversed(range(length)):
        error = rewards[step] + discount * next_value - values[step]
        advantage = error + discount * lam * advantage
        found[step], next_value = advantage, values[step]
    return found


@given(SEEDS, st.integers(1, 7), FACTORS)
@settings(deadline=None, max_examples=30)
def test_returns_equal_a_plain_loop(seed: int, steps: int, discount: float) -> None:
    stream = torch.Generator().manual_seed(seed)
    rewards = torch.randn(2, 3, steps, generator=stream)
    lengths = torch.randint(1, steps + 1, (2, 3), generator=stream)
    found = discounted_returns(rewards, torch.arange(steps) < lengths[..., None], discount)
    expected = [
        [returns_by_loop(row.tolist(), int(length), discount) for row, length in zip(task, ends, strict=True)]
        for task, ends in zip(rewards, lengths, strict=True)
    ]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-4)


@given(SEEDS, st.integers(1, 40), FACTORS)
@settings(deadline=None, max_examples=30)
def test_sums_of_rows_longer_than_a_block_equal_a_plain_loop(seed: int, steps: int, factor: float) -> None:
    terms = torch.randn(2, 1, steps, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected = [[returns_by_loop(row.tolist(), steps, factor) for row in rows] for rows in terms]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("metarl.rollouts.returns.BLOCK", 3)  # up to three levels of blocks of blocks
        torch.testing.assert_close(discounted_sums(terms, factor), torch.tensor(expected, dtype=torch.float64))


@given(st.lists(st.tuples(st.floats(-3, 3), st.sampled_from([0.0, 0.3, 0.9, 1.0])), min_size=1, max_size=11))
@settings(deadline=None, max_examples=30)
def test_sums_with_a_factor_for_each_step_equal_a_plain_loop(steps: list[tuple[float, float]]) -> None:
    expected = [0.0]
    for term, factor in reversed(steps):
        expected.insert(0, term + factor * expected[0])
    terms, factors = torch.tensor(steps, dtype=torch.float64).T
    found = discounted_sums(torch.stack([terms, 2 * terms]), torch.stack([factors, factors]))
    once = torch.tensor(expected[:-1], dtype=torch.float64)
    torch.testing.assert_close(found, torch.stack([once, 2 * once]))


@given(SEEDS, st.integers(1, 7), FACTORS, FACTORS)
@settings(deadline=None, max_examples=30)
def test_advantages_equal_a_plain_loop(seed: int, steps: int, discount: float, lam: float) -> None:
    stream = torch.Generator().manual_seed(seed)
    rewards, values = (torch.randn(1, 3, steps, generator=stream) for _ in range(2))
    final = torch.randn(1, 3, generator=stream)
    lengths = torch.randint(1, steps + 1, (1, 3), generator=stream)
    terminates = torch.rand(1, 3, generator=stream) < 0.5
    last = torch.arange(steps) == lengths[..., None] - 1
    found = generalized_advantages(
        rewards, values, final, last & terminates[..., None], torch.arange(steps) < lengths[..., None], discount, lam
    )
    expected = [
        advantages_by_loop(
            rewards[0, e].tolist(), values[0, e].tolist(), final[0, e].item(), bool(terminates[0, e]),
            int(lengths[0, e]), discount, lam,
        )
        for e in range(3)
    ]  # fmt: skip
    torch.testing.assert_close(found[0], torch.tensor(expected), rtol=1e-4, atol=1e-4)


@given(SEEDS, st.integers(1, 5))
@settings(deadline=None, max_examples=30)
def test_nothing_after_an_end_reaches_the_advantages(seed: int, length: int) -> None:
    stream = torch.Generator().manual_seed(seed)
    rewards, values = (torch.randn(2, 2, 6, generator=stream) for _ in range(2))
    final, valid = torch.randn(2, 2, generator=stream), inside(length, 6).expand(2, 2, 6)
    terminated = torch.zeros(2, 2, 6, dtype=torch.bool)
    garbage = torch.full_like(rewards, GARBAGE)

    def normalised(rewards: Tensor, values: Tensor, terminated: Tensor) -> Tensor:
        found = generalized_advantages(rewards, values, final, terminated, valid, 0.9, 0.95)
        return normalize_per_task(found, valid)

    clean = normalised(rewards, values, terminated)
    dirty = normalised(torch.where(valid, rewards, garbage), torch.where(valid, values, garbage), terminated | ~valid)
    assert torch.equal(clean, dirty)


def test_normalised_advantages_have_mean_zero_and_deviation_one() -> None:
    values, valid = 5 + 3 * torch.randn(2, 4, 10), inside(7, 10).expand(2, 4, 10)
    kept = normalize_per_task(values, valid)[..., :7].flatten(1)
    torch.testing.assert_close(kept.mean(1), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(kept.std(1, unbiased=False), torch.ones(2), atol=1e-4, rtol=0)


def test_normalisation_by_hand() -> None:
    # Mean 2, squared deviations 1, 1: deviation 1. The third step is outside the episode.
    found = normalize_per_task(episode(1, 3, GARBAGE), inside(2, 3))
    assert found.flatten().tolist() == pytest.approx([-1.0, 1.0, 0.0], abs=1e-6)


def test_normalisation_keeps_tasks_apart_above_the_floor() -> None:
    values, valid = torch.randn(2, 3, 5), torch.ones(2, 3, 5, dtype=torch.bool)
    changed = values.clone()
    changed[1] = 3 * changed[1] - 7
    assert torch.equal(normalize_per_task(values, valid)[0], normalize_per_task(changed, valid)[0])


def test_the_floor_by_hand() -> None:
    # Standard deviations 7, 1 and 0.1: root mean square sqrt((49 + 1 + 0.01) / 3) = 4.08289, of which a tenth is 0.408.
    values = torch.tensor([[-7.0, 7.0], [4.0, 6.0], [0.9, 1.1]]).unsqueeze(1)
    found = normalize_per_task(values, torch.ones(3, 1, 2, dtype=torch.bool))
    small = 0.1 / (0.1 * (50.01 / 3) ** 0.5)
    torch.testing.assert_close(found[:, 0], torch.tensor([[-1.0, 1.0], [-1.0, 1.0], [-small, small]]))


def test_a_task_without_a_standard_deviation_leaves_the_others_alone() -> None:
    values = torch.stack([torch.randn(3, 5), torch.ones(3, 5)])
    found = normalize_per_task(values, torch.ones(2, 3, 5, dtype=torch.bool))
    alone = normalize_per_task(values[:1], torch.ones(1, 3, 5, dtype=torch.bool))
    assert torch.equal(found[:1], alone)
    assert not found[1].any()


def test_the_floor_is_that_of_the_tasks_of_all_processes() -> None:
    values, valid = torch.randn(3, 2, 4), torch.ones(3, 2, 4, dtype=torch.bool)
    values *= torch.tensor([100.0, 1.0, 0.01]).view(3, 1, 1)
    parts = [slice(0, 1), slice(1, 3)]

    def work(processes: Processes) -> Tensor:
        own = parts[processes.rank]
        return normalize_per_task(values[own], valid[own], processes)

    found, expected = torch.cat(in_threads(2, work)), normalize_per_task(values, valid)
    torch.testing.assert_close(found, expected)
    # Alone, the second process would have another floor.
    assert not torch.allclose(normalize_per_task(values[1:], valid[1:]), expected[1:], atol=1e-3)


def test_a_nan_of_one_task_reaches_all() -> None:
    values = torch.randn(2, 3, 5)
    values[0, 1, 2] = torch.nan
    assert normalize_per_task(values, torch.ones(2, 3, 5, dtype=torch.bool)).isnan().all()


def test_equal_advantages_normalise_to_zero() -> None:
    # As on a bandit that always gives a reward: no deviation to divide by, and no NaN.
    found = normalize_per_task(torch.ones(1, 4, 1), torch.ones(1, 4, 1, dtype=torch.bool))
    assert found.flatten().tolist() == [0.0] * 4


def test_per_task_mean_counts_only_valid_steps() -> None:
    # Task 0: (1 + 2 + 4) / 3; task 1: 5 / 1.
    values = torch.tensor([[[1.0, 2.0], [4.0, GARBAGE]], [[5.0, GARBAGE], [GARBAGE, GARBAGE]]])
    valid = torch.tensor([[[True, True], [True, False]], [[True, False], [False, False]]])
    torch.testing.assert_close(per_task_mean(values, valid), torch.tensor([7 / 3, 5.0]))
