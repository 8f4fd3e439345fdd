"""What VariBAD believes on GridNavi while it searches: the reward that it expects of every cell, step by step.

    python experiments/belief_pictures.py runs/varibad-gridnavi-seed1 --out belief.png --tasks 3

A row of the picture is the beginning of a trial on one held-out test task. Its panels stand at even intervals: the
reward of every cell, decoded from samples of the belief at that step, under the path of the episode so far.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor

from metarl.agents.varibad import VariBad
from metarl.envs.gridworld import GridNavi
from metarl.errors import InputError
from metarl.evaluation import load_run
from metarl.experiments.cli import guarded, parse
from metarl.run_directory import write_whole
from metarl.sampler import Sampler
from metarl.seeding import derive_seed, generator
from metarl.trials import Trials

SAMPLES = 200
STAY = 0


@dataclass(frozen=True)
class Options:
    """Draw the reward that VariBAD expects of every cell of GridNavi, at some steps of a trial."""

    run: tyro.conf.Positional[str]
    """Directory of a run of varibad on gridnavi."""
    out: str = "belief.png"
    """PNG file to write."""
    tasks: int = 3
    """Test tasks, one row each; the family may have fewer to give."""
    episodes: int = 2
    """Episodes of the trial to draw, the first ones."""
    panels: int = 9
    """Steps to draw of each task."""
    seed: int = 0
    """Of actions and of the beliefs' samples."""

    def __post_init__(self) -> None:
        for name in ("tasks", "episodes", "panels"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")
        if Path(self.out).suffix.lower() != ".png":
            raise InputError(f"--out writes a PNG file: give a name that ends in .png, not {self.out}")


@dataclass(frozen=True)
class Beliefs:
    """Trials on N tasks, and what was believed of them.

    Shapes:
        goals: cells (x, y), ``[N, 2]``.
        places: the agent's cells (x, y) before each of L steps, ``[N, L, 2]``.
        rewards: expected of each cell before each step, ``[N, L, size, size]``, indexed (y, x).
    """

    goals: Tensor
    places: Tensor
    rewards: Tensor


@torch.no_grad()
def watch(options: Options) -> tuple[Beliefs, GridNavi]:
    """Let the learner of a run go through the first episodes of trials on held-out test tasks.

    Raises:
        InputError: when the run is not one of VariBAD on GridNavi.
    """
    config, learner, _ = load_run(options.run)
    family = config.make_family()
    if not isinstance(learner, VariBad) or not isinstance(family, GridNavi):
        raise InputError(
            f"{options.run} is {config.learner} on {config.family}, not varibad on gridnavi; choose another run"
        )
    sampler, tasks = Sampler(family, config.run.device), config.split().held_out_tasks("test", options.tasks)
    state: Any = learner.begin(len(tasks))
    rollouts = []
    for episode in range(options.episodes):
        rollouts.append(sampler.collect(learner, state, tasks, 1, derive_seed(options.seed, "pictures", episode)))
        state = learner.adapt(state, rollouts[-1])
    trials = Trials.of(rollouts)
    rewards = expected_rewards(learner, family, trials, options.seed)
    return Beliefs(tasks["goal"], trials.observations.cpu(), rewards), family


def expected_rewards(learner: VariBad, family: GridNavi, trials: Trials, seed: int) -> Tensor:
    """Return the mean decoded reward of staying in each cell over samples of each belief: ``[B, L, size, size]``."""
    device = trials.rewards.device
    belief = learner.beliefs(trials).map(lambda tensor: tensor.flatten(0, 1).unsqueeze(1).expand(-1, SAMPLES, -1))
    latents = belief.sample(generator(seed, "belief pictures", device=device))
    cells = family.cells(torch.arange(family.size**2, device=device)).float().expand(len(latents), -1, -1)
    actions = torch.full(cells.shape[:2], STAY, device=device)
    rewards = learner.predicted_rewards(latents, cells, actions, cells).mean(1)
    return rewards.view(*trials.rewards.shape, family.size, family.size).cpu()


def draw(beliefs: Beliefs, horizon: int, panels: int, path: Path) -> None:
    """Draw ``panels`` steps of each trial, at even intervals."""
    rows, length = beliefs.places.shape[:2]
    steps = sorted(set(np.linspace(0, length - 1, panels).round().astype(int).tolist()))
    with matplotlib.rc_context({"font.size": 9, "axes.titlesize": 9}):
        figure = Figure(figsize=(1.6 * len(steps) + 0.8, 1.8 * rows), dpi=150, layout="constrained")
        grid = figure.subplots(rows, len(steps), squeeze=False)
        for (row, column), axes in np.ndenumerate(grid):
            image = _panel(axes, beliefs, row, steps[column], horizon)
        for axes, step in zip(grid[0], steps, strict=True):
            axes.set_title(f"episode {step // horizon + 1}, step {step % horizon}")
        figure.colorbar(image, ax=grid, label="expected reward", shrink=0.8)
        write_whole(path, lambda part: figure.savefig(part, format="png"))


def _panel(axes: Axes, beliefs: Beliefs, row: int, step: int, horizon: int) -> AxesImage:
    """Draw what was believed at one step, the episode's path up to there, and the goal; return the heat map."""
    path = beliefs.places[row, step - step % horizon : step + 1].numpy()
    axes.plot(*beliefs.goals[row].tolist(), "*", color="tab:red", markeredgecolor="white", markersize=14)
    axes.plot(*path.T, color="white", linewidth=1.5)
    axes.plot(*path[-1], "o", color="white", markeredgecolor="black", markersize=7)
    axes.set(xticks=[], yticks=[])
    return axes.imshow(beliefs.rewards[row, step].numpy(), origin="lower", vmin=-0.1, vmax=1.0)


def run(options: Options) -> None:
    """Draw the picture, and say where it is."""
    beliefs, family = watch(options)
    draw(beliefs, family.horizon, options.panels, Path(options.out))
    print(f"picture   {options.out} ({len(beliefs.goals)} held-out test tasks, actions sampled)")


if __name__ == "__main__":
    sys.exit(guarded(lambda: run(parse(Options, "belief_pictures.py", sys.argv[1:]))))
