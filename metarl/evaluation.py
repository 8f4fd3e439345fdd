"""Fast adaptation on held-out tasks: the return after each adaptation step, task by task."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict

from metarl.checkpoint_format import find_misfit, find_not_finite
from metarl.config import TrainConfig
from metarl.errors import InputError
from metarl.family import Source
from metarl.learner import Learner
from metarl.run_directory import CheckpointChoice, RunDirectory
from metarl.run_identity import check_belongs
from metarl.sampler import Sampler
from metarl.seeding import derive_seed
from metarl.session import Session
from metarl.statistics import interval, mean


@dataclass(frozen=True)
class AdaptationCurve:
    """Returns of held-out tasks before adaptation and after each step of it.

    Step k adapts on the very episodes whose mean return stands in column k - 1: on all of a task's together, or, of a
    learner that remembers trials, on each within its own trial, whose episodes the columns then are. Actions are
    sampled from the policy. Where they are ``deterministic``, the columns are returns of further episodes of the
    policy's mode, which nothing adapts to.

    Shapes:
        tasks: ``[N]``, the tasks' parameters.
        returns: ``[N, steps + 1]``, mean undiscounted return of ``episodes`` episodes; column 0 before adaptation.
        env_steps: ``[steps + 1]``, mean number of environment steps spent on a task (in one of its trials, if they do
            not share what they learn) before the column's episodes.
        success: ``[N, steps + 1]``, share of those episodes that met the task's goal; None where the family does not
            tell.

    Attributes:
        of_trials: whether the columns are the episodes of a trial, so that their sum is its return.
    """

    tasks: TensorDict
    returns: np.ndarray
    env_steps: np.ndarray
    episodes: int
    part: Source
    success: np.ndarray | None = None
    deterministic: bool = False
    of_trials: bool = False

    def interval(self, values: np.ndarray) -> tuple[float, float]:
        """Return the 95 % interval of the mean of one value per task ``[N]``, over the choice of tasks.

        From one task it is not known: NaN. See ``statistics.interval``.
        """
        if len(values) == 1:
            return math.nan, math.nan
        _, low, high = interval(mean, values[None])
        return low.item(), high.item()

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
            "actions": "deterministic" if self.deterministic else "sampled",
            "episodes_per_step": self.episodes,
            "env_steps": self.env_steps.tolist(),
            "tasks": [{key: value.tolist() for key, value in task.items()} for task in self.tasks],
            "returns": self.returns.tolist(),
            **success,
        }


def adaptation_curve(
    learner: Learner,
    sampler: Sampler,
    tasks: TensorDict,
    steps: int,
    episodes: int,
    part: Source = "test",
    seed: int = 0,
    deterministic: bool = False,
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
        deterministic: measure the policy's mode, in episodes beside those that are adapted to.

    Raises:
        InputError: for negative steps or no episodes.
        RunError: when sampling fails.
    """
    if steps < 0 or episodes < 1:
        raise InputError(f"evaluation needs steps >= 0 and episodes >= 1, not {steps} and {episodes}")
    session = sampler.session(learner, tasks, episodes)
    returns, successes, spent = [], [], [0.0]
    for step in range(steps + 1):
        rollout = sampler.run(session, derive_seed(seed, "evaluation", part, step))
        measured = rollout
        if deterministic:
            aside = derive_seed(seed, "deterministic evaluation", part, step)
            measured = sampler.collect(learner, session.state, tasks, episodes, aside, deterministic=True)
        returns.append(measured.episode_returns().mean(1))
        if (success := measured.episode_success()) is not None:
            successes.append(success.float().mean(1))
        sharers = len(tasks) if learner.pools_episodes else len(tasks) * episodes
        spent.append(spent[-1] + rollout.env_steps / sharers)
        if step < steps:
            session.adapt()
    matrix, rates = (
        torch.stack(columns, 1).cpu().double().numpy() if columns else None for columns in (returns, successes)
    )
    assert matrix is not None
    of_trials = not learner.pools_episodes
    return AdaptationCurve(tasks, matrix, np.array(spent[:-1]), episodes, part, rates, deterministic, of_trials)


def load_run(
    path: str | Path, device: str | None = None, checkpoint: CheckpointChoice = "latest"
) -> tuple[TrainConfig, Learner, int]:
    """Read a run directory: its configuration, its trained learner, and the iterations that it was trained for.

    Args:
        path: the run's directory.
        device: to put it on; by default the one it was trained on.
        checkpoint: the latest, or the one that did best on validation tasks.

    Raises:
        InputError: when the directory is missing, damaged, or another program's, or there is no such device here.
    """
    directory = RunDirectory(path)
    written = directory.read_config()
    config = TrainConfig.from_json(written, device)
    file = directory.find_checkpoint(checkpoint)
    content = directory.load_checkpoint(file)
    check_belongs(directory, file, content, written)
    learner = config.make_learner()
    load_learner(learner, content, file)
    return config, learner, int(content["iteration"])


def load_learner(learner: Learner, content: Mapping[str, Any], file: Path) -> None:
    """Let an untrained learner take over what a checkpoint holds of it.

    Raises:
        InputError: when a name, a shape or a type is not the learner's, or a number is not finite.
    """
    own = learner.state_dict()
    misfit = find_misfit(own, content.get("learner"), "learner")
    if not isinstance(content.get("env_steps"), int) or content["env_steps"] < 0 or content["iteration"] < 0:
        misfit = "env_steps"
    if (broken := find_not_finite(content.get("learner"))) is not None:
        raise InputError(f"{file} holds a number that is not finite: {broken}; the run cannot be read from it")
    try:
        learner.load_state_dict(content["learner"])
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        misfit = misfit or str(error).splitlines()[0]
    if misfit is not None:
        raise InputError(f"{file} does not fit the run's config.json ({misfit}); the run cannot be read")


def load_session(
    path: str | Path,
    tasks: TensorDict | int | None = None,
    episodes: int = 1,
    seed: int = 0,
    device: str | None = None,
    checkpoint: CheckpointChoice = "latest",
) -> Session:
    """Put the trained learner of a run to use; see ``Session``.

    Args:
        path: the run's directory, which is only read.
        tasks: number of tasks N, or their parameters ``[N]``; by default one environment, stepped by hand.
        episodes: of each task side by side.
        seed: of the learner's draws.
        device: to act on; by default the one the run was trained on.
        checkpoint: the latest, or the one that did best on validation tasks.

    Raises:
        InputError: as ``load_run``, and when a count is below 1.
    """
    config, learner, _ = load_run(path, device, checkpoint)
    return Session(learner, config.make_family(), tasks, episodes, seed, config.run.device)


def evaluate(
    path: str | Path,
    tasks: int = 40,
    steps: int | None = None,
    episodes: int | None = None,
    seed: int = 0,
    device: str | None = None,
    checkpoint: CheckpointChoice = "latest",
    part: Source = "test",
    deterministic: bool = False,
) -> AdaptationCurve:
    """Evaluate a run on its held-out test tasks, or on others.

    Args:
        path: the run's directory, which is only read.
        tasks: number of tasks; a finite family may have fewer to give.
        steps: adaptation steps; by default the learner's ``evaluation_steps``.
        episodes: per task before each step and after the last; by default the run's ``episodes_per_task``.
        seed: of environments and actions; the tasks do not depend on it.
        device: to evaluate on; by default the one the run was trained on.
        checkpoint: the latest, or the one that did best on validation tasks.
        part: which tasks: ``test``, ``train`` or ``validation``, or ``ood``, outside the distribution.
        deterministic: measure the policy's mode instead of sampled actions; see ``AdaptationCurve``.

    Raises:
        InputError: for a directory that is no run, a family without tasks outside its distribution, and counts that
            make no sense.
    """
    config, learner, _ = load_run(path, device, checkpoint)
    return evaluate_learner(config, learner, tasks, steps, episodes, seed, part, deterministic)


def evaluate_learner(
    config: TrainConfig,
    learner: Learner,
    tasks: int,
    steps: int | None,
    episodes: int | None,
    seed: int,
    part: Source = "test",
    deterministic: bool = False,
) -> AdaptationCurve:
    """Evaluate a trained learner on tasks of its run's configuration; see ``evaluate``."""
    episodes = config.run.episodes_per_task if episodes is None else episodes
    steps = learner.evaluation_steps if steps is None else steps
    sampler = Sampler(config.make_family(), config.run.device)
    chosen = config.split().tasks(part, tasks)
    return adaptation_curve(learner, sampler, chosen, steps, episodes, part, seed, deterministic)
