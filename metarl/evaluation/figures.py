"""The figures in a run directory."""

from pathlib import Path

import numpy as np

from metarl.run.adaptation_curve import AdaptationCurve
from metarl.storage.files import write_whole

DRAWN_TASKS = 100


def draw_adaptation_curve(curve: AdaptationCurve, path: Path, title: str) -> None:
    """Plot return by adaptation step: each task in grey, and the mean with its 95 % interval.

    Args:
        curve: the adaptation curve.
        path: path of the PNG file.
        title: title of the figure.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    steps = np.arange(curve.returns.shape[1])
    low, high = zip(*(curve.interval(column) for column in curve.returns.T), strict=True)
    mean = curve.returns.mean(0)
    with matplotlib.rc_context({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(7, 4.5), dpi=150, layout="constrained")
        axes = figure.subplots()
        axes.plot(steps, curve.returns[:DRAWN_TASKS].T, color="0.8", linewidth=0.8, zorder=1)
        axes.fill_between(steps, low, high, color="tab:blue", alpha=0.25, linewidth=0, zorder=2)
        label = f"mean of {len(curve.returns)} {curve.part} tasks, 95 % interval"
        axes.plot(steps, mean, color="tab:blue", marker="o", linewidth=2, zorder=3, label=label)
        for step, value in zip(steps, mean, strict=True):
            axes.annotate(f"{value:.1f}", (step, value), textcoords="offset points", xytext=(6, 8), fontweight="bold")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel(f"adaptation steps ({curve.episodes} episodes each)")
        axes.set_ylabel("return of an episode")
        axes.set_title(title, loc="left")
        axes.plot([], [], color="0.8", label="single tasks")
        axes.legend(frameon=False, loc="lower right")
        write_whole(path, lambda part: figure.savefig(part, format="png"))
