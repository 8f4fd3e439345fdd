"""The statistics of a comparison, each with its 95 % interval."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from metarl.experiments.compare.comparison import Comparison, Entry
from metarl.families.references import Reference
from metarl.numerics.statistics import (
    Interval,
    Over,
    conditional_value_at_risk,
    interquartile_mean,
    interval,
    mean,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
    share_interval,
)

# Stages of the measurements. A gain is the difference between last and before.
BEFORE, TRAINING, LAST, GAIN = "before", "as in training", "last", "gain"
MEAN, IQM, CVAR, SUCCESS = "mean return", "IQM return", "CVaR 0.95", "success"
SCORE, SCORE_IQM, GAP, BEATS = "mean score", "IQM score", "optimality gap", "probability of improvement"
# Profiles start at this percentile of all scores, because a few very low ones would compress the rest.
THRESHOLDS, FEWEST = 61, 2


@dataclass(frozen=True)
class Measure:
    """A statistic of an entry at a stage: after ``step`` adaptation steps and ``env_steps`` env steps per task.

    Attributes:
        over: the label of the entry it is compared with, if any.
    """

    entry: str
    stage: str
    step: int
    env_steps: float
    statistic: str
    estimate: float
    low: float
    high: float
    over: str = ""


@dataclass(frozen=True)
class Summary:
    """All measures of a comparison."""

    measures: Sequence[Measure]

    def find(self, entry: Entry, stage: str, statistic: str, over: str = "") -> Measure | None:
        """Return a measure, or None."""
        wanted = (entry.label, stage, statistic, over)
        found = (each for each in self.measures if (each.entry, each.stage, each.statistic, each.over) == wanted)
        return next(found, None)


def summarize(comparison: Comparison) -> Summary:
    """Compute all measures: of each entry at each stage, and of all pairs after their last steps."""
    entries, over = comparison.entries, comparison.over
    measures = [each for entry in entries for each in _measures(entry, comparison.reference, over)]
    pairs = [(one, other) for one in entries for other in entries if one is not other]
    return Summary(measures + [_improvement(one, other, over) for one, other in pairs])


def stages(entry: Entry) -> dict[str, int]:
    """Return the numbers of adaptation steps at which an entry is summarised, by stage."""
    training = {} if entry.training_step is None else {TRAINING: entry.training_step}
    return {BEFORE: 0, **training, LAST: entry.last}


def curve_interval(entry: Entry, over: Over) -> Interval:
    """Return the mean return at each step, with intervals, each ``[K + 1]``."""
    return interval(mean, _by_step(entry.returns), over=over)


def success_interval(entry: Entry, over: Over) -> Interval | None:
    """Return the success rate at each step, with intervals, if the family defines success."""
    return None if entry.success is None else share_interval(mean, _by_step(entry.success), over=over)


def profiles(comparison: Comparison) -> tuple[np.ndarray, list[Interval], bool]:
    """Return performance profiles after the last step, of normalised scores if they are known, else of returns.

    Returns:
        Thresholds ``[K]``, each entry's share above them, and whether they are normalised scores.
    """
    reference = _scale(comparison.reference)
    values = [entry.returns[..., -1] for entry in comparison.entries]
    scores = values if reference is None else [reference.normalize(matrix) for matrix in values]
    together = np.concatenate([matrix.flatten() for matrix in scores])
    thresholds = np.linspace(np.percentile(together, FEWEST), together.max(), THRESHOLDS)
    return thresholds, [performance_profile(matrix, thresholds, comparison.over) for matrix in scores], bool(reference)


def _measures(entry: Entry, reference: Reference | None, over: Over) -> Iterator[Measure]:
    for stage, step in stages(entry).items():
        returns = entry.returns[..., step]
        yield _measure(entry, stage, step, MEAN, interval(mean, returns, over=over))
        yield _measure(entry, stage, step, IQM, interval(interquartile_mean, returns, over=over))
        yield _measure(entry, stage, step, CVAR, interval(conditional_value_at_risk, returns, over=over))
        if entry.success is not None:
            rates = share_interval(mean, entry.success[..., step], over=over)
            yield _measure(entry, stage, step, SUCCESS, rates)
        if (scale := _scale(reference)) is not None:
            scores = scale.normalize(returns)
            yield _measure(entry, stage, step, SCORE, interval(mean, scores, over=over))
            yield _measure(entry, stage, step, SCORE_IQM, interval(interquartile_mean, scores, over=over))
            gap, low, high = interval(optimality_gap, scores, over=over)
            yield _measure(entry, stage, step, GAP, Interval(gap, np.maximum(low, 0), high))
    gains = entry.returns[..., -1] - entry.returns[..., 0]
    yield _measure(entry, GAIN, entry.last, MEAN, interval(mean, gains, over=over))
    yield _measure(entry, GAIN, entry.last, IQM, interval(interquartile_mean, gains, over=over))


def _improvement(one: Entry, other: Entry, over: Over) -> Measure:
    share = share_interval(probability_of_improvement, one.returns[..., -1], other.returns[..., -1], over=over)
    return _measure(one, LAST, one.last, BEATS, share, other.label)


def _measure(entry: Entry, stage: str, step: int, statistic: str, value: Interval, over: str = "") -> Measure:
    estimate, low, high = (float(number) for number in value)
    return Measure(entry.label, stage, step, float(entry.env_steps[step]), statistic, estimate, low, high, over)


def _by_step(values: np.ndarray) -> np.ndarray:
    """Return ``[S, N, K + 1]`` as ``[K + 1, S, N]``."""
    return np.moveaxis(values, -1, 0)


def _scale(reference: Reference | None) -> Reference | None:
    """Return the reference if scores can be normalised with it."""
    return reference if reference is not None and reference.full_knowledge is not None else None
