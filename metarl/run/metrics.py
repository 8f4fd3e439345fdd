"""The metrics of a run: names, meanings and x-axes, and the rows that trackers log."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from metarl.run.adaptation_curve import AdaptationCurve

Axis = Literal["iteration", "env_steps", "adaptation_step"]
# Task parameters with up to this many numbers get a column for each; larger ones, such as mazes, become one string.
COLUMNS_OF_A_PARAMETER = 4
VALIDATION = "validation/"
VALIDATION_TASKS = 20


@dataclass(frozen=True)
class Metric:
    """The meaning of a metric, its x-axis, and whether it is a column of metrics.csv."""

    meaning: str
    axis: Axis = "iteration"
    in_file: bool = True


def _returns(prefix: str, tasks: str) -> dict[str, Metric]:
    meanings = {
        "return_before": f"mean undiscounted return on {tasks} before adaptation",
        "return_after": f"mean undiscounted return on {tasks} after the last inner step",
        "gain": f"`{prefix}return_after` minus `{prefix}return_before`",
        "success_before": f"success rate on {tasks} before adaptation, if the family defines success",
        "success_after": f"success rate on {tasks} after the last inner step, if the family defines success",
    }
    return {f"{prefix}{name}": Metric(meaning, "env_steps") for name, meaning in meanings.items()}


METRICS = {
    "iteration": Metric("counted from 0"),
    "env_steps": Metric("environment steps in training episodes so far, including this iteration's"),
    "env_steps_per_second": Metric("this iteration's environment steps divided by `time_iteration`"),
    **_returns("", "this iteration's training tasks"),
    "time_sampling": Metric("seconds spent in environments and policy, over all rollouts"),
    "time_adaptation": Metric("seconds spent in inner steps between rollouts"),
    "time_update": Metric("seconds spent in the outer update, including its own inner steps"),
    "time_iteration": Metric("seconds of the whole iteration, without validation"),
    "diverged": Metric("1 if the run ended after this iteration because training had diverged, else 0"),
    **_returns(VALIDATION, f"up to {VALIDATION_TASKS} validation tasks"),
    "charts/episodic_return": Metric("`return_after`, as openrlbenchmark calls it", "env_steps", in_file=False),
    "global_step": Metric("`env_steps`, as openrlbenchmark calls it", in_file=False),
    "parameters/*": Metric("histogram of each tensor of parameters, with `--histogram-every`", in_file=False),
    **{
        name: Metric(meaning, "adaptation_step", in_file=False)
        for name, meaning in {
            "adaptation_step": "adaptation steps taken on the held-out tasks, from 0",
            "adaptation/return": "mean undiscounted return of the held-out tasks after that step: validation tasks at "
            "the end of training, the requested tasks in an evaluation",
            "adaptation/success": "success rate on them after that step, if the family defines success",
            "adaptation/env_steps": "mean environment steps spent on a task before the episodes of that step",
            "adaptation/gain": "mean return after the last step minus before the first; in the summary",
            "adaptation_curve": "figure: return by adaptation step",
            "held_out_tasks": "table: each task's parameters, its return (and success) at each step, its gain",
            "videos/*": "each video in the run directory, by file name",
        }.items()
    },
}


def returns_row(returns: Sequence[float], success: Sequence[float] | None = None, prefix: str = "") -> dict[str, float]:
    """Return the columns for returns (and success) before adaptation (first entry) and after it (last entry)."""
    row = {"return_before": returns[0], "return_after": returns[-1], "gain": returns[-1] - returns[0]}
    if success is not None:
        row |= {"success_before": success[0], "success_after": success[-1]}
    return {f"{prefix}{name}": value for name, value in row.items()}


def tracked_row(row: Mapping[str, float | None]) -> dict[str, float]:
    """Return what a tracker logs of an iteration: its metrics, also under the names that openrlbenchmark reads."""
    measured = {name: value for name, value in row.items() if value is not None}
    return {**measured, "charts/episodic_return": measured["return_after"], "global_step": measured["env_steps"]}


def curve_rows(curve: AdaptationCurve) -> list[dict[str, float]]:
    """Return the means over tasks of an adaptation curve, with a row for each step."""
    columns: dict[str, np.ndarray] = {
        "adaptation_step": np.arange(curve.returns.shape[1]),
        "adaptation/return": curve.returns.mean(0),
        "adaptation/env_steps": curve.env_steps,
    }
    if curve.success is not None:
        columns["adaptation/success"] = curve.success.mean(0)
    return [{name: float(values[step]) for name, values in columns.items()} for step in range(curve.returns.shape[1])]


def task_table(curve: AdaptationCurve) -> tuple[list[str], list[list[Any]]]:
    """Return column names, and a row for each held-out task: parameters, returns, gain, and success if defined."""
    rows = []
    for index, task in enumerate(curve.tasks):
        row: dict[str, Any] = {"task": index}
        for name, value in sorted(task.items()):
            row |= _columns(name, value.cpu().numpy())
        row |= {f"return_{step}": float(value) for step, value in enumerate(curve.returns[index])}
        row["gain"] = float(curve.gains[index])
        if curve.success is not None:
            row |= {f"success_{step}": float(value) for step, value in enumerate(curve.success[index])}
        rows.append(row)
    return list(rows[0]), [list(row.values()) for row in rows]


def _columns(name: str, value: np.ndarray) -> dict[str, Any]:
    if value.ndim == 0:
        return {name: value.item()}
    if value.size <= COLUMNS_OF_A_PARAMETER:
        return {f"{name}_{index}": number for index, number in enumerate(value.reshape(-1).tolist())}
    return {name: str(value.tolist())}
