"""Cells of the tables of docs/learning-results.md."""

import numpy as np

from metarl.experiments.learning.records import Record
from metarl.numerics.statistics import interval, mean, share_interval


def row(*cells: str) -> str:
    """Return a row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def each_seed(scores: np.ndarray) -> str:
    """Return the means over tasks of scores ``[seeds, tasks]``."""
    return ", ".join(f"{seed:z.2f}" for seed in scores.mean(1))


def with_interval(scores: np.ndarray, sign: str = "", shares: bool = False) -> str:
    """Return the mean of scores ``[seeds, tasks]`` and its 95 % interval, for other seeds and tasks.

    Args:
        scores: ``[seeds, tasks]``.
        sign: ``+`` shows the sign of positive numbers too.
        shares: whether scores are shares, whose interval lies in [0, 1].
    """
    estimate, low, high = (value.item() for value in (share_interval if shares else interval)(mean, scores))
    return f"{estimate:{sign}z.2f} [{low:{sign}z.2f}, {high:{sign}z.2f}]"


def training(record: Record) -> str:
    """Return the env steps and the CPU time of a seed's training, means over seeds; from scratch ``none``."""
    if record.from_scratch:
        return "none"
    ends = [run.points[-1] for run in record.runs]
    steps = sum(end.env_steps for end in ends) / len(ends)
    seconds = [end.training_cpu_seconds for end in ends if end.training_cpu_seconds is not None]
    time = f", {sum(seconds) / len(seconds) / 60:.1f} CPU min" if seconds else ""
    recorded = "" if record.recording is None else ", recorded episodes"
    return f"{steps:,.0f} env steps{recorded}{time}"
