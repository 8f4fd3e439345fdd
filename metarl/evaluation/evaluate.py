"""Fast adaptation on held-out tasks: the return after each adaptation step, task by task."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

from metarl.devices.processes import ONE_PROCESS, Processes
from metarl.errors import InputError
from metarl.families.family import Source
from metarl.learning.learner import Learner
from metarl.rollouts.rollout import Rollout, known_successes
from metarl.run.adaptation_curve import AdaptationCurve
from metarl.run.config import TrainConfig
from metarl.run.directory import CheckpointChoice, RunDirectory
from metarl.run.identity import check_belongs
from metarl.sampling.sampler import Sampler
from metarl.sampling.session import Session
from metarl.seeding import derive_seed
from metarl.storage.checkpoint_format import find_misfit, find_not_finite


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
    """Adapt a learner to tasks, ``steps`` times, and measure its return before and after each adaptation step.

    The learner is not changed. Several processes share the tasks, and each returns the whole curve; if there are fewer
    tasks than processes, every process measures all of them.

    Args:
        learner: trained or not.
        sampler: sampler of the tasks' family.
        tasks: parameters ``[N]``.
        steps: number of adaptation steps, at least 0.
        episodes: episodes per task before each adaptation step and after the last one.
        part: label of the tasks, recorded in the result.
        seed: seed of environments and actions.
        deterministic: evaluate the policy's mode, in episodes besides those adapted to.

    Raises:
        InputError: for negative steps or no episodes.
        RunError: if sampling fails.
    """
    if steps < 0 or episodes < 1:
        raise InputError(f"evaluation needs steps >= 0 and episodes >= 1, not {steps} and {episodes}")
    team = learner.processes if len(tasks) >= learner.processes.size else ONE_PROCESS
    shard = team.shard(len(tasks))
    with _working_in(team, learner):
        session = sampler.session(learner, tasks[shard.rows], episodes, shard)
        returns, successes, spent = [], [], [0.0]
        for step in range(steps + 1):
            seeds = [derive_seed(seed, name, part, step) for name in ("evaluation", "deterministic evaluation")]
            measure = partial(_measure, sampler, session, episodes, *(seeds if deterministic else seeds[:1]))
            rollout, measured = team.together(measure)
            returns.append(measured.episode_returns().mean(1))
            successes.append(measured.episode_success())
            sharers = len(tasks) if learner.pools_episodes else len(tasks) * episodes
            spent.append(spent[-1] + sum(team.counts(rollout.env_steps)) / sharers)
            if step < steps:
                session.adapt()
        known = known_successes(successes, measured.rewards[..., 0], team)
    matrix = _joined(returns, team)
    rates = _joined([each.float().mean(1) for each in known], team) if known else None
    of_trials = not learner.pools_episodes
    env_steps, notes = np.array(spent[:-1]), learner.notes()
    return AdaptationCurve(tasks, matrix, env_steps, episodes, part, rates, deterministic, of_trials, notes)


def _measure(
    sampler: Sampler, session: Session, episodes: int, seed: int, aside: int | None = None
) -> tuple[Rollout, Rollout]:
    """Run a round of the session; return it, and what is measured: itself, or the policy's mode from another seed."""
    rollout = sampler.run(session, seed)
    if aside is None:
        return rollout, rollout
    learner, tasks, shard = session.learner, session.tasks, session.shard
    return rollout, sampler.collect(learner, session.state, tasks, episodes, aside, deterministic=True, shard=shard)


def _joined(columns: Sequence[Tensor], team: Processes) -> np.ndarray:
    """Return one value for each of all processes' tasks and each column, ``[N, columns]``."""
    matrix: np.ndarray = torch.cat(team.gather(torch.stack(list(columns), 1).cpu())).double().numpy()
    return matrix


@contextmanager
def _working_in(team: Processes, learner: Learner) -> Iterator[None]:
    """Let a learner share what it computes with these processes inside the block."""
    before = learner.processes
    learner.processes = team
    try:
        yield
    finally:
        learner.processes = before


def load_run(
    path: str | Path,
    device: str | None = None,
    checkpoint: CheckpointChoice = "latest",
    processes: Processes = ONE_PROCESS,
) -> tuple[TrainConfig, Learner, int]:
    """Read a run directory: configuration, trained learner, and the number of iterations it was trained for.

    Args:
        path: the run's directory.
        device: device of the learner; by default the one it was trained on.
        checkpoint: the latest, the one with the best validation return, or that of an iteration that is kept.
        processes: the processes that use the learner together; the first one reads for all.

    Raises:
        InputError: if the directory is missing, damaged or not a run, or there is no such device on this machine.
    """
    directory = RunDirectory(path)
    written = processes.from_first(directory.read_config)
    try:
        config = TrainConfig.from_json(written, device, processes)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    file = processes.from_first(lambda: directory.find_checkpoint(checkpoint))
    content = processes.from_first(lambda: directory.load_checkpoint(file))
    check_belongs(directory, file, content, written)
    config.learner_class.check_processes(processes)
    learner = config.make_learner()
    learner.processes = processes
    load_learner(learner, content, file)
    return config, learner, int(content["iteration"])


def load_learner(learner: Learner, content: Mapping[str, Any], file: Path) -> None:
    """Load a learner's state from the content of a checkpoint.

    Raises:
        InputError: if a name, shape or type does not match the learner's, or a number is not finite.
    """
    own = learner.state_dict()
    misfit = find_misfit(own, content.get("learner"), "learner")
    if not isinstance(content.get("env_steps"), int) or content["env_steps"] < 0 or content["iteration"] < 0:
        misfit = "env_steps"
    if (broken := find_not_finite(content.get("learner"))) is not None:
        raise InputError(f"{file} contains a non-finite number: {broken}; the run cannot be loaded from it")
    try:
        learner.load_state_dict(content["learner"])
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        misfit = misfit or str(error).splitlines()[0]
    if misfit is not None:
        raise InputError(f"{file} does not match the run's config.json ({misfit}); the run cannot be loaded")


def load_session(
    path: str | Path,
    tasks: TensorDict | int | None = None,
    episodes: int = 1,
    seed: int = 0,
    device: str | None = None,
    checkpoint: CheckpointChoice = "latest",
) -> Session:
    """Load the trained learner of a run into a ``Session``.

    Args:
        path: the run's directory, which is only read.
        tasks: number of tasks N, or their parameters ``[N]``; by default one environment, stepped by hand.
        episodes: number of parallel episodes per task.
        seed: seed of the learner's random numbers.
        device: device to act on; by default the one the run was trained on.
        checkpoint: the latest, the one with the best validation return, or that of an iteration that is kept.

    Raises:
        InputError: as ``load_run``, and if a count is below 1.
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
    processes: Processes = ONE_PROCESS,
) -> AdaptationCurve:
    """Evaluate a run on its held-out test tasks, or on others.

    Args:
        path: the run's directory, which is only read.
        tasks: number of tasks; a finite family may have fewer.
        steps: adaptation steps; by default the learner's ``evaluation_steps``.
        episodes: episodes per task before each step and after the last one; by default the run's ``episodes_per_task``.
        seed: seed of environments and actions; the tasks do not depend on it.
        device: device to evaluate on; by default the one the run was trained on.
        checkpoint: the latest, the one with the best validation return, or that of an iteration that is kept.
        part: ``test``, ``train``, ``validation``, or ``ood`` for tasks outside the distribution.
        deterministic: evaluate the policy's mode instead of sampled actions; see ``AdaptationCurve``.
        processes: the processes that share the tasks, all of which call this.

    Raises:
        InputError: if the directory is not a run, the family has no tasks outside its distribution, or a count is
            invalid.
    """
    config, learner, _ = load_run(path, device, checkpoint, processes)
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
    """Evaluate a trained learner on the tasks of its run's configuration; see ``evaluate``."""
    episodes = config.run.episodes_per_task if episodes is None else episodes
    steps = learner.evaluation_steps if steps is None else steps
    sampler = Sampler(config.make_family(), config.run.device)
    chosen = config.split().tasks(part, tasks)
    return adaptation_curve(learner, sampler, chosen, steps, episodes, part, seed, deterministic)
