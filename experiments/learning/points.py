"""Evaluations in the course of training, as they are recorded."""

from metarl.experiments.learning.records import Point, rounded
from metarl.experiments.learning.variant import Variant
from metarl.run.adaptation_curve import AdaptationCurve
from metarl.run.directory import RunDirectory


def final_success(curve: AdaptationCurve, variant: Variant) -> list[list[float]] | None:
    """Return the success of each task and column, if the comparison is about it."""
    if variant.protocol is None or curve.success is None:
        return None
    final: list[list[float]] = rounded(curve.success[:, variant.columns].tolist())
    return final


def point_after(
    directory: RunDirectory,
    iteration: int,
    curve: AdaptationCurve,
    seconds: float | None,
    trained_on: AdaptationCurve | None = None,
) -> Point:
    """Return the record of an evaluation.

    Args:
        directory: of the run.
        iteration: number of iterations before it.
        curve: the evaluation.
        seconds: CPU seconds of training before it, if they are known.
        trained_on: an evaluation on training tasks, if there was one.
    """
    return Point(
        iteration=iteration,
        env_steps=int(directory.read_metrics()[-1]["env_steps"]),
        spent=rounded(curve.env_steps.tolist()),
        returns=rounded(curve.returns.mean(0).tolist()),
        success=_mean_success(curve),
        training_cpu_seconds=rounded(seconds),
        training_success=_mean_success(trained_on),
        training_returns=None if trained_on is None else rounded(trained_on.returns.mean(0).tolist()),
    )


def _mean_success(curve: AdaptationCurve | None) -> list[float] | None:
    if curve is None or curve.success is None:
        return None
    means: list[float] = rounded(curve.success.mean(0).tolist())
    return means
