"""What VariBAD believes on GridNavi while it searches: the reward that it expects of every cell, step by step."""

from dataclasses import dataclass

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from tensordict import TensorDict
from torch import Tensor

from metarl.agents.in_context.varibad import VariBad
from metarl.config import TrainConfig
from metarl.envs.grid.gridnavi import GridNavi
from metarl.learner import Learner
from metarl.sampler import Sampler
from metarl.seeding import derive_seed, generator
from metarl.trials import Trials

SAMPLES = 200
STAY = 0
# Inches of a panel's side.
SIDE = 1.3


@dataclass(frozen=True)
class Beliefs:
    """Trials on N tasks in episodes of ``horizon`` steps, and what was believed of them.

    Shapes:
        goals: cells (x, y), ``[N, 2]``.
        places: the agent's cells (x, y) before each of L steps, ``[N, L, 2]``.
        rewards: expected of each cell before each step, ``[N, L, size, size]``, indexed (y, x).
    """

    goals: Tensor
    places: Tensor
    rewards: Tensor
    horizon: int


def tells_beliefs(config: TrainConfig, learner: Learner) -> bool:
    """Return whether a learner's beliefs can be drawn: that of a run of VariBAD on GridNavi."""
    return isinstance(learner, VariBad) and isinstance(config.make_family(), GridNavi)


@torch.no_grad()
def watch(config: TrainConfig, learner: Learner, tasks: TensorDict, episodes: int, seed: int) -> Beliefs:
    """Let a learner whose beliefs can be drawn go through the first episodes of trials on tasks ``[N]``."""
    family = config.make_family()
    assert isinstance(learner, VariBad)
    assert isinstance(family, GridNavi)
    sampler, rollouts = Sampler(family, config.run.device), []
    session = sampler.session(learner, tasks, episodes=1)
    for episode in range(episodes):
        rollouts.append(sampler.run(session, derive_seed(seed, "pictures", episode)))
        session.adapt()
    trials = Trials.of(rollouts)
    rewards = expected_rewards(learner, family, trials, seed)
    return Beliefs(tasks["goal"].cpu(), trials.observations.cpu(), rewards, family.horizon)


def expected_rewards(learner: VariBad, family: GridNavi, trials: Trials, seed: int) -> Tensor:
    """Return the mean decoded reward of staying in each cell over samples of each belief: ``[B, L, size, size]``."""
    device = trials.rewards.device
    belief = learner.beliefs(trials).map(lambda tensor: tensor.flatten(0, 1).unsqueeze(1).expand(-1, SAMPLES, -1))
    latents = belief.sample(generator(seed, "belief pictures", device=device))
    cells = family.cells(torch.arange(family.size**2, device=device)).float().expand(len(latents), -1, -1)
    actions = torch.full(cells.shape[:2], STAY, device=device)
    rewards = learner.predicted_rewards(latents, cells, actions, cells).mean(1)
    return rewards.view(*trials.rewards.shape, family.size, family.size).cpu()


def make_figure(beliefs: Beliefs, panels: int) -> Figure:
    """Draw a row for each trial: ``panels`` of its steps, at even intervals."""
    rows, length = beliefs.places.shape[:2]
    steps = sorted(set(np.linspace(0, length - 1, panels).round().astype(int).tolist()))
    with matplotlib.rc_context({"font.size": 9, "axes.titlesize": 9}):
        figure = Figure(figsize=(SIDE * len(steps) + 0.8, SIDE * rows + 0.5), layout="constrained")
        grid = figure.subplots(rows, len(steps), squeeze=False)
        for (row, column), axes in np.ndenumerate(grid):
            image = _panel(axes, beliefs, row, steps[column])
        for axes, step in zip(grid[0], steps, strict=True):
            axes.set_title(f"episode {step // beliefs.horizon + 1}\nstep {step % beliefs.horizon}")
        figure.colorbar(image, ax=grid, label="expected reward", shrink=0.8)
    return figure


def _panel(axes: Axes, beliefs: Beliefs, row: int, step: int) -> AxesImage:
    """Draw what was believed at one step, the episode's path up to there, and the goal; return the heat map."""
    path = beliefs.places[row, step - step % beliefs.horizon : step + 1].numpy()
    axes.plot(*beliefs.goals[row].tolist(), "*", color="tab:red", markeredgecolor="white", markersize=14)
    axes.plot(*path.T, color="white", linewidth=1.5)
    axes.plot(*path[-1], "o", color="white", markeredgecolor="black", markersize=7)
    axes.set(xticks=[], yticks=[])
    return axes.imshow(beliefs.rewards[row, step].numpy(), origin="lower", vmin=-0.1, vmax=1.0)
