"""The env steps that a baseline needs on a new task to match the returns of other learners after adaptation.

    python experiments/learning/steps_to_match.py gridnavi --baseline dqn-scratch

Reads what ``learning/curve.py`` wrote. The baseline's curve is its return at the end of training, mean over held-out
tasks and seeds, against env steps spent on a task, interpolated linearly between evaluations. The others' returns are
means over the same tasks, which may be the first few of theirs.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from metarl.experiments.commands.parsing import guarded, parse
from metarl.experiments.learning.comparisons import COMPARISONS
from metarl.experiments.learning.records import Record, read_comparison, read_record
from metarl.registry import find_by_name


@dataclass(frozen=True)
class Options:
    """Print the env steps that a baseline needs on a new task to match the other learners of a comparison."""

    name: tyro.conf.Positional[str]
    """One of the comparisons in experiments/learning/comparisons.py."""
    baseline: str
    """The variant whose steps are counted."""
    results: str = "experiments/results"
    """Folder of the results."""


def first_reached(spent: np.ndarray, returns: np.ndarray, target: float) -> float | None:
    """Return where the linear interpolation between points first reaches ``target``, or None.

    Shapes: ``spent`` and ``returns`` ``[points]``.
    """
    reached = np.flatnonzero(returns >= target)
    if not len(reached):
        return None
    piece = slice(max(0, reached[0] - 1), reached[0] + 1)
    return float(np.interp(target, returns[piece], spent[piece]))


def steps_to_match(records: Mapping[str, Record], baseline: str) -> str:
    """Return a Markdown table of the baseline's env steps to match each learner's return after each adaptation step.

    Other baselines from scratch are left out.
    """
    slow = records[baseline]
    slow_returns = slow.curves.mean(0)
    others = {label: record for label, record in records.items() if label != baseline and not record.from_scratch}
    lines = [
        f"| learner | adaptation steps | env steps on the task | return | env steps of {baseline} to match |",
        "|---|---|---|---|---|",
    ]
    for label, record in others.items():
        for step, value in zip(record.columns, _returns(record, len(slow.tasks)), strict=True):
            found = first_reached(slow.spent, slow_returns, value)
            needed = f"not within {slow.spent[-1]:,.0f}" if found is None else f"{found:,.0f}"
            lines.append(f"| {'' if step else label} | {step} | {record.spent[step]:,.0f} | {value:z.2f} | {needed} |")
    return "\n".join(lines)


def _returns(record: Record, tasks: int) -> np.ndarray:
    """Return the returns of each column, mean over seeds and the first tasks."""
    returns = record.curves[:, record.columns]
    if tasks < len(record.tasks):
        returns = np.array([run.final_returns for run in record.runs])[:, :tasks].mean(1)
    mean: np.ndarray = returns.mean(0)
    return mean


def run(options: Options) -> None:
    """Print the table."""
    known = find_by_name(COMPARISONS, options.name, "comparison", "experiments/learning/comparisons.py")
    find_by_name(known, options.baseline, f"variant of {options.name}", "experiments/learning/comparisons.py")
    folder = Path(options.results) / options.name
    read_record(folder / f"{options.baseline}.json")  # raises if there are no results
    print(steps_to_match(read_comparison(folder, known), options.baseline))


if __name__ == "__main__":
    sys.exit(guarded(lambda: run(parse(Options, "python experiments/learning/steps_to_match.py", sys.argv[1:]))))
