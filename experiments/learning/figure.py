"""The figure of a comparison: return over training, and return over adaptation to a new task."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from math import ceil, log10
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter
from matplotlib.transforms import blended_transform_factory

from metarl.experiments.compare.figures import COLORS, MARKERS, WIDE
from metarl.experiments.learning.records import Record, list_counts
from metarl.families.references import Reference
from metarl.storage.files import write_whole

MARKS, IN_A_ROW = 12, 6
# Of the legend below a single panel.
COLUMNS = 3


def draw(name: str, records: Mapping[str, Record], reference: Reference | None, path: Path) -> None:
    """Write ``make_figure`` as a PNG."""
    save(make_figure(name, records, reference), path)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG, whole or not at all."""
    write_whole(path, lambda part: figure.savefig(part, format="png"))


def make_figure(name: str, records: Mapping[str, Record], reference: Reference | None) -> Figure:
    """Plot return against training env steps, and return against env steps spent on the new task.

    If the comparison is about success, success is plotted instead, in the first panel also that on training tasks.

    Args:
        name: name of the comparison.
        records: the measurements, by variant.
        reference: reference returns of the tasks.
    """
    with matplotlib.rc_context({"axes.spines.top": False, "axes.spines.right": False, "lines.markersize": 4}):
        figure = Figure(figsize=(11, 4.8), dpi=130, layout="constrained")
        tasks = list_counts([len(record.tasks) for record in records.values()])
        seeds = list_counts([len(record.runs) for record in records.values()])
        figure.suptitle(f"{name}: {tasks} test tasks, mean and range of {seeds} seeds", fontsize=11)
        training, adaptation = figure.subplots(1, 2, sharey=True)
        handles = []
        # Recorded episodes take no env steps.
        by_iteration = any(record.recording is not None for record in records.values())
        for color, marker, (label, record) in zip(cycle(COLORS), cycle(MARKERS), records.items(), strict=False):
            _draw_training(training, record, by_iteration, color, marker)
            _draw_range(adaptation, record.spent, _at_the_end(record), color, marker)
            handles.append(Line2D([], [], color=color, marker=marker, linewidth=2, label=label))
        handles.append(Line2D([], [], color="0.3", linestyle=":", label="before adaptation"))
        if _by_success(records):
            handles.append(Line2D([], [], color="0.3", linestyle="-.", label="on training tasks"))
        _describe(training, adaptation, records)
        training.set_xlabel("training iterations" if by_iteration else "training env steps")
        _draw_reference([training, adaptation], reference)
        columns = ceil(len(handles) / ceil(len(handles) / IN_A_ROW))
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)
    return figure


def make_adaptation_figure(
    records: Mapping[str, Record], reference: Reference | None, size: tuple[float, float]
) -> Figure:
    """Plot return against env steps spent on the new task, in a single panel.

    Args:
        records: the measurements, by label.
        reference: reference returns of the tasks.
        size: width and height in inches.
    """
    with matplotlib.rc_context({"axes.spines.top": False, "axes.spines.right": False, "lines.markersize": 5}):
        figure = Figure(figsize=size, dpi=130, layout="constrained")
        axes = figure.subplots()
        for color, marker, (label, record) in zip(cycle(COLORS), cycle(MARKERS), records.items(), strict=False):
            _draw_range(axes, record.spent, _at_the_end(record), color, marker)
            axes.plot([], [], color=color, marker=marker, linewidth=2, label=label)
        _describe_adaptation(axes, records)
        axes.set_ylabel("return of an episode")
        _draw_reference([axes], reference)
        figure.legend(loc="outside lower center", ncols=COLUMNS, frameon=False)
    return figure


def _by_success(records: Mapping[str, Record]) -> bool:
    return all(record.by_success for record in records.values())


def _at_the_end(record: Record) -> np.ndarray:
    """Return the plotted scores of the last evaluation, ``[runs, steps + 1]``."""
    return np.array([run.points[-1].success for run in record.runs]) if record.by_success else record.curves


def _draw_training(axes: Axes, record: Record, by_iteration: bool, color: str, marker: str) -> None:
    points = record.points()
    progress = "iteration" if by_iteration else "env_steps"
    steps = np.array([[getattr(point, progress) for point in runs] for runs in points]).mean(1)

    def of_seeds(name: str, column: int) -> np.ndarray:
        """Return ``[runs, points]``."""
        return np.array([[getattr(point, name)[column] for point in runs] for runs in points]).T

    measure = "success" if record.by_success else "returns"
    _draw_range(axes, steps, of_seeds(measure, record.inner_steps), color, marker)
    if len(points) > 1:
        axes.plot(steps, of_seeds(measure, 0).mean(0), ":", color=color, linewidth=2)
    if record.by_success:
        axes.plot(steps, of_seeds("training_success", record.inner_steps).mean(0), "-.", color=color, linewidth=2)


def _draw_range(axes: Axes, steps: np.ndarray, seeds: np.ndarray, color: str, marker: str) -> None:
    """Plot the mean and range of ``seeds`` ``[runs, points]``."""
    mean, low, high = seeds.mean(0), seeds.min(0), seeds.max(0)
    often = max(1, len(steps) // MARKS)
    axes.plot(steps, mean, color=color, marker=marker, markevery=often, linewidth=2)
    if len(steps) > 1:
        axes.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)
    else:
        axes.vlines(steps, low, high, color=color, alpha=0.5)


def _draw_reference(panels: Sequence[Axes], reference: Reference | None) -> None:
    """Draw reference lines, with labels to the right of the last panel."""
    last = panels[-1]
    beside = blended_transform_factory(last.transAxes, last.transData)
    for label, value in reference.lines.items() if reference else ():
        for axes in panels:
            axes.axhline(value, color="0.6", linewidth=1, linestyle="--", zorder=0)
        last.text(1.01, value, f"{label}\n{value:.4g}", transform=beside, va="center", color="0.4", fontsize=8)


def _describe(training: Axes, adaptation: Axes, records: Mapping[str, Record]) -> None:
    training.set_title("during training: after adaptation as in training", loc="left", fontsize=10)
    training.set_ylabel("share of episodes with success" if _by_success(records) else "return of an episode")
    training.xaxis.set_major_formatter(EngFormatter(sep=""))
    adaptation.set_title("after training: while adapting", loc="left", fontsize=10)
    _describe_adaptation(adaptation, records)


def _describe_adaptation(axes: Axes, records: Mapping[str, Record]) -> None:
    axes.set_xlabel("env steps spent on the new task")
    _scale(axes, [record.spent for record in records.values() if record.steps])
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _scale(axes: Axes, spent: Sequence[np.ndarray]) -> None:
    """Make the axis of env steps logarithmic from the first adaptation step on, if its range is large."""
    last = [each[-1] for each in spent]
    if last and max(last) > WIDE * min(last):
        first = min(each[1] for each in spent)
        axes.set_xscale("symlog", linthresh=first)
        axes.set_xticks([0, *(10**power for power in range(ceil(log10(first)), int(log10(max(last))) + 1))])
        axes.set_xticks([], minor=True)
