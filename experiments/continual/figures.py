"""The figures of a continual experiment, in the style of ``metarl compare``."""

from collections.abc import Mapping
from itertools import cycle

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metarl.experiments.compare.figures import COLORS, GREY, HEIGHT, MARKERS, STYLE, WIDTH, Picture
from metarl.experiments.continual.performance import Performance
from metarl.numerics.statistics import Scores, interval, mean

# With more tasks, numbers do not fit into the cells of a matrix.
MOST_NUMBERS = 10


def matrix_figures(learned: Mapping[str, Performance], unit: str) -> list[Picture]:
    """Return a figure of each method's matrix, the mean over seeds, with a common colour scale."""
    means = {method: each.matrix.mean(0) for method, each in learned.items() if each.matrix is not None}
    low, high = (function([function(each) for each in means.values()]) for function in (np.min, np.max))
    pictures = []
    for method, values in means.items():
        figure, axes = _figure()
        image = axes.imshow(values, vmin=low, vmax=high, cmap="viridis")
        figure.colorbar(image, label=unit)
        count = len(values)
        axes.set(xlabel="task", ylabel="last task learned", xticks=range(count), yticks=range(count), title=method)
        axes.grid(visible=False)
        for row, column in np.ndindex(*values.shape) if count <= MOST_NUMBERS else ():
            color = "black" if values[row, column] > (low + high) / 2 else "white"
            text = f"{values[row, column]:z.1f}"
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=7.5)
        ends = f"{values[-1].mean():.2f} on average after the last task, {np.diag(values).mean():.2f} when learned"
        alt = f"{unit.capitalize()} of {method} in each task after each task: {ends}."
        caption = f"{method}: row i is measured after tasks 0 to i have been learned; the diagonal is the present task."
        pictures.append(Picture(f"matrix-{method}", figure, alt, caption))
    return pictures


def curve_figures(learned: Mapping[str, Performance], from_scratch: Performance, unit: str) -> list[Picture]:
    """Return the figures of learning each task, and of the performance in all tasks."""
    return [_learning(learned, from_scratch, unit), _all_tasks(learned, unit)]


def _learning(learned: Mapping[str, Performance], from_scratch: Performance, unit: str) -> Picture:
    figure, axes = _figure()
    tasks, iterations = from_scratch.curves.shape[1:]
    for boundary in range(1, tasks):
        axes.axvline(boundary * iterations, color="0.85", linewidth=0.8)
    numbers = np.arange(tasks * iterations)
    axes.plot(numbers, from_scratch.curves.mean(0).ravel(), color=GREY, linewidth=1.2, label="from scratch")
    for (method, each), color in zip(learned.items(), cycle(COLORS), strict=False):
        axes.plot(numbers, each.curves.mean(0).ravel(), color=color, linewidth=1.2, label=method)
    axes.set(xlabel="iteration", ylabel=f"{unit} in the present task")
    _legend(figure, axes)
    areas = [f"{method} {each.areas.mean():.2f}" for method, each in {**learned, "from scratch": from_scratch}.items()]
    alt = f"{unit.capitalize()} in the present task against iterations, mean over seeds. Areas: {', '.join(areas)}."
    caption = "The present task while it is learned, mean over seeds; lines mark where the task changes."
    return Picture("learning", figure, alt, caption)


def _all_tasks(learned: Mapping[str, Performance], unit: str) -> Picture:
    figure, axes = _figure()
    ends = []
    for (method, each), color, marker in zip(learned.items(), cycle(COLORS), cycle(MARKERS), strict=False):
        assert each.matrix is not None
        estimate, low, high = interval(mean, each.matrix.swapaxes(0, 1))
        numbers = np.arange(len(estimate))
        axes.plot(numbers, estimate, color=color, marker=marker, label=method)
        axes.fill_between(numbers, low, high, color=color, alpha=0.12, linewidth=0)
        ends.append(f"{method} {estimate[-1]:.2f}")
    axes.set(xlabel="last task learned", ylabel=f"mean {unit} in all tasks", xticks=numbers)
    _legend(figure, axes)
    alt = f"Mean {unit} in all tasks, learned or not, after each task. After the last one: {', '.join(ends)}."
    caption = "All tasks, whether they have been learned or not. Bands: 95 % intervals over seeds and tasks."
    return Picture("all-tasks", figure, alt, caption)


def changes_figure(returns: Mapping[str, Scores], episodes_each: int, emptied: str) -> Picture:
    """Return the figure of the returns by episode in trials whose task changes.

    Args:
        returns: ``[S, N, E]`` by label.
        episodes_each: episodes after which the task changes.
        emptied: end of the labels of learners whose memory is emptied at a change.
    """
    figure, axes = _figure()
    count, said = next(iter(returns.values())).shape[-1], []
    numbers = np.arange(1, count + 1)
    for change in range(episodes_each, count, episodes_each):
        axes.axvline(change + 0.5, color="0.85", linewidth=0.8)
    for index, (label, values) in enumerate(returns.items()):
        estimate, low, high = interval(mean, np.moveaxis(values, -1, 0))
        color, marker = COLORS[index // 2 % len(COLORS)], MARKERS[index // 2 % len(MARKERS)]
        dashed = label.endswith(emptied)
        axes.plot(numbers, estimate, color=color, marker=marker, linestyle="--" if dashed else "-", label=label)
        if not dashed:
            axes.fill_between(numbers, low, high, color=color, alpha=0.12, linewidth=0)
        said.append(f"{label} {', '.join(f'{value:.2f}' for value in estimate)}")
    axes.set(xlabel="episode of the trial", ylabel="return", xticks=numbers)
    _legend(figure, axes, columns=2)
    alt = f"Return by episode of the trial, whose task changes after every {episodes_each}: {'; '.join(said)}."
    caption = "Lines mark where the task changes. Bands: 95 % intervals over seeds and tasks."
    return Picture("changes", figure, alt, caption)


def _figure() -> tuple[Figure, Axes]:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        return figure, figure.subplots()


def _legend(figure: Figure, axes: Axes, columns: int = 4) -> None:
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=columns, frameon=False)
