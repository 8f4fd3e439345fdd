"""Coverage of 95 % intervals: those of ``metarl.numerics.statistics``, and commonly used bootstraps.

    python benchmarks/interval_coverage.py

Scores [seeds, tasks] are simulated as the sum of an effect of the seed, one of the task and noise of each score,
whose standard deviations each line names, so that the truth is known. All kinds of interval in a line see the same
scores. The share of intervals that contain the truth, in percent, and their mean length are printed. The
standard error of a share of 95 % is 0.5 at 2000 repetitions.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from metarl.numerics.statistics import (
    Interval,
    Scores,
    Statistic,
    conditional_value_at_risk,
    interquartile_mean,
    interval,
    mean,
    probability_of_improvement,
    share_interval,
    stratified_bootstrap,
)

RESULTS = Path(__file__).parent / "results" / "interval_coverage.json"
SIZES = [(3, 10), (3, 40), (5, 20), (10, 10), (10, 40), (40, 20)]
IQM = interquartile_mean

Line = tuple[str, float | Scores, dict[str, Interval]]


@dataclass(frozen=True)
class World:
    """The model of scores: standard deviations of the effects of seeds and tasks, and of the noise."""

    seeds: float
    tasks: float
    noise: float = 1.0
    exponential: bool = False

    def __str__(self) -> str:
        shape = "exponential" if self.exponential else "normal"
        return f"{shape}, seeds {self.seeds:g} tasks {self.tasks:g} noise {self.noise:g}"

    def draw(self, stream: np.random.Generator, *shape: int) -> Scores:
        """Draw effects of mean 0 and standard deviation 1."""
        return stream.exponential(size=shape) - 1 if self.exponential else stream.standard_normal(shape)

    def scores(self, stream: np.random.Generator, repetitions: int, seeds: int, task_effects: Scores) -> Scores:
        """Draw scores ``[repetitions, seeds, tasks]`` on tasks with effects ``[..., 1, tasks]``."""
        own = self.seeds * self.draw(stream, repetitions, seeds, 1)
        noise = self.noise * self.draw(stream, repetitions, seeds, task_effects.shape[-1])
        return own + self.tasks * task_effects + noise

    def truth(self, statistic: Statistic = IQM, task_effects: Scores | None = None) -> float:
        """Return a statistic over very many seeds, on very many tasks or the given ones."""
        stream, found = np.random.default_rng(0), []
        for _ in range(20):
            effects = self.draw(stream, 1, 2000) if task_effects is None else task_effects
            found.append(statistic(self.scores(stream, 1, 2000, effects)))
        return float(np.mean(found))


def percentiles(
    statistic: Statistic, scores: Scores, resamples: int, seeds: bool = False, tasks: bool = False
) -> Interval:
    """Return the percentile interval of a bootstrap that resamples whole seeds, whole tasks, or both."""
    stream, values = np.random.default_rng(0), []
    for _ in range(resamples):
        drawn = scores
        for axis, resampled in ((-2, seeds), (-1, tasks)):
            count = scores.shape[axis]
            drawn = np.take(drawn, stream.integers(count, size=count), axis) if resampled else drawn
        values.append(statistic(drawn))
    low, high = np.quantile(values, [0.025, 0.975], axis=0)
    return Interval(statistic(scores), low, high)


def bca(values: Scores, resamples: int) -> Interval:
    """Return SciPy's bias-corrected and accelerated bootstrap interval of the mean of ``[..., n]``."""
    stream = np.random.default_rng(0)
    found = stats.bootstrap((values,), np.mean, axis=-1, n_resamples=resamples, batch=100, method="BCa", rng=stream)
    return Interval(values.mean(-1), *found.confidence_interval)


def one_axis(repetitions: int, resamples: int) -> Iterator[Line]:
    """Means of n independent values: seeds on all tasks of a family, or tasks for one trained learner."""
    for world in (World(0, 0), World(0, 0, exponential=True)):
        for count in (3, 4, 5, 10, 20, 40):
            values = world.scores(np.random.default_rng(count), repetitions, 1, np.zeros(count))
            found = {
                "interval": interval(mean, values),
                "percentile": percentiles(mean, values, resamples, tasks=True),
                "BCa": bca(values[:, 0], resamples),
            }
            yield f"{'exponential' if world.exponential else 'normal'}, n = {count}", 0.0, found


def both_axes(repetitions: int, resamples: int) -> Iterator[Line]:
    """Interquartile means: what would other seeds score on other tasks?"""
    for world in (World(1, 1), World(0.3, 2), World(0, 0), World(1, 1, exponential=True)):
        truth = world.truth()
        for seeds, tasks in SIZES:
            stream = np.random.default_rng(seeds * tasks)
            scores = world.scores(stream, repetitions, seeds, world.draw(stream, repetitions, 1, tasks))
            found = {
                "interval": interval(IQM, scores),
                "percentile, both": percentiles(IQM, scores, resamples, seeds=True, tasks=True),
                "percentile, tasks": percentiles(IQM, scores, resamples, tasks=True),
                "stratified": stratified_bootstrap(IQM, scores, resamples=resamples),
            }
            yield f"{world}, {seeds} x {tasks}", truth, found


def same_tasks(repetitions: int, resamples: int) -> Iterator[Line]:
    """Interquartile means: what would other seeds score on the evaluated tasks?"""
    for world in (World(1, 1), World(0, 1)):
        for seeds, tasks in SIZES:
            stream = np.random.default_rng(seeds * tasks)
            effects = world.draw(stream, 1, tasks)
            scores = world.scores(stream, repetitions, seeds, effects)
            found = {
                "interval": interval(IQM, scores, over="seeds"),
                "percentile, seeds": percentiles(IQM, scores, resamples, seeds=True),
                "stratified": stratified_bootstrap(IQM, scores, resamples=resamples),
            }
            yield f"{world}, {seeds} x {tasks}", world.truth(task_effects=effects), found


def worst_tasks(repetitions: int, resamples: int) -> Iterator[Line]:
    """CVaR at level 0.95: what would other seeds score on the worst of other tasks?"""
    for world in (World(0.3, 1, 0.3), World(1, 1, 0.3), World(0.3, 1, 0.3, exponential=True)):
        truth = world.truth(conditional_value_at_risk)
        for seeds, tasks in [(3, 40), (3, 100), (5, 200)]:
            stream = np.random.default_rng(seeds * tasks)
            scores = world.scores(stream, repetitions, seeds, world.draw(stream, repetitions, 1, tasks))
            found = {
                "interval": interval(conditional_value_at_risk, scores),
                "percentile, both": percentiles(conditional_value_at_risk, scores, resamples, seeds=True, tasks=True),
            }
            yield f"{world}, {seeds} x {tasks}", truth, found


def above_threshold(repetitions: int, resamples: int) -> Iterator[Line]:
    """Shares above a threshold: how many would other seeds have on other tasks?"""
    for threshold in (0.0, 2.0, 3.5):
        for seeds, tasks in [(1, 20), *SIZES]:
            world = World(0.5 if seeds > 1 else 0, 1)  # an interval from one seed concerns its learner only
            stream = np.random.default_rng(seeds * tasks)
            effects = world.draw(stream, repetitions, 1, tasks)
            scores = np.where(world.scores(stream, repetitions, seeds, effects) > threshold, 1.0, 0.0)
            truth = float(stats.norm.sf(threshold, scale=(world.seeds**2 + 2) ** 0.5))
            found = {
                "share_interval": share_interval(mean, scores),
                "interval": interval(mean, scores),
                "percentile, both": percentiles(mean, scores, resamples, seeds=True, tasks=True),
            }
            yield f"share {truth:.3f}, {seeds} x {tasks}", truth, found


def improvement(repetitions: int, _: int) -> Iterator[Line]:
    """Probabilities of improvement: how often would other seeds beat other seeds, on other tasks?"""
    for better in (0.0, 1.5, 3.0):
        for seeds, tasks in [(1, 20), *SIZES[:-1]]:
            world = World(0.5 if seeds > 1 else 0, 1)
            stream = np.random.default_rng(seeds * tasks)
            effects = world.draw(stream, repetitions, 1, tasks)
            first, second = (world.scores(stream, repetitions, seeds, effects) for _ in range(2))
            truth = float(stats.norm.cdf(better, scale=(2 * (world.seeds**2 + 1)) ** 0.5))
            found = {
                "share_interval": share_interval(probability_of_improvement, first + better, second),
                "interval": interval(probability_of_improvement, first + better, second),
            }
            yield f"probability {truth:.3f}, {seeds} x {tasks}", truth, found


TABLES = {
    table.__name__: table for table in (one_axis, both_axes, same_tasks, worst_tasks, above_threshold, improvement)
}


def coverage(found: Interval, truth: float | Scores) -> tuple[float, float]:
    """Return the coverage of the intervals in percent, and their mean length."""
    inside = (found.low <= truth) & (truth <= found.high)
    return round(100 * float(inside.mean()), 1), round(float((found.high - found.low).mean()), 3)


def main() -> None:
    """Simulate, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=2000, help="of each simulation")
    parser.add_argument("--resamples", type=int, default=500, help="of each bootstrap")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the numbers are written")
    options = parser.parse_args()
    if min(options.repetitions, options.resamples) < 1:
        parser.error("--repetitions and --resamples must be at least 1")
    record: dict[str, dict[str, dict[str, tuple[float, float]]]] = {}
    for name, table in TABLES.items():
        print(f"\n{table.__doc__}")
        record[name] = {}
        for label, truth, found in table(options.repetitions, options.resamples):
            record[name][label] = {kind: coverage(each, truth) for kind, each in found.items()}
            cells = [f"{kind} {share:.1f} ({length:.2f})" for kind, (share, length) in record[name][label].items()]
            print(f"{label:<48}" + "   ".join(cells), flush=True)
    shape = {"repetitions": options.repetitions, "resamples": options.resamples}
    options.json.write_text(json.dumps({**shape, "percent held, and length": record}, indent=2) + "\n")


if __name__ == "__main__":
    main()
