"""How learners with a task embedding (``TaskEmbedding``) come to distinguish tasks, step by step."""

from collections.abc import Sequence

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from metarl.experiments.compare.comparison import Comparison, Entry
from metarl.experiments.compare.figures import STYLE, Picture, slug
from metarl.learning.protocols import TaskEmbedding
from metarl.rollouts.trials import Trials
from metarl.sampling.sampler import Sampler
from metarl.seeding import derive_seed

# Adaptation steps and task parameters that are plotted.
MOST_STEPS, MOST_PARAMETERS = 4, 2
SIDE = 1.9
COLOURS = "viridis"


def embedding_figures(comparison: Comparison) -> list[Picture]:
    """Plot the embeddings of the tasks by the entries that have them."""
    chosen = [entry for entry in comparison.entries if isinstance(entry.runs[0].learner, TaskEmbedding)]
    names, numbers = numeric_parameters(comparison)
    return [_draw(comparison, entry, names, numbers) for entry in chosen if len(numbers) > 1 and names]


def numeric_parameters(comparison: Comparison) -> tuple[list[str], np.ndarray]:
    """Return the names of the first parameters that are numbers, and their values ``[N, P]``."""
    names, rows = comparison.parameters()
    columns = [index for index, value in enumerate(rows[0]) if not isinstance(value, str)][:MOST_PARAMETERS]
    return [names[index] for index in columns], np.array([[float(row[index]) for index in columns] for row in rows])


def _draw(comparison: Comparison, entry: Entry, names: Sequence[str], numbers: np.ndarray) -> Picture:
    """Plot each task's embedding by the first run, in the plane in which they differ most after the last step."""
    shown = sorted({round(step) for step in np.linspace(0, entry.last, MOST_STEPS)})
    embeddings = observe(comparison, entry, shown)
    places, share = principal(embeddings)
    figure = make_figure(places, shown, numbers, names)
    figure.suptitle(entry.label, x=0.02, ha="left", fontsize=10, fontweight="bold")
    readouts = [linear_readout(each, numbers) for each in embeddings]
    shares = ", ".join(f"{value:.2f}" for value in readouts)
    what = f"{entry.label}: the embedding of each task after {', '.join(map(str, shown))} adaptation steps"
    alt = f"{what}, coloured by {' and '.join(names)}."
    caption = (
        f"{what}, seed {entry.runs[0].config.run.seed}, along the two principal components of the last ones, which "
        f"hold {share:.0%} of their variance. A linear readout of the parameters, fitted to the other tasks, explains "
        f"these shares of their variance: {shares}."
    )
    return Picture(f"embeddings-{slug(entry.label)}", figure, alt, caption)


@torch.no_grad()
def observe(comparison: Comparison, entry: Entry, shown: Sequence[int]) -> np.ndarray:
    """Adapt the entry's first run to all tasks; return the embeddings ``[steps, N, Z]`` after the steps ``shown``.

    The embedding after k steps is that with which the next episode starts.
    """
    run, rollouts = entry.runs[0], []
    assert isinstance(run.learner, TaskEmbedding)
    sampler = Sampler(run.family, run.config.run.device)
    session = sampler.session(run.learner, comparison.tasks.to(run.config.run.device), 1)
    for step in range(shown[-1] + 1):
        rollouts.append(sampler.run(session, derive_seed(comparison.protocol.seed, "embeddings", step)))
        session.adapt()
    trials = Trials.of(rollouts)
    embeddings, episodes = run.learner.task_embeddings(trials), trials.starts.cumsum(1) - 1
    return np.stack([embeddings[trials.starts & (episodes == step)].double().cpu().numpy() for step in shown])


def principal(embeddings: np.ndarray) -> tuple[np.ndarray, float]:
    """Project ``[steps, N, Z]`` to ``[steps, N, 2]``, on the principal components of the last step's N points.

    Returns:
        The projections, and the share of the last step's variance that they hold.
    """
    centre = embeddings[-1].mean(0)
    _, sizes, directions = np.linalg.svd(embeddings[-1] - centre, full_matrices=False)
    places = (embeddings - centre) @ directions[:2].T
    missing = 2 - places.shape[-1]  # an embedding in one number, or of a single pair of tasks
    squares = sizes**2
    return np.pad(places, [(0, 0), (0, 0), (0, missing)]), float(squares[:2].sum() / max(squares.sum(), 1e-30))


def linear_readout(embeddings: np.ndarray, parameters: np.ndarray) -> float:
    """Return how much of the variance of parameters ``[N, P]`` a linear function of embeddings ``[N, Z]`` explains.

    Each task is predicted from the others (leave-one-out), so that the share is negative where the mean of the others
    would predict better.
    """
    inputs = np.column_stack([embeddings, np.ones(len(embeddings))])
    projection = inputs @ np.linalg.pinv(inputs)
    # The error without a row is that with it over 1 minus its leverage (Cook and Weisberg 1982, section 2.2).
    free = np.maximum(1 - np.diag(projection), 1e-9)[:, None]
    errors = (parameters - projection @ parameters) / free
    count = len(parameters)
    spread = (parameters - parameters.mean(0)) * count / (count - 1)
    varying = np.ptp(parameters, axis=0) > 0
    return float(np.mean(1 - (errors**2).sum(0)[varying] / (spread**2).sum(0)[varying])) if varying.any() else 0.0


def make_figure(places: np.ndarray, shown: Sequence[int], numbers: np.ndarray, names: Sequence[str]) -> Figure:
    """Plot a row for each parameter, and a column for each step, of places ``[steps, N, 2]``."""
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(SIDE * len(shown) + 0.9, SIDE * len(names) + 0.6), layout="constrained")
        grid = figure.subplots(len(names), len(shown), squeeze=False, sharex=True, sharey=True)
        for name, row, values in zip(names, grid, numbers.T, strict=True):
            scale = Normalize(values.min(), values.max())
            for axes, points in zip(row, places, strict=True):
                _scatter(axes, points, values, scale)
            figure.colorbar(ScalarMappable(scale, COLOURS), ax=list(row), label=name, shrink=0.9)
        for axes, step in zip(grid[0], shown, strict=True):
            axes.set_title("before" if step == 0 else f"step {step}", fontsize=9.5)
    return figure


def _scatter(axes: Axes, points: np.ndarray, values: np.ndarray, scale: Normalize) -> None:
    x, y = points.T
    axes.scatter(x, y, c=values, s=22, cmap=COLOURS, norm=scale, edgecolors="0.3", linewidths=0.4)
    axes.set(xticks=[], yticks=[])
    axes.margins(0.1)
