"""Statistics of scores ``[seeds, tasks]``, with intervals.

A row is one trained learner, a column one task; all learners are evaluated on the same tasks. All functions accept
leading axes, ``[..., seeds, tasks]``, and keep them. The metrics are those of Agarwal et al. (2021, "Deep RL at the
edge of the statistical precipice", section 4). Their runs are independent across tasks; here one learner is evaluated
on all tasks, so its scores share the luck of its training. Therefore ``interval`` and ``share_interval`` resample whole
seeds and whole tasks; ``stratified_bootstrap`` is the paper's own interval.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metarl.errors import InputError

LEVEL = 0.95
TAIL = 0.05
RESAMPLES = 10_000

Scores = NDArray[np.float64]
Statistic = Callable[..., Scores]
Over = Literal["both", "seeds", "tasks"]


class Interval(NamedTuple):
    """A statistic and the bounds of its 95 % interval, each ``[...]``."""

    estimate: Scores
    low: Scores
    high: Scores


def mean(scores: ArrayLike) -> Scores:
    """Return the mean over seeds and tasks, ``[...]``."""
    (values,) = _checked(scores)
    average: Scores = values.mean((-2, -1))
    return average


def median(scores: ArrayLike) -> Scores:
    """Return the median over tasks of the means over seeds, ``[...]``."""
    (values,) = _checked(scores)
    middle: Scores = np.median(values.mean(-2), -1)
    return middle


def interquartile_mean(scores: ArrayLike) -> Scores:
    """Return the mean of the middle half of all seeds and tasks together, ``[...]``.

    A quarter of the scores, rounded down, is left out at either end, as ``scipy.stats.trim_mean`` does.
    """
    (values,) = _checked(scores)
    ordered = np.sort(values.reshape(*values.shape[:-2], -1), -1)
    cut = ordered.shape[-1] // 4
    average: Scores = ordered[..., cut : ordered.shape[-1] - cut].mean(-1)
    return average


def conditional_value_at_risk(scores: ArrayLike) -> Scores:
    """Return the mean of the worst 5 % of a seed's tasks, averaged over seeds, ``[...]``: CVaR at level 0.95.

    A task at the border counts with the fraction of it that completes the 5 %; of fewer than 20 tasks it is the worst.
    Scores that are means of few episodes are spread by their noise, which lowers it (Greenberg et al. 2023, RoML).
    """
    (values,) = _checked(scores)
    tasks = values.shape[-1]
    size = max(TAIL * tasks, 1.0)
    weights = np.clip(size - np.arange(tasks), 0, 1)
    average: Scores = (np.sort(values, -1) @ weights / size).mean(-1)
    return average


def optimality_gap(scores: ArrayLike, target: float = 1.0) -> Scores:
    """Return the mean shortfall of scores from ``target``, ``[...]``; scores above it count as 0."""
    (values,) = _checked(scores)
    return mean(np.maximum(target - values, 0))


def probability_of_improvement(scores: ArrayLike, others: ArrayLike) -> Scores:
    """Return the probability that a seed scores higher than a seed of another learner on the same task, ``[...]``.

    This is the share of pairs of seeds in which the first scores higher, with a tie as half a win (the Mann-Whitney
    statistic), averaged over tasks.

    Args:
        scores: ``[..., seeds, tasks]``.
        others: ``[..., other seeds, tasks]``, on the same tasks.
    """
    first, second = _checked(scores, others)
    difference = first[..., :, None, :] - second[..., None, :, :]
    share: Scores = (0.5 + 0.5 * np.sign(difference)).mean((-3, -2, -1))
    return share


def performance_profile(scores: ArrayLike, thresholds: ArrayLike, over: Over = "both") -> Interval:
    """Return the share of scores above each threshold ``[K]``, as a ``share_interval`` of ``[..., K]``.

    The intervals are pointwise; their joint coverage is lower.
    """
    (values,) = _checked(scores)
    return share_interval(mean, values[..., None, :, :] > np.reshape(thresholds, (-1, 1, 1)), over=over)


def normalize(scores: ArrayLike, no_adaptation: float, full_knowledge: float) -> Scores:
    """Normalise scores so that no adaptation is 0 and full knowledge of the task is 1.

    Both references are means over the family's tasks, so scores on easy tasks may exceed 1.

    Raises:
        InputError: unless the return with full knowledge is higher than without adaptation.
    """
    if not -np.inf < no_adaptation < full_knowledge < np.inf:
        raise InputError(
            "scores are normalised between the return without adaptation and a higher one with full knowledge, "
            f"not between {no_adaptation} and {full_knowledge}"
        )
    return (_checked(scores)[0] - no_adaptation) / (full_knowledge - no_adaptation)


def interval(statistic: Statistic, *samples: ArrayLike, over: Over = "both") -> Interval:
    """Return a statistic with its 95 % confidence interval over other seeds and other tasks.

    This is Student's t interval with jackknife variances. The statistic is recomputed leaving out each seed in turn,
    and each task in turn; each of the two gives a variance. The interval uses their sum, with the effective degrees of
    freedom of Satterthwaite (1946). The noise of single scores enters both variances and counts twice: if there is no
    other variation, the interval is too long. For a mean over only seeds, or only tasks, it is the textbook t interval.

    The variance along an axis of length 1 is unknown. With one seed the interval is about this one trained learner on
    other tasks.

    Args:
        statistic: a smooth function of the samples, such as those above except ``median``.
        samples: ``[..., seeds, tasks]`` each; all on the same tasks, with independent seeds.
        over: what varies: ``both``; only ``seeds``, if the evaluated tasks are all tasks of the family; or only
            ``tasks``, for the given trained learners.

    Raises:
        InputError: if there are fewer than two seeds or tasks to vary over, and for the median, whose variance the
            jackknife cannot estimate (Efron 1982, section 3.4).
    """
    estimate, variances, counts = _jackknife(statistic, _checked(*samples), over)
    half = _quantile(variances, counts) * np.sqrt(variances.sum(-1))
    return Interval(estimate, estimate - half, estimate + half)


def share_interval(statistic: Statistic, *samples: ArrayLike, over: Over = "both") -> Interval:
    """Return a share or probability with its 95 % interval, inside [0, 1] and of positive width even at 0 and 1.

    This is Wilson's (1927) score interval for the effective sample size (Korn and Graubard 1998), the number of
    independent trials with the jackknife variance of ``interval``. If that variance is zero, as for shares of 0 and 1,
    it is replaced by the variance that a single differing score would cause.

    Args:
        statistic: a smooth function of the samples with values in [0, 1]: the ``mean`` of successes, or
            ``probability_of_improvement``.
        samples: as in ``interval``.
        over: as in ``interval``.

    Raises:
        InputError: as ``interval`` does.
    """
    share, variances, counts = _jackknife(statistic, _checked(*samples), over)
    smallest = 1 / counts.prod(dtype=np.float64)
    variances = np.where(variances.sum(-1, keepdims=True) > 0, variances, smallest**2)
    trials = np.maximum(share * (1 - share), smallest * (1 - smallest)) / variances.sum(-1)
    quantile = _quantile(variances, counts)
    weight = quantile**2 / trials
    middle = (share + weight / 2) / (1 + weight)
    half = quantile * np.sqrt(share * (1 - share) / trials + weight / (4 * trials)) / (1 + weight)
    return Interval(share, np.clip(middle - half, 0, share), np.clip(middle + half, share, 1))


def _jackknife(statistic: Statistic, matrices: list[Scores], over: Over) -> tuple[Scores, Scores, NDArray[np.int64]]:
    """Return the statistic ``[...]``, its variances ``[..., K]`` from K sources, and the sizes of the sources ``[K]``.

    The sources are the seeds of each sample, and the tasks.
    """
    if statistic is median:
        raise InputError("the median has no jackknife interval; use interquartile_mean, or stratified_bootstrap")
    sources = [_without_each_seed(statistic, matrices, which) for which in range(len(matrices)) if over != "tasks"]
    sources += [_without_each_task(statistic, matrices)] if over != "seeds" else []
    sources = [values for values in sources if values]
    if not sources:
        needed = "2 seeds or 2 tasks" if over == "both" else f"2 {over}"
        shape = " x ".join(map(str, matrices[0].shape[-2:]))
        raise InputError(f"an interval needs at least {needed}; the scores [seeds, tasks] are {shape}")
    counts = np.array([len(values) for values in sources])
    variances = np.stack([(len(values) - 1) * np.var(values, 0) for values in sources], -1)
    return statistic(*matrices), variances, counts


def _without_each_seed(statistic: Statistic, matrices: list[Scores], which: int) -> list[Scores]:
    before, matrix, after = matrices[:which], matrices[which], matrices[which + 1 :]
    seeds = matrix.shape[-2]
    return [statistic(*before, np.delete(matrix, seed, -2), *after) for seed in range(seeds) if seeds > 1]


def _without_each_task(statistic: Statistic, matrices: list[Scores]) -> list[Scores]:
    tasks = matrices[0].shape[-1]
    return [statistic(*(np.delete(matrix, task, -1) for matrix in matrices)) for task in range(tasks) if tasks > 1]


def _quantile(variances: Scores, counts: NDArray[np.int64]) -> Scores:
    """Return Student's quantile ``[...]`` at the degrees of freedom of a sum of variances ``[..., K]``."""
    from scipy.special import stdtrit

    total = variances.sum(-1, keepdims=True)
    shares = np.divide(variances, total, out=np.full_like(variances, 1 / len(counts)), where=total > 0)
    return np.asarray(stdtrit(1 / (shares**2 / (counts - 1)).sum(-1), (1 + LEVEL) / 2))


def stratified_bootstrap(
    statistic: Statistic, *samples: ArrayLike, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return a statistic with the 95 % interval that is usual in the field: percentiles of a stratified bootstrap.

    Seeds are resampled with replacement within each task, independently of the other tasks. So the interval is about
    other seeds on the same tasks, for runs trained separately on each task. It is too short for few seeds, much too
    short if a learner's scores share the luck of its training, and ignores the choice of tasks (docs/statistics.md has
    measurements); it is provided for comparison with published intervals.

    Args:
        statistic: any of the functions above.
        samples: ``[..., seeds, tasks]`` each, resampled independently; all leading indices use the same resamples.
        resamples: number of resamples.
        seed: seed of the resampling.

    Raises:
        InputError: for samples with a single seed.
    """
    matrices = _checked(*samples)
    if min(matrix.shape[-2] for matrix in matrices) < 2 or resamples < 1:
        raise InputError("a stratified bootstrap needs at least 2 seeds of each learner, and 1 resample")
    stream = np.random.default_rng(seed)

    def drawn(matrix: Scores) -> Scores:
        shape = matrix.shape[-2:]
        chosen = stream.integers(shape[0], size=(*[1] * (matrix.ndim - 2), *shape))
        return np.take_along_axis(matrix, chosen, -2)

    values = [statistic(*map(drawn, matrices)) for _ in range(resamples)]
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return Interval(statistic(*matrices), low, high)


def _checked(*samples: ArrayLike) -> list[Scores]:
    """Return the samples as arrays of finite numbers ``[..., seeds, tasks]`` on equally many tasks.

    Raises:
        InputError: otherwise.
    """
    try:
        matrices = [np.asarray(sample, np.float64) for sample in samples]
    except (TypeError, ValueError):
        raise InputError(
            "scores must be a matrix of numbers [seeds, tasks], with as many tasks for every seed"
        ) from None
    for matrix in matrices:
        if matrix.ndim < 2 or matrix.size == 0:
            raise InputError(f"scores must be a non-empty matrix [seeds, tasks], not of shape {matrix.shape}")
        if not np.isfinite(matrix).all():
            where = np.argwhere(~np.isfinite(matrix))[0]
            raise InputError(
                f"the score of seed {where[-2]} (counted from 0) on task {where[-1]} is {matrix[tuple(where)]}; "
                "scores must be finite numbers"
            )
    if len(counts := {matrix.shape[-1] for matrix in matrices}) > 1:
        raise InputError(
            f"learners must be compared on the same tasks, not on {' and '.join(map(str, sorted(counts)))}"
        )
    return matrices
