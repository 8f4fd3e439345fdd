"""Made-up results of comparisons."""

from collections.abc import Sequence
from typing import Any

from metarl.experiments.learning.records import Point, Record, SeedRun


def point(
    iteration: int,
    returns: Sequence[float],
    env_steps: int = 1000,
    spent: float = 10.0,
    success: list[float] | None = None,
) -> Point:
    """Return an evaluation with ``spent`` env steps for each adaptation step, with twice the success in training."""
    values = [float(value) for value in returns]
    return Point(
        iteration=iteration,
        env_steps=env_steps * iteration,
        spent=[spent * step for step in range(len(values))],
        returns=values,
        success=success,
        training_cpu_seconds=60.0 * iteration,
        training_success=None if success is None else [2 * share for share in success],
    )


def seed_run(seed: int, points: Sequence[Point], tasks: int = 2, of_trials: bool = False) -> SeedRun:
    """Return a run whose last returns are the same in all tasks."""
    returns = points[-1].returns
    totals = [sum(returns)] * tasks if of_trials else None
    success = None if points[-1].success is None else [points[-1].success] * tasks
    protocol = None if success is None else {"all": 0.25, "door-close-v3": 0.25}
    return SeedRun(seed, {"torch": "2"}, list(points), [returns] * tasks, totals, success, protocol)


def record(*runs: SeedRun, inner_steps: int = 1, learner: str = "maml-trpo", **settings: Any) -> Record:
    """Return what was measured of a variant."""
    tasks = [{"goal": [number, 0]} for number in range(len(runs[0].final_returns))]
    config = {"learner": learner, "run": {"episodes_per_task": 2}, "settings": settings}
    steps = len(runs[0].points[-1].spent) - 1
    return Record("python ...", config, steps, inner_steps, [*range(steps + 1)], tasks, list(runs))
