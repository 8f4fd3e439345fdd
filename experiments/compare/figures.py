"""The figures of a comparison: each narrow enough for a phone, with alternative text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import EngFormatter, FuncFormatter
from matplotlib.transforms import blended_transform_factory

from metarl.experiments.compare.comparison import Comparison, Entry
from metarl.experiments.compare.statistics import curve_interval, profiles, success_interval
from metarl.families.references import Reference
from metarl.numerics.statistics import Interval
from metarl.run.directory import RunDirectory
from metarl.storage.files import write_whole

# Okabe and Ito's colours, which colour-blind readers can distinguish, with brown for yellow, then some of Tol's muted
# ones; markers differ as well.
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C564B")
COLORS = (*OKABE_ITO, "#882255", "#999933", "#332288", "#777777")
# One more than colours, so that more entries than colours still look different.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "h", "<", "p", ">", "d")
# The axis of env steps is logarithmic if one learner uses more than this many times what another uses.
WIDE = 10
WIDTH, HEIGHT = 5.2, 3.9
STYLE: dict[Any, Any] = {
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.92",
    "lines.markersize": 4,
    "svg.hashsalt": "metarl",  # without it, the ids in a file are random
}
GREY = "0.55"
MARKED = 25
# Percentage of tasks at either end of the colour scale that are clipped to its limit.
OUTLIERS = 2


@dataclass(frozen=True)
class Picture:
    """A figure with its file name, alternative text and caption."""

    name: str
    figure: Figure
    alt: str
    caption: str

    def save(self, folder: Path) -> list[str]:
        """Write SVG and PNG; return the file names. The same data give the same bytes."""
        svg, png = f"{self.name}.svg", f"{self.name}.png"
        with matplotlib.rc_context(STYLE):
            write_whole(folder / svg, lambda part: self.figure.savefig(part, format="svg", metadata={"Date": None}))
        self.figure.set_layout_engine("none")  # keeps the layout computed before
        write_whole(folder / png, lambda part: self.figure.savefig(part, format="png", dpi=150))
        return [svg, png]


def curve_figures(comparison: Comparison) -> list[Picture]:
    """Return the figures of return and success (if defined) over adaptation, and of the final returns' distribution."""
    drawn = [_adaptation(comparison)]
    if comparison.entries[0].success is not None:
        drawn.append(_success(comparison))
    return [*drawn, _profile(comparison)]


def styles_of(entries: Sequence[Entry]) -> dict[str, tuple[str, str]]:
    """Return a colour and a marker for each label."""
    pairs = zip(cycle(COLORS), cycle(MARKERS), strict=False)
    return {entry.label: pair for entry, pair in zip(entries, pairs, strict=False)}


def _adaptation(comparison: Comparison) -> Picture:
    figure, axes = _figure()
    intervals = {entry.label: curve_interval(entry, comparison.over) for entry in comparison.entries}
    _draw_curves(axes, comparison, intervals)
    _draw_references(axes, comparison.reference)
    axes.set_ylabel("mean return of an episode")
    _legend(figure, comparison)
    alt = "Mean return against env steps spent on the new task, with 95 % intervals. " + _ends(comparison, intervals)
    caption = (
        "Mean return before adaptation (0 env steps) and after each step of it. Bands: 95 % intervals, which are "
        "symmetric about the mean and so may go beyond what full knowledge reaches."
    )
    return Picture("adaptation", figure, alt, caption)


def _success(comparison: Comparison) -> Picture:
    figure, axes = _figure()
    found = {entry.label: success_interval(entry, comparison.over) for entry in comparison.entries}
    intervals = {label: interval for label, interval in found.items() if interval is not None}
    _draw_curves(axes, comparison, intervals)
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel("share of successful episodes")
    _legend(figure, comparison)
    alt = "Share of successful episodes against env steps spent on the new task. " + _ends(comparison, intervals)
    return Picture("success", figure, alt, "Share of episodes that met the task's goal. Bands: 95 % intervals.")


def _draw_curves(axes: Axes, comparison: Comparison, intervals: Mapping[str, Interval]) -> None:
    styles = styles_of(comparison.entries)
    for entry in comparison.entries:
        color, marker = styles[entry.label]
        estimate, low, high = intervals[entry.label]
        every = max(1, len(estimate) // MARKED)
        axes.fill_between(entry.env_steps, low, high, color=color, alpha=0.18, linewidth=0)
        axes.plot(entry.env_steps, estimate, color=color, marker=marker, markevery=every, linewidth=1.8)
    spent = [entry.env_steps for entry in comparison.entries if entry.last]
    if spent and max(steps[-1] for steps in spent) > WIDE * min(steps[-1] for steps in spent):
        axes.set_xscale("symlog", linthresh=min(steps[1] for steps in spent), linscale=0.5)
        axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("env steps spent on the new task")


def _draw_references(axes: Axes, reference: Reference | None) -> None:
    """Draw the reference returns as labelled horizontal lines."""
    place = blended_transform_factory(axes.transAxes, axes.transData)
    for label, value in reference.lines.items() if reference else ():
        axes.axhline(value, color="0.45", linewidth=1, linestyle="--", zorder=1)
        text = f"{label} {value:.4g}"
        name = axes.text(1, value, text, transform=place, ha="right", va="bottom", color="0.35", size=8)
        name.set(path_effects=[withStroke(linewidth=2, foreground="white")], zorder=5)


def _profile(comparison: Comparison) -> Picture:
    figure, axes = _figure()
    thresholds, shares, normalised = profiles(comparison)
    styles = styles_of(comparison.entries)
    for entry, (estimate, low, high) in zip(comparison.entries, shares, strict=True):
        color, _ = styles[entry.label]
        axes.fill_between(thresholds, low, high, color=color, alpha=0.18, linewidth=0)
        axes.plot(thresholds, estimate, color=color, linewidth=1.8)
    what = "normalised score" if normalised else "return"
    axes.set_xlabel(f"{what} after the last step")
    axes.set_ylabel("share of tasks and seeds above it")
    axes.set_ylim(-0.02, 1.02)
    _legend(figure, comparison, markers=False)
    middles = [thresholds[np.argmin(np.abs(estimate - 0.5))] for estimate, _, _ in shares]
    named = zip(comparison.entries, middles, strict=True)
    medians = "; ".join(f"{entry.label} {middle:.3g}" for entry, middle in named)
    alt = f"Performance profiles: the share of tasks and seeds above each {what}. Half of them lie above: {medians}."
    caption = f"Performance profiles: how many tasks and seeds end above a {what}. Further right and up is better."
    return Picture("profile", figure, alt, caption)


def training_figure(comparison: Comparison) -> Picture:
    """Return the training curves."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 1.5 * HEIGHT), layout="constrained")
        panels = dict(zip(("before", "after"), figure.subplots(2, 1, sharex=True, sharey=True), strict=True))
    for when, axes in panels.items():
        for entry in comparison.entries:
            _draw_training(axes, entry, when, *styles_of(comparison.entries)[entry.label])
        axes.set_ylabel(f"return {when} adaptation")
        axes.tick_params(labelbottom=True)
    panels["after"].set_xlabel("env steps of training")
    panels["after"].xaxis.set_major_formatter(EngFormatter(sep=""))
    _legend(figure, comparison, markers=False)
    labels = ", ".join(entry.label for entry in comparison.entries)
    alt = f"Return of training tasks against env steps of training, before and after adaptation, of {labels}."
    caption = (
        "Mean return of each iteration's training tasks, a line for each run; from metrics.csv. A point is a run of a "
        "single iteration, such as a record of a learner that learns each task from scratch."
    )
    return Picture("training", figure, alt, caption)


def _draw_training(axes: Axes, entry: Entry, when: str, color: str, marker: str) -> None:
    for run in entry.runs:
        rows = RunDirectory(run.path).read_metrics()
        steps = [row["env_steps"] for row in rows]
        returns = [row[f"return_{when}"] for row in rows]
        axes.plot(steps, returns, color=color, marker=marker if len(rows) == 1 else "", linewidth=0.9)


def task_figures(comparison: Comparison) -> list[Picture]:
    """Return figures of each entry's return by task parameter: scalar ones, and positions in a plane."""
    tasks = comparison.tasks
    shapes = {str(key): tuple(tasks[key].shape[1:]) for key in sorted(tasks.keys())}
    numbers = [key for key, shape in shapes.items() if shape == ()]
    positions = [key for key, shape in shapes.items() if shape == (2,)]
    drawn = [_scatter(comparison, entry, numbers) for entry in comparison.entries if numbers]
    return drawn + [_map(comparison, entry, key) for entry in comparison.entries for key in positions]


def _scatter(comparison: Comparison, entry: Entry, parameters: Sequence[str]) -> Picture:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.9 * len(parameters)), layout="constrained")
        panels = figure.subplots(len(parameters), 1, squeeze=False)[:, 0]
    before, after = (entry.returns[..., step].mean(0) for step in (0, -1))
    color, marker = styles_of(comparison.entries)[entry.label]
    for parameter, axes in zip(parameters, panels, strict=True):
        values = comparison.tasks[parameter].double().numpy()
        axes.vlines(values, before, after, color=color, alpha=0.25, linewidth=1)
        axes.plot(values, before, linestyle="", marker=marker, color=GREY, markerfacecolor="white", label="before")
        axes.plot(values, after, linestyle="", marker=marker, color=color, label="after the last step")
        axes.set_xlabel(parameter)
        axes.set_ylabel("return")
        axes.set_ylim(*_margins(_means(comparison)))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False)
    figure.suptitle(entry.label, x=0.02, ha="left", fontsize=10, fontweight="bold")
    names = ", ".join(parameters)
    alt = f"{entry.label}: return of each task against {names}, before adaptation and after the last step."
    return Picture(f"tasks-{slug(entry.label)}", figure, alt, f"{entry.label}: each task, mean over seeds.")


def _map(comparison: Comparison, entry: Entry, parameter: str) -> Picture:
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(WIDTH, 2.7), layout="constrained")
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
    positions = comparison.tasks[parameter].double().numpy()
    colours = ScalarMappable(Normalize(*np.percentile(_means(comparison), [OUTLIERS, 100 - OUTLIERS])), "viridis")
    for axes, step, title in zip(panels, (0, -1), ("before", "after the last step"), strict=True):
        returns = entry.returns[..., step].mean(0)
        axes.scatter(
            *positions.T, c=returns, s=34, cmap=colours.cmap, norm=colours.norm, edgecolors="0.3", linewidths=0.4
        )
        axes.set_title(title, fontsize=9.5)
        axes.set_xlabel(f"{parameter} x")
        axes.set_aspect("equal")
        axes.margins(0.12)
    panels[0].set_ylabel(f"{parameter} y")
    figure.colorbar(colours, ax=panels, label="return", shrink=0.9, extend="both")
    figure.suptitle(entry.label, x=0.02, ha="left", fontsize=10, fontweight="bold")
    alt = f"{entry.label}: the {parameter} of each task in the plane, coloured by return before and after adaptation."
    return Picture(f"tasks-{parameter}-{slug(entry.label)}", figure, alt, f"{entry.label}: each task, mean over seeds.")


def _means(comparison: Comparison) -> np.ndarray:
    """Return all entries' returns on each task before and after, mean over seeds, for common scales."""
    return np.stack([entry.returns[..., [0, -1]].mean(0) for entry in comparison.entries])


def _margins(values: np.ndarray) -> tuple[float, float]:
    margin = 0.05 * np.ptp(values) or 0.5
    return float(values.min() - margin), float(values.max() + margin)


def slug(label: str) -> str:
    """Convert a label to a part of a file name."""
    words = "".join(letter if letter.isalnum() or letter in "._" else " " for letter in label).split()
    return "-".join(words)


def _figure() -> tuple[Figure, Axes]:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        return figure, figure.subplots()


def _legend(figure: Figure, comparison: Comparison, markers: bool = True) -> None:
    handles = [
        matplotlib.lines.Line2D([], [], color=color, marker=marker if markers else "", linewidth=1.8, label=label)
        for label, (color, marker) in styles_of(comparison.entries).items()
    ]
    longest = max(len(entry.label) for entry in comparison.entries)
    figure.legend(handles=handles, loc="outside lower center", ncols=max(1, min(4, 66 // (longest + 8))), frameon=False)


def _ends(comparison: Comparison, intervals: Mapping[str, Interval]) -> str:
    """Return the first and last value of each curve, as text."""
    words = []
    for entry in comparison.entries:
        estimate = intervals[entry.label].estimate
        spent = f"{entry.env_steps[-1]:,.0f}"
        words.append(f"{entry.label} from {estimate[0]:.2f} to {estimate[-1]:.2f} after {spent} env steps")
    return "; ".join(words) + "."
