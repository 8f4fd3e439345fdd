"""What adaptation changes to the eye, on a comparison's first task: episodes before and after it, and paths taken."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from tensordict import TensorDict
from torch import Tensor

from metarl.envs.basic.navigation import PointRobot
from metarl.envs.grid.engine import GridFamily, SightedGrid
from metarl.envs.grid.gridnavi import GridNavi
from metarl.experiments.compare.beliefs import make_figure, tells_beliefs, watch
from metarl.experiments.compare.data import Comparison, Entry, Run
from metarl.experiments.compare.figures import GREY, STYLE, WIDTH, Picture, looks, slug
from metarl.recording import record_run, task_text
from metarl.rollout import Rollout
from metarl.sampler import Sampler
from metarl.seeding import derive_seed
from metarl.solved import AdvisedFamily
from metarl.video import write_video

MOST_FRAMES = 60
MOST_STEPS, MOST_EPISODES = 4, 2
# Steps of a trial at which beliefs are drawn.
BELIEFS = 4
# Cells between the paths of two episodes, which would else hide each other.
ASIDE = 0.16
# Sides of a point's picture within which paths are followed.
FARTHEST = 3.0

Places = np.ndarray


@dataclass(frozen=True)
class Video:
    """A GIF in the report's folder, with what it shows."""

    name: str
    alt: str
    caption: str


def record_video(comparison: Comparison, entry: Entry, folder: Path) -> Video:
    """Record an episode of the first task before adaptation and one after the last step, by the entry's first run.

    Raises:
        InputError: when this machine lacks what drawing needs.
    """
    run, task, protocol = entry.runs[0], comparison.tasks[:1], comparison.protocol
    recording = record_run(
        run.config,
        run.learner,
        task,
        entry.last,
        _episodes(comparison, run),
        protocol.seed,
        protocol.deterministic,
        shown=(0, entry.last),
    )
    frames = recording.frames()
    stride = math.ceil(len(frames) / MOST_FRAMES)
    kept = [*range(0, len(frames) - 1, stride), len(frames) - 1]
    name = f"behaviour-{slug(entry.label)}.gif"
    write_video(frames[kept], folder / name, recording.fps / stride)
    told = ", ".join(f"{take.label} return {take.returns[-1]:.2f}" for take in recording.takes)
    alt = f"{entry.label} on {run.config.family}, {task_text(task[0])}: an episode each, {told}."
    return Video(name, alt, f"{entry.label}, seed {run.config.run.seed}: {told}.")


def path_figures(comparison: Comparison) -> list[Picture]:
    """Draw the paths of the entries whose observations tell where they are."""
    return [_draw_paths(comparison, entry) for entry in comparison.entries if _tells_places(entry.runs[0])]


def belief_figures(comparison: Comparison) -> list[Picture]:
    """Draw the beliefs of the entries whose beliefs can be drawn, over the first episodes of a trial."""
    runs = {entry.label: entry.runs[0] for entry in comparison.entries}
    return [
        _draw_beliefs(comparison, label, run) for label, run in runs.items() if tells_beliefs(run.config, run.learner)
    ]


def _draw_beliefs(comparison: Comparison, label: str, run: Run) -> Picture:
    task = comparison.tasks[:1]
    beliefs = watch(run.config, run.learner, task, MOST_EPISODES, comparison.protocol.seed)
    what = f"{label}: the reward that it expects of every cell while it searches"
    alt = f"{what}, at {BELIEFS} steps of the first {MOST_EPISODES} episodes of the task {task_text(task[0])}."
    caption = f"{what}, seed {run.config.run.seed}; the star is the goal, the line the path of the episode so far."
    return Picture(f"beliefs-{slug(label)}", make_figure(beliefs, BELIEFS), alt, caption)


def _draw_paths(comparison: Comparison, entry: Entry) -> Picture:
    """Draw the paths of a few episodes of the first task, before adaptation and after some of its steps."""
    run, task = entry.runs[0], comparison.tasks[:1]
    shown = sorted({round(step) for step in np.linspace(0, entry.last, MOST_STEPS)})
    paths = {step: _paths(run, rollout) for step, rollout in zip(shown, _rollouts(comparison, run, shown), strict=True)}
    grey, colour = np.array(to_rgb(GREY)), np.array(to_rgb(looks(comparison.entries)[entry.label][0]))
    colours = {step: grey + (colour - grey) * (step / max(entry.last, 1)) for step in shown}
    on_grid = isinstance(run.family, GridFamily)
    figure = (_grids if on_grid else _plane)(run, task, paths, colours)
    figure.suptitle(entry.label, x=0.02, ha="left", fontsize=10, fontweight="bold")
    steps = ", ".join(str(step) for step in shown)
    count = len(paths[0])
    alt = f"{entry.label}: paths of {count} episodes of the task {task_text(task[0])} after {steps} adaptation steps."
    caption = f"{entry.label}, seed {run.config.run.seed}: paths of {count} episodes each, grey before adaptation."
    return Picture(f"paths-{slug(entry.label)}", figure, alt, caption)


def _episodes(comparison: Comparison, run: Run) -> int | None:
    """Return how many episodes each adaptation learns from, None being the run's own number."""
    return comparison.protocol.episodes if run.learner.pools_episodes else None


def _rollouts(comparison: Comparison, run: Run, shown: Sequence[int]) -> list[Rollout]:
    """Adapt to the first task as the evaluation does; return its episodes after the steps ``shown``."""
    protocol, task = comparison.protocol, comparison.tasks[:1]
    sampler, found = Sampler(run.config.make_family(), run.config.run.device), []
    episodes = protocol.episodes or run.config.run.episodes_per_task
    session = sampler.session(run.learner, task, episodes)
    for step in range(shown[-1] + 1):
        stream = derive_seed(protocol.seed, "paths", step)
        rollout = sampler.run(session, stream)
        if step in shown and protocol.deterministic:
            rollout = sampler.collect(run.learner, session.state, task, episodes, stream, deterministic=True)
        if step in shown:
            found.append(rollout)
        if step < shown[-1]:
            session.adapt()
    return found


def _tells_places(run: Run) -> bool:
    family = run.family
    seen = isinstance(family, PointRobot | GridNavi) or (isinstance(family, SightedGrid) and family.view is None)
    return seen and not isinstance(run.config.make_family(), AdvisedFamily)


def _places(run: Run, observations: Tensor) -> Tensor:
    """Return the places ``[T, 2]`` at which observations ``[T, D]`` were made."""
    family = run.family
    if isinstance(family, SightedGrid):
        return family.cells(observations[:, : family.hand].argmax(-1))
    return observations[:, :2]


def _paths(run: Run, rollout: Rollout) -> list[Places]:
    """Return the places ``[T + 1, 2]`` of each of a few episodes."""
    paths = []
    for episode in range(min(MOST_EPISODES, rollout.valid.shape[1])):
        observations = rollout.observations[0, episode][rollout.valid[0, episode]]
        path = torch.cat([observations, rollout.final_observations[0, episode][None]])
        paths.append(_places(run, path).cpu().double().numpy())
    return paths


def _grids(run: Run, task: TensorDict, paths: dict[int, list[Places]], colours: dict[int, np.ndarray]) -> Figure:
    """Draw a map for each step, as the family draws itself at the start."""
    family = run.family
    assert isinstance(family, GridFamily)
    start = family.initial_state(task.cpu(), torch.Generator())
    world = family.picture({key: value[0] for key, value in start.items()}, task[0].cpu())
    edge = family.size - 0.5
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        rows = math.ceil(len(paths) / 2)
        figure = Figure(figsize=(WIDTH, 0.3 + 2.6 * rows), layout="constrained")
        panels = figure.subplots(rows, 2, squeeze=False).flatten()
    for axes in panels:
        axes.set_axis_off()
    for axes, (step, walked) in zip(panels, paths.items(), strict=False):
        axes.imshow(world, extent=(-0.5, edge, -0.5, edge), interpolation="nearest", alpha=0.55)
        axes.set_title(_when(step), fontsize=9.5)
        for number, path in enumerate(walked):
            _draw_path(axes, path + ASIDE * (number - (len(walked) - 1) / 2), colours[step])
    return figure


def _plane(run: Run, task: TensorDict, paths: dict[int, list[Places]], colours: dict[int, np.ndarray]) -> Figure:
    """Draw the paths of all steps in one plane, with the goal and where goals can be."""
    family = run.family
    assert isinstance(family, PointRobot)
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(WIDTH, 5.2), layout="constrained")
        axes = figure.subplots()
    axes.plot(*np.array(family.goal_line()).T, color="0.85", linewidth=1.5, zorder=0)
    goal = family.goals(task.cpu())[0].tolist()
    axes.add_patch(Circle((goal[0], goal[1]), family.goal_radius, color="#2ca02c", alpha=0.25, linewidth=0))
    axes.plot(*goal, marker="*", markersize=13, color="#2ca02c", linestyle="", label="goal", zorder=4)
    for step, walked in paths.items():
        for number, path in enumerate(walked):
            _draw_path(axes, path, colours[step], "" if number else _when(step))
    x, y, half = family.view
    reached = np.concatenate([path for walked in paths.values() for path in walked])
    needed = 1.05 * np.abs(reached - (x, y)).max()
    half = min(max(half, float(needed)), FARTHEST * half)
    axes.set(xlim=(x - half, x + half), ylim=(y - half, y + half), aspect="equal")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def _draw_path(axes: Axes, path: Places, colour: np.ndarray, label: str = "") -> None:
    axes.plot(*path.T, color=tuple(colour), linewidth=1.2, alpha=0.8, label=label or None)
    axes.plot(*path[-1], marker="o", markersize=5, color=tuple(colour))


def _when(step: int) -> str:
    return "before" if step == 0 else f"after step {step}"
