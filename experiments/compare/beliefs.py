"""A learner's beliefs while it explores a grid: the reward that it expects in every cell, step by step.

They are plotted for learners with a reward model (``RewardModel``) on grid families with observed cells
(``TaskFamily.staying``).
"""

from dataclasses import dataclass

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from tensordict import TensorDict
from torch import Tensor

from metarl.evaluation.recording import task_text
from metarl.experiments.compare.comparison import Comparison
from metarl.experiments.compare.figures import Picture, slug
from metarl.experiments.compare.runs import Run
from metarl.families.family import TaskFamily
from metarl.families.positions import Position, Staying
from metarl.learning.learner import Learner
from metarl.learning.protocols import RewardModel
from metarl.rollouts.trials import Trials
from metarl.run.config import TrainConfig
from metarl.sampling.sampler import Sampler
from metarl.seeding import derive_seed

# Steps and episodes of a trial that a comparison plots.
STEPS, EPISODES = 4, 2
# Side of a panel in inches.
SIDE = 1.3


@dataclass(frozen=True)
class Beliefs:
    """Trials on N tasks in episodes of ``horizon`` steps, and the beliefs about them.

    Shapes:
        goals: N cells (x, y); None for a task without a goal.
        positions: the agent's cells (x, y) before each of L steps, ``[N, L, 2]``.
        rewards: expected rewards in each cell before each step, ``[N, L, rows, columns]``, indexed (y, x).

    Attributes:
        reward_range: lowest and highest reward, the limits of the colour scale.
    """

    goals: list[Position | None]
    positions: Tensor
    rewards: Tensor
    horizon: int
    reward_range: tuple[float, float]


def has_beliefs(family: TaskFamily, learner: Learner) -> bool:
    """Return whether a learner's beliefs about a family's tasks can be plotted."""
    return isinstance(learner, RewardModel) and family.staying() is not None


def belief_figures(comparison: Comparison) -> list[Picture]:
    """Plot the beliefs of the entries that have them, over the first episodes of a trial."""
    runs = {entry.label: entry.runs[0] for entry in comparison.entries}
    return [_draw(comparison, label, run) for label, run in runs.items() if has_beliefs(run.family, run.learner)]


def _draw(comparison: Comparison, label: str, run: Run) -> Picture:
    task = comparison.tasks[:1]
    beliefs = observe_beliefs(run.config, run.learner, task, EPISODES, comparison.protocol.seed)
    what = f"{label}: the reward that it expects of every cell while it searches"
    alt = f"{what}, at {STEPS} steps of the first {EPISODES} episodes of the task {task_text(task[0])}."
    caption = f"{what}, seed {run.config.run.seed}; the star is the goal, the line the path of the episode so far."
    return Picture(f"beliefs-{slug(label)}", make_figure(beliefs, STEPS), alt, caption)


@torch.no_grad()
def observe_beliefs(config: TrainConfig, learner: Learner, tasks: TensorDict, episodes: int, seed: int) -> Beliefs:
    """Run a learner with beliefs through the first episodes of trials on tasks ``[N]``."""
    family = config.make_family()
    staying = family.staying()
    assert staying is not None, "the family is a grid whose cells are observed"
    sampler, rollouts = Sampler(family, config.run.device), []
    session = sampler.session(learner, tasks, episodes=1)
    for episode in range(episodes):
        rollouts.append(sampler.run(session, derive_seed(seed, "pictures", episode)))
        session.adapt()
    trials = Trials.of(rollouts)
    positions = family.positions(trials.observations)
    assert positions is not None, "a family whose cells are observed has positions"
    goals = [family.map_of(task).goal for task in tasks.cpu()]
    rewards = expected_rewards(learner, staying, trials, seed)
    return Beliefs(goals, positions.cpu(), rewards, family.horizon, staying.rewards)


def expected_rewards(learner: Learner, staying: Staying, trials: Trials, seed: int) -> Tensor:
    """Return the expected reward of staying in each cell before each step, ``[B, L, rows, columns]``."""
    assert isinstance(learner, RewardModel)
    steps = (staying.observations, staying.actions)
    observations, actions = (tensor.flatten(0, 1).to(trials.rewards.device) for tensor in steps)
    rewards = learner.expected_rewards(trials, observations, actions, observations, seed)
    return rewards.view(*trials.rewards.shape, *staying.actions.shape[:2]).cpu()


def make_figure(beliefs: Beliefs, panels: int) -> Figure:
    """Plot a row for each trial: ``panels`` of its steps, evenly spaced."""
    rows, length = beliefs.positions.shape[:2]
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
    """Plot the belief at one step, the episode's path so far, and the goal; return the heat map."""
    path = beliefs.positions[row, step - step % beliefs.horizon : step + 1].numpy()
    if (goal := beliefs.goals[row]) is not None:
        axes.plot(*goal, "*", color="tab:red", markeredgecolor="white", markersize=14)
    axes.plot(*path.T, color="white", linewidth=1.5)
    axes.plot(*path[-1], "o", color="white", markeredgecolor="black", markersize=7)
    axes.set(xticks=[], yticks=[])
    low, high = beliefs.reward_range
    return axes.imshow(beliefs.rewards[row, step].numpy(), origin="lower", vmin=low, vmax=high)
