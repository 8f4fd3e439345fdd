"""The paths of learners in the first task of a comparison, before and after adaptation steps."""

import math
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from metarl.evaluation.recording import task_text
from metarl.experiments.compare.comparison import Comparison, Entry
from metarl.experiments.compare.figures import GREY, STYLE, WIDTH, Picture, slug, styles_of
from metarl.experiments.compare.runs import Run
from metarl.families.positions import Map
from metarl.rollouts.rollout import Rollout
from metarl.sampling.sampler import Sampler
from metarl.seeding import derive_seed

MOST_STEPS, MOST_EPISODES = 4, 2
# Shift between the paths of two episodes on a grid, in cells, so that neither hides the other.
ASIDE = 0.16
# Distance up to which paths are followed, in sides of the map.
FARTHEST = 3.0
GOAL_COLOUR = "#2ca02c"

# Positions [T + 1, 2] of an episode.
Path = np.ndarray


def path_figures(comparison: Comparison) -> list[Picture]:
    """Plot the paths of the entries whose observations contain positions."""
    return [_draw_entry(comparison, entry) for entry in comparison.entries if _shows_places(entry.runs[0])]


def _shows_places(run: Run) -> bool:
    space = run.family.observation_space
    return run.family.positions(torch.zeros(1, *(space.shape or ()))) is not None


def _draw_entry(comparison: Comparison, entry: Entry) -> Picture:
    """Plot the paths of a few episodes of the first task, before adaptation and after some of the steps."""
    run, task = entry.runs[0], comparison.tasks[:1]
    shown = sorted({round(step) for step in np.linspace(0, entry.last, MOST_STEPS)})
    rollouts = _rollouts(comparison, run, shown)
    paths = {step: _paths(run, rollout) for step, rollout in zip(shown, rollouts, strict=True)}
    # From grey before adaptation to the entry's colour after the last step.
    grey, colour = np.array(to_rgb(GREY)), np.array(to_rgb(styles_of(comparison.entries)[entry.label][0]))
    colours = {step: grey + (colour - grey) * (step / max(entry.last, 1)) for step in shown}
    ground = run.family.map_of(task[0].cpu())
    figure = (_draw_plane if ground.image is None else _draw_images)(ground, paths, colours)
    figure.suptitle(entry.label, x=0.02, ha="left", fontsize=10, fontweight="bold")
    steps = ", ".join(str(step) for step in shown)
    count = len(paths[0])
    alt = f"{entry.label}: paths of {count} episodes of the task {task_text(task[0])} after {steps} adaptation steps."
    caption = f"{entry.label}, seed {run.config.run.seed}: paths of {count} episodes each, grey before adaptation."
    return Picture(f"paths-{slug(entry.label)}", figure, alt, caption)


def _rollouts(comparison: Comparison, run: Run, shown: Sequence[int]) -> list[Rollout]:
    """Adapt to the first task as in the evaluation; return the rollouts after the steps ``shown``."""
    protocol, task = comparison.protocol, comparison.tasks[:1]
    sampler, found = Sampler(run.family, run.config.run.device), []
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


def _paths(run: Run, rollout: Rollout) -> list[Path]:
    """Return the paths of a few episodes of the first task."""
    paths = []
    for episode in range(min(MOST_EPISODES, rollout.valid.shape[1])):
        observations = rollout.observations[0, episode][rollout.valid[0, episode]]
        every = torch.cat([observations, rollout.final_observations[0, episode][None]])
        positions = run.family.positions(every)
        assert positions is not None, "the family has positions"
        paths.append(positions.cpu().double().numpy())
    return paths


def _draw_images(ground: Map, paths: Mapping[int, list[Path]], colours: Mapping[int, np.ndarray]) -> Figure:
    """Plot the map's image once for each step, with the paths after that step."""
    assert ground.image is not None
    (x, y), half = ground.centre, ground.half
    extent = (x - half, x + half, y - half, y + half)
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        rows = math.ceil(len(paths) / 2)
        figure = Figure(figsize=(WIDTH, 0.3 + 2.6 * rows), layout="constrained")
        panels = figure.subplots(rows, 2, squeeze=False).flatten()
    for axes in panels:
        axes.set_axis_off()
    for axes, (step, episodes) in zip(panels, paths.items(), strict=False):
        axes.imshow(ground.image, extent=extent, interpolation="nearest", alpha=0.55)
        axes.set_title(_when(step), fontsize=9.5)
        for number, path in enumerate(episodes):
            _draw_path(axes, path + ASIDE * (number - (len(episodes) - 1) / 2), colours[step])
    return figure


def _draw_plane(ground: Map, paths: Mapping[int, list[Path]], colours: Mapping[int, np.ndarray]) -> Figure:
    """Plot the paths of all steps in one plane, with the goal and the possible goals."""
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(WIDTH, 5.2), layout="constrained")
        axes = figure.subplots()
    if ground.goal_line:
        axes.plot(*np.array(ground.goal_line).T, color="0.85", linewidth=1.5, zorder=0)
    if ground.goal is not None:
        axes.add_patch(Circle(ground.goal, ground.goal_radius, color=GOAL_COLOUR, alpha=0.25, linewidth=0))
        axes.plot(*ground.goal, marker="*", markersize=13, color=GOAL_COLOUR, linestyle="", label="goal", zorder=4)
    for step, episodes in paths.items():
        for number, path in enumerate(episodes):
            _draw_path(axes, path, colours[step], "" if number else _when(step))
    (x, y), half = ground.centre, _half_side(ground, np.concatenate([path for each in paths.values() for path in each]))
    axes.set(xlim=(x - half, x + half), ylim=(y - half, y + half), aspect="equal")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def _half_side(ground: Map, positions: np.ndarray) -> float:
    """Return half the side of a square that contains the map and the positions, limited to ``FARTHEST`` maps."""
    needed = 1.05 * float(np.abs(positions - ground.centre).max())
    farthest = FARTHEST * ground.half if ground.half else needed
    return min(max(ground.half, needed), farthest) or 1.0  # 1 if nothing has moved on an empty plane


def _draw_path(axes: Axes, path: Path, colour: np.ndarray, label: str = "") -> None:
    axes.plot(*path.T, color=tuple(colour), linewidth=1.2, alpha=0.8, label=label or None)
    axes.plot(*path[-1], marker="o", markersize=5, color=tuple(colour))


def _when(step: int) -> str:
    return "before" if step == 0 else f"after step {step}"
