"""Fast adaptation on held-out tasks: the return after each adaptation step, task by task."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict

from metarl.config import TrainConfig
from metarl.errors import InputError
from metarl.family import Part
from metarl.learner import Learner
from metarl.run_directory import RunDirectory
from metarl.runtime import keep_freed_memory
from metarl.sampler import Sampler
from metarl.seeding import derive_seed

RESAMPLES = 10_000


@dataclass(frozen=True)
class AdaptationCurve:
    """Returns of held-out tasks before adaptation and after each step of it.

    Actions are sampled from the policy. Step k adapts on the very episodes whose mean return stands in column k - 1.

    Shapes:
        tasks: ``[N]``, the tasks' parameters.
        returns: ``[N, steps + 1]``, mean undiscounted return of ``episodes`` episodes; column 0 before adaptation.
        env_steps: ``[steps + 1]``, mean number of environment steps spent on a task before the column's episodes.
        success: ``[N, steps + 1]``, share of those episodes that met the task's goal; None where the family does not
            tell.
    """

    tasks: TensorDict
    returns: np.ndarray
    env_steps: np.ndarray
    episodes: int
    part: Part
    success: np.ndarray | None = None

    def interval(self, values: np.ndarray) -> tuple[float, float]:
        """Return the 95 % percentile-bootstrap interval of the mean of one value per task ``[N]``."""
        chosen = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
        low, high = np.percentile(values[chosen].mean(1), [2.5, 97.5])
        return float(low), float(high)

    @property
    def gains(self) -> np.ndarray:
        """Return after the last step minus return before adaptation, for each task ``[N]``."""
        gains: np.ndarray = self.returns[:, -1] - self.returns[:, 0]
        return gains

    def to_json(self) -> dict[str, Any]:
        """Return the curve as plain lists; ``returns`` and ``success`` are ``[task][step]``."""
        success = {} if self.success is None else {"success": self.success.tolist()}
        return {
            "part": self.part,
            "actions": "sampled",
            "episodes_per_step": self.episodes,
            "env_steps": self.env_steps.tolist(),
            "tasks": [{key: value.tolist() for key, value in task.items()} for task in self.tasks],
            "returns": self.returns.tolist(),
            **success,
        }


def adaptation_curve(
    learner: Learner, sampler: Sampler, tasks: TensorDict, steps: int, episodes: int, part: Part = "test", seed: int = 0
) -> AdaptationCurve:
    """Let a learner adapt to tasks, ``steps`` times, and measure its return before and after each.

    The learner is not changed.

    Args:
        learner: trained or not.
        sampler: of the tasks' family.
        tasks: ``[N]``.
        steps: adaptations, at least 0.
        episodes: of each task before each adaptation and after the last.
        part: what the tasks are, for the record.
        seed: of environments and actions.

    Raises:
        InputError: for negative steps or no episodes.
        RunError: when sampling fails.
    """
    if steps < 0 or episodes < 1:
        raise InputError(f"evaluation needs steps >= 0 and episodes >= 1, not {steps} and {episodes}")
    keep_freed_memory()
    state = learner.begin(len(tasks))
    returns, successes, spent = [], [], [0.0]
    for step in range(steps + 1):
        rollout = sampler.collect(learner, state, tasks, episodes, derive_seed(seed, "evaluation", part, step))
        returns.append(rollout.episode_returns().mean(1))
        if (success := rollout.episode_success()) is not None:
            successes.append(success.float().mean(1))
        spent.append(spent[-1] + rollout.env_steps / len(tasks))
        if step < steps:
            state = learner.adapt(state, rollout)
    matrix, rates = (
        torch.stack(columns, 1).cpu().double().numpy() if columns else None for columns in (returns, successes)
    )
    assert matrix is not None
    return AdaptationCurve(tasks, matrix, np.array(spent[:-1]), episodes, part, rates)


def load_run(path: str | Path, device: str | None = None) -> tuple[TrainConfig, Learner, int]:
    """Read a run directory: its configuration, its trained learner, and the iterations that it was trained for.

    Args:
        path: the run's directory.
        device: to put it on; by default the one it was trained on.

    Raises:
        InputError: when the directory is missing, damaged, or another program's, or there is no such device here.
    """
    directory = RunDirectory(path)
    config = TrainConfig.from_json(directory.read_config(), device)
    checkpoint = directory.load_checkpoint()
    learner = config.make_learner()
    try:
        learner.load_state_dict(checkpoint["learner"])
        return config, learner, int(checkpoint["iteration"])
    except (KeyError, RuntimeError, TypeError):
        raise InputError(f"{directory.checkpoint} does not fit the run's config.json; the run cannot be read") from None


def evaluate(
    path: str | Path,
    tasks: int = 40,
    steps: int = 3,
    episodes: int | None = None,
    seed: int = 0,
    device: str | None = None,
) -> AdaptationCurve:
    """Evaluate a run on its held-out test tasks.

    Args:
        path: the run's directory, which is only read.
        tasks: number of test tasks; a finite family may have fewer to give.
        steps: adaptation steps.
        episodes: per task before each step and after the last; by default the run's ``episodes_per_task``.
        seed: of environments and actions; the tasks do not depend on it.
        device: to evaluate on; by default the one the run was trained on.

    Raises:
        InputError: for a directory that is no run, and counts that make no sense.
    """
    config, learner, _ = load_run(path, device)
    return evaluate_learner(config, learner, tasks, steps, episodes, seed)


def evaluate_learner(
    config: TrainConfig, learner: Learner, tasks: int, steps: int, episodes: int | None, seed: int
) -> AdaptationCurve:
    """Evaluate a trained learner on the held-out test tasks of its run's configuration; see ``evaluate``."""
    episodes = config.run.episodes_per_task if episodes is None else episodes
    sampler = Sampler(config.make_family(), config.run.device)
    chosen = config.split().held_out_tasks("test", tasks)
    return adaptation_curve(learner, sampler, chosen, steps, episodes, "test", seed)
