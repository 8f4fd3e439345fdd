from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from metarl.errors import InputError
from metarl.numerics.statistics import (
    Interval,
    Over,
    Scores,
    Statistic,
    conditional_value_at_risk,
    interquartile_mean,
    interval,
    mean,
    median,
    normalize,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
    share_interval,
    stratified_bootstrap,
)

LOCATIONS = [mean, median, interquartile_mean]
SMOOTH = [mean, interquartile_mean, conditional_value_at_risk, optimality_gap]
VALUES = st.floats(-100, 100, allow_nan=False, width=16)  # few digits, so that there are ties
SHAPES = st.tuples(st.integers(2, 5), st.integers(2, 6))


@st.composite
def matrices(draw: st.DrawFn) -> Scores:
    found: Scores = draw(arrays(np.float64, SHAPES, elements=VALUES))
    return found


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Scores, Scores]:
    tasks = draw(st.integers(1, 5))
    shapes = [(draw(st.integers(1, 4)), tasks) for _ in range(2)]
    first, second = (draw(arrays(np.float64, shape, elements=VALUES)) for shape in shapes)
    return first, second


# --- Values worked out by hand ----------------------------------------------------------------------------------------

SCORES = np.array([[0.0, 1.0, 2.0, 9.0], [4.0, 1.0, 0.0, 11.0]])


def test_the_tail_is_the_worst_twentieth_of_a_seeds_tasks() -> None:
    scores = np.arange(50.0)[::-1]
    assert conditional_value_at_risk([scores[:40]]) == pytest.approx((10 + 11) / 2)
    assert conditional_value_at_risk([scores]) == pytest.approx((0 + 1 + 0.5 * 2) / 2.5)
    assert conditional_value_at_risk([scores, scores + 10]) == pytest.approx((0 + 1 + 0.5 * 2) / 2.5 + 5)


def test_statistics_by_hand() -> None:
    assert mean(SCORES) == 28 / 8
    assert median(SCORES) == 1.5  # of the tasks' means 2, 1, 1, 10
    assert interquartile_mean(SCORES) == 2.0  # of 1, 1, 2, 4: 0, 0 and 9, 11 are left out
    assert conditional_value_at_risk(SCORES) == 0.0  # fewer than 20 tasks: each seed's worst
    assert optimality_gap(SCORES) == 2 / 8  # two scores are 1 short of 1
    assert optimality_gap(SCORES, target=2.0) == 6 / 8
    assert optimality_gap(SCORES, target=-1.0) == 0


def test_probability_of_improvement_by_hand() -> None:
    # Task 0: 1 beats 0 and ties with 1, 3 beats both: 3½ of 4 pairs. Task 1: 5 and 6 against 7: none of 2 × 2 pairs.
    first, second = [[1.0, 5.0], [3.0, 6.0]], [[0.0, 7.0], [1.0, 7.0]]
    assert probability_of_improvement(first, second) == (3.5 / 4 + 0) / 2
    assert probability_of_improvement(first, [[1.0, 7.0]]) == (1.5 / 2 + 0) / 2


def test_a_performance_profile_by_hand() -> None:
    found = performance_profile(SCORES, [-1.0, 1.0, 10.0, 11.0])
    assert found.estimate.tolist() == [1, 4 / 8, 1 / 8, 0]  # strictly above
    assert (found.low < found.estimate)[:3].all()
    assert (found.estimate < found.high)[1:].all()


def test_normalised_scores_by_hand() -> None:
    assert normalize([[-150.0, -20.0], [-85.0, 110.0]], -150, -20).tolist() == [[0.0, 1.0], [0.5, 2.0]]


def test_an_interval_by_hand() -> None:
    # Means of seeds 1, 3: variance 2 / 2 = 1 with 1 degree of freedom. Means of tasks 0, 2, 4: 4 / 3 with 2.
    # Together 7/3, with (7/3)² / (1 + (16/9) / 2) = 49/17 degrees of freedom.
    scores = [[-1.0, 1.0, 3.0], [1.0, 3.0, 5.0]]
    half = stats.t.ppf(0.975, 49 / 17) * (7 / 3) ** 0.5
    np.testing.assert_allclose(interval(mean, scores), [2.0, 2 - half, 2 + half])


# --- The same as SciPy's ----------------------------------------------------------------------------------------------


@given(arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(1, 7)), elements=VALUES))
@settings(deadline=None, max_examples=50)
def test_interquartile_mean_is_a_trimmed_mean(scores: Scores) -> None:
    assert interquartile_mean(scores) == pytest.approx(stats.trim_mean(scores, 0.25, axis=None), abs=1e-9)


@given(pairs())
@settings(deadline=None, max_examples=50)
def test_probability_of_improvement_is_mann_whitneys(samples: tuple[Scores, Scores]) -> None:
    first, second = samples
    expected = stats.mannwhitneyu(first, second, axis=0, method="asymptotic").statistic / (len(first) * len(second))
    assert probability_of_improvement(first, second) == pytest.approx(expected.mean(), abs=1e-12)


@pytest.mark.parametrize("over", ["tasks", "both"])
def test_of_one_seed_it_is_students_interval_over_tasks(over: Over) -> None:
    scores = np.random.default_rng(0).exponential(size=(1, 7))
    expected = stats.ttest_1samp(scores[0], 0).confidence_interval()
    np.testing.assert_allclose(interval(mean, scores, over=over)[1:], expected)


def test_over_seeds_it_is_students_interval_of_their_means() -> None:
    scores = np.random.default_rng(0).exponential(size=(4, 7))
    expected = stats.ttest_1samp(scores.mean(1), 0).confidence_interval()
    np.testing.assert_allclose(interval(mean, scores, over="seeds")[1:], expected)


def test_of_a_difference_over_seeds_it_is_welchs_interval() -> None:
    stream = np.random.default_rng(0)
    first, second = stream.exponential(size=(4, 7)), 3 * stream.exponential(size=(6, 7))
    expected = stats.ttest_ind(first.mean(1), second.mean(1), equal_var=False).confidence_interval()
    found = interval(lambda left, right: mean(left) - mean(right), first, second, over="seeds")
    np.testing.assert_allclose(found[1:], expected)


@pytest.mark.parametrize("statistic", LOCATIONS)
def test_the_stratified_bootstrap_is_scipys_of_independent_tasks(statistic: Statistic) -> None:
    scores = np.random.default_rng(0).exponential(size=(8, 3)) * [1, 2, 5]

    def of_columns(*columns: Scores, axis: int = -1) -> Scores:
        return statistic(np.stack(columns, -1))

    expected = stats.bootstrap(
        tuple(scores.T), of_columns, n_resamples=10_000, method="percentile", vectorized=True,
        rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    # Of 10,000 values that deviate by s these percentiles have standard errors of 0.03 s, and lie 4 s apart.
    found = stratified_bootstrap(statistic, scores, resamples=10_000)
    np.testing.assert_allclose(found[1:], expected, atol=0.04 * (expected[1] - expected[0]))
    assert found.estimate == statistic(scores)


# --- What must hold of any scores -------------------------------------------------------------------------------------


@given(matrices(), st.integers(0, 99), st.sampled_from([*LOCATIONS, optimality_gap]))
@settings(deadline=None, max_examples=50)
def test_the_order_of_seeds_and_tasks_does_not_matter(scores: Scores, seed: int, statistic: Statistic) -> None:
    stream = np.random.default_rng(seed)
    shuffled = stream.permutation(stream.permutation(scores, 0), 1)
    assert statistic(shuffled) == pytest.approx(statistic(scores), abs=1e-9)
    if statistic is not median:
        np.testing.assert_allclose(interval(statistic, shuffled), interval(statistic, scores), atol=1e-6)


@given(matrices(), st.sampled_from(LOCATIONS))
@settings(deadline=None, max_examples=50)
def test_averages_lie_among_the_scores(scores: Scores, statistic: Statistic) -> None:
    assert scores.min() - 1e-9 <= statistic(scores) <= scores.max() + 1e-9
    low, high = stratified_bootstrap(statistic, scores, resamples=20)[1:]
    assert scores.min() - 1e-9 <= low <= high <= scores.max() + 1e-9


@given(matrices(), st.sampled_from([mean, interquartile_mean]), st.floats(0.5, 4), st.floats(-10, 10))
@settings(deadline=None, max_examples=50)
def test_averages_and_their_intervals_move_with_the_scores(
    scores: Scores, statistic: Statistic, factor: float, shift: float
) -> None:
    moved, still = interval(statistic, factor * scores + shift), interval(statistic, scores)
    np.testing.assert_allclose(moved, factor * np.array(still) + shift, atol=1e-6)


@given(matrices())
@settings(deadline=None, max_examples=50)
def test_the_optimality_gap_is_what_the_mean_lacks(scores: Scores) -> None:
    highest = float(scores.max())
    assert optimality_gap(scores, highest) == pytest.approx(highest - mean(scores), abs=1e-9)
    assert optimality_gap(scores) >= max(0.0, 1 - float(mean(scores))) - 1e-9


@given(pairs())
@settings(deadline=None, max_examples=50)
def test_probabilities_of_improvement_of_both_add_up_to_one(samples: tuple[Scores, Scores]) -> None:
    first, second = samples
    assert probability_of_improvement(first, second) + probability_of_improvement(second, first) == pytest.approx(1)
    assert probability_of_improvement(first, first) == 0.5
    assert 0 <= probability_of_improvement(first, second) <= 1
    if max(first.shape) > 1 or len(second) > 1:
        one, other = (share_interval(probability_of_improvement, *each) for each in (samples, samples[::-1]))
        np.testing.assert_allclose([other.low, other.high], [1 - one.high, 1 - one.low], atol=1e-9)


@given(matrices(), st.sampled_from(SMOOTH), st.sampled_from(["both", "seeds", "tasks"]))
@settings(deadline=None, max_examples=50)
def test_an_interval_holds_its_estimate(scores: Scores, statistic: Statistic, over: Over) -> None:
    found = interval(statistic, scores, over=over)
    assert found.low <= found.estimate == statistic(scores) <= found.high


@given(arrays(np.bool_, SHAPES), st.sampled_from(["both", "seeds", "tasks"]))
@settings(deadline=None, max_examples=50)
def test_the_interval_of_a_share_stays_within_0_and_1_and_never_closes(hits: Scores, over: Over) -> None:
    found = share_interval(mean, hits, over=over)
    assert 0 <= found.low <= found.estimate <= found.high <= 1
    assert found.low < found.high


@given(arrays(np.bool_, st.tuples(st.just(1), st.integers(2, 30))))
@settings(deadline=None, max_examples=50)
def test_the_ends_of_a_shares_interval_are_wilsons(hits: Scores) -> None:
    # One seed: n independent tasks. At the ends, the share is as far off as a t test at 5 % lets it be.
    tasks = hits.shape[1]
    quantile, (share, low, high) = stats.t.ppf(0.975, tasks - 1), share_interval(mean, hits)
    trials = tasks - 1 if 0 < share < 1 else tasks * (1 - 1 / tasks)
    for end in (low, high):
        if 0 < end < 1:
            assert abs(share - end) == pytest.approx(quantile * (end * (1 - end) / trials) ** 0.5)


def test_axes_in_front_are_kept() -> None:
    scores = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    for statistic in (median, *SMOOTH):
        assert statistic(scores)[1, 2] == statistic(scores[1, 2])
    for function in (interval, share_interval, partial(stratified_bootstrap, resamples=50)):
        whole, part = function(mean, scores > 0), function(mean, scores[1, 2] > 0)
        np.testing.assert_allclose([end[1, 2] for end in whole], part)
    assert performance_profile(scores, np.linspace(-1, 1, 7)).low.shape == (2, 3, 7)


def test_equal_scores_leave_no_doubt_about_their_mean() -> None:
    assert [float(end) for end in interval(mean, np.full((3, 4), 0.5))] == [0.5, 0.5, 0.5]


def test_a_bootstrap_has_the_same_ends_twice_and_others_with_another_seed() -> None:
    scores = np.random.default_rng(0).normal(size=(4, 5))
    found = [stratified_bootstrap(mean, scores, resamples=50, seed=seed) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


# --- Coverage: scores are sums of effects of mean 0 of seeds and tasks, and noise -------------------------------------

REPETITIONS = 4000  # a share of 95 % has a standard error of 0.34 %


def simulated(seeds: int, tasks: int, seed_effects: float, task_effects: float | Scores, key: int = 0) -> Scores:
    """Return normal scores ``[REPETITIONS, seeds, tasks]``; the effects of tasks may be given ``[..., 1, tasks]``."""
    stream = np.random.default_rng((seeds, tasks, key))
    own = seed_effects * stream.normal(size=(REPETITIONS, seeds, 1))
    if isinstance(task_effects, float):
        task_effects = task_effects * stream.normal(size=(REPETITIONS, 1, tasks))
    return own + task_effects + stream.normal(size=(REPETITIONS, seeds, tasks))


def coverage(found: Interval, truth: float) -> float:
    return 100 * float(((found.low <= truth) & (truth <= found.high)).mean())


@pytest.mark.parametrize("statistic", [mean, interquartile_mean])
@pytest.mark.parametrize(("seeds", "tasks"), [(3, 10), (5, 20), (10, 10)])
def test_intervals_hold_what_other_seeds_earn_on_other_tasks(seeds: int, tasks: int, statistic: Statistic) -> None:
    assert 93 < coverage(interval(statistic, simulated(seeds, tasks, 1.0, 1.0)), 0.0) < 97


@pytest.mark.parametrize("tasks", [4, 10, 40])
def test_intervals_of_one_seed_hold_what_it_earns_on_other_tasks(tasks: int) -> None:
    assert 93 < coverage(interval(mean, simulated(1, tasks, 0.0, 1.0)), 0.0) < 97


@pytest.mark.parametrize("statistic", [mean, interquartile_mean])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_intervals_over_seeds_hold_what_others_earn_on_these_tasks(seeds: int, statistic: Statistic) -> None:
    # The tasks' effects lie symmetrically about 0, and so do mean and interquartile mean.
    scores = simulated(seeds, 9, 1.0, np.linspace(-2, 2, 9))
    assert 93 < coverage(interval(statistic, scores, over="seeds"), 0.0) < 97


@pytest.mark.parametrize(("threshold", "seeds"), [(0.0, 5), (1.5, 5), (1.5, 10)])
def test_intervals_hold_the_share_of_other_scores_above_a_threshold(threshold: float, seeds: int) -> None:
    found = share_interval(mean, simulated(seeds, 20, 1.0, 1.0) > threshold)
    assert 93 < coverage(found, stats.norm.sf(threshold, scale=3**0.5)) < 97


@pytest.mark.parametrize("better", [0.0, 1.5])
def test_intervals_hold_the_probability_of_improvement(better: float) -> None:
    tasks = np.random.default_rng(0).normal(size=(REPETITIONS, 1, 20))
    first, second = (simulated(5, 20, 1.0, tasks, key) for key in (0, 1))
    found = share_interval(probability_of_improvement, first + better, second)
    assert 93 < coverage(found, stats.norm.cdf(better, scale=2)) < 97  # differences deviate by √(2 (1 + 1))


@pytest.mark.parametrize("statistic", LOCATIONS)
def test_a_stratified_bootstrap_holds_what_other_runs_earn_on_these_tasks(statistic: Statistic) -> None:
    # Its own claim: a run of each task alone, many of them, so that a run has no luck to share between tasks.
    scores = simulated(40, 5, 0.0, np.linspace(-2, 2, 5))[:2000]
    assert 93 < coverage(stratified_bootstrap(statistic, scores, resamples=300), 0.0) < 97


def test_a_stratified_bootstrap_misses_the_luck_that_a_seed_shares_between_tasks() -> None:
    scores = simulated(5, 20, 1.0, np.zeros(20))[:1000]
    assert coverage(stratified_bootstrap(mean, scores, resamples=200), 0.0) < 60
    assert coverage(interval(mean, scores, over="seeds"), 0.0) > 93


# --- Bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([[1.0, np.nan]], "the score of seed 0 (counted from 0) on task 1 is nan; scores must be finite numbers"),
        ([[1.0], [np.inf]], "the score of seed 1 (counted from 0) on task 0 is inf; scores must be finite numbers"),
        (np.zeros((0, 3)), "scores must be a non-empty matrix [seeds, tasks], not of shape (0, 3)"),
        ([1.0, 2.0], "scores must be a non-empty matrix [seeds, tasks], not of shape (2,)"),
        ([[1.0, 2.0], [3.0]], "scores must be a matrix of numbers [seeds, tasks], with as many tasks for every seed"),
        ([["a"]], "scores must be a matrix of numbers [seeds, tasks], with as many tasks for every seed"),
    ],
)
def test_scores_must_be_a_matrix_of_finite_numbers(scores: list[list[float]], message: str) -> None:
    for statistic in (median, *SMOOTH):
        with pytest.raises(InputError) as caught:
            statistic(scores)
        assert str(caught.value) == message


def test_learners_are_compared_on_the_same_tasks() -> None:
    with pytest.raises(InputError, match=r"^learners must be compared on the same tasks, not on 2 and 3$"):
        probability_of_improvement(np.zeros((2, 3)), np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("shape", "over", "needed"),
    [((1, 1), "both", "2 seeds or 2 tasks"), ((1, 4), "seeds", "2 seeds"), ((4, 1), "tasks", "2 tasks")],
)
def test_one_of_a_kind_has_no_interval(shape: tuple[int, int], over: Over, needed: str) -> None:
    message = f"^an interval needs at least {needed}; the scores \\[seeds, tasks\\] are {shape[0]} x {shape[1]}$"
    for function in (interval, share_interval):
        with pytest.raises(InputError, match=message):
            function(mean, np.ones(shape), over=over)


def test_the_median_has_no_jackknife() -> None:
    with pytest.raises(InputError, match="the median has no jackknife interval"):
        interval(median, SCORES)


@pytest.mark.parametrize(("seeds", "resamples"), [(1, 10), (2, 0)])
def test_a_stratified_bootstrap_needs_seeds_and_resamples(seeds: int, resamples: int) -> None:
    with pytest.raises(InputError, match="at least 2 seeds of each learner, and 1 resample"):
        stratified_bootstrap(mean, np.zeros((seeds, 3)), resamples=resamples)


@pytest.mark.parametrize("ends", [(1.0, 1.0), (2.0, 1.0), (0.0, np.nan), (-np.inf, 0.0), (0.0, np.inf)])
def test_normalisation_needs_two_values_in_their_order(ends: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="between the return without adaptation and a higher one with full knowledge"):
        normalize(SCORES, *ends)
