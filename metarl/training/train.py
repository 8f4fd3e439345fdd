"""Training runs, which can be stopped at any moment and resumed on any number of processes, with the same numbers."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metarl.devices.processes import ONE_PROCESS, Processes
from metarl.devices.runtime import set_torch_threads
from metarl.errors import InputError
from metarl.evaluation.evaluate import load_run
from metarl.learning.learner import Learner
from metarl.run.checkpointing import check_whole, go_back_to
from metarl.run.config import TrainConfig
from metarl.run.directory import RunDirectory
from metarl.run.identity import tracking_id_of
from metarl.run.recorded import RecordedData, load_recorded
from metarl.storage.lock import locked
from metarl.tracking.tracking import name_run, tracking_mode
from metarl.training.annealing import refuse_ended_annealing
from metarl.training.callbacks import Callback, check_callbacks
from metarl.training.episode_size import refuse_too_large_episodes
from metarl.training.initial_pool import check_initial_pool
from metarl.training.loop import TrainingLoop
from metarl.training.loop_tools import StopRequest
from metarl.training.warm_start import start_from


def train(
    config: TrainConfig,
    stop: StopRequest | None = None,
    processes: Processes = ONE_PROCESS,
    callbacks: Sequence[Callback] = (),
) -> RunDirectory:
    """Train a learner from the start.

    Progress is shown when standard error is a terminal. Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 end the run after the
    current iteration, with a checkpoint.

    Args:
        config: what to train, how, and where to write the run directory.
        stop: receives those signals, for callers that need to know afterwards whether there was one.
        processes: those that train together; each of them calls this. Only the first one reads and writes the run
            directory.
        callbacks: your own code, called during the run; see ``metarl.training.callbacks``.

    Returns:
        The run directory. ``metrics.csv`` has fewer rows than ``iterations`` when the run was stopped.

    Raises:
        InputError: when the run directory cannot be written, is not empty, or is in use, or the learner cannot be
            trained by that many processes.
        RunError: when sampling, an update or writing fails; the run directory holds the run up to that point.
    """
    check_callbacks(callbacks, config)
    _check_processes(config, processes)
    device = processes.device(config.run.device)
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, device=device))
    learner = _new_learner(config, processes)
    refuse_too_large_episodes(config, learner, processes.size)
    check_initial_pool(config.run, learner, processes.size)
    refuse_ended_annealing(config, learner, config.run.iterations)
    config.split().held_out_tasks("train", 1)  # raises where there are fewer training tasks than asked for
    tracking_mode(config.run.track)
    out, tracking_id = processes.from_first(lambda: name_run(config))
    data = _load_data(config)
    directory = RunDirectory(out)
    processes.from_first(directory.make)
    with locked(directory.path, processes) as lock:
        content = {**config.to_json(None if data is None else data.fingerprint), "tracking_id": tracking_id}
        processes.from_first(lambda: _begin(directory, content))
        return TrainingLoop(config, learner, directory, data, lock, callbacks).run(0, 0, stop)


def _new_learner(config: TrainConfig, processes: Processes) -> Learner:
    """Return the learner with which a run starts."""
    learner = config.make_learner()
    learner.processes = processes
    if config.run.start_from is not None:
        start_from(learner, config.run.start_from)
    return learner


def _begin(directory: RunDirectory, config: Mapping[str, Any]) -> None:
    directory.require_empty()
    directory.write_config(config)


def resume(
    path: str | Path,
    iterations: int | None = None,
    device: str | None = None,
    redraw: Sequence[int] = (),
    stop: StopRequest | None = None,
    processes: Processes = ONE_PROCESS,
    callbacks: Sequence[Callback] = (),
) -> RunDirectory:
    """Continue a run from its latest checkpoint, with the same numbers as if it had never stopped.

    Args:
        path: the run's directory.
        iterations: new total; by default that of the run.
        device: to continue on; by default that of the run. Another device gives other numbers.
        redraw: iterations whose tasks and episodes are drawn from other random streams, in addition to earlier ones.
        stop: as in ``train``.
        processes: as in ``train``; a different number of processes gives the same numbers up to rounding.
        callbacks: as in ``train``.

    Raises:
        InputError: when the directory is not a run or is in use, or the run has that many iterations already.
        RunError: as in ``train``.
    """
    directory = RunDirectory(path)
    first = processes.from_first
    first(directory.read_config)
    with locked(directory.path, processes) as lock:
        before = first(directory.read_config)
        config = TrainConfig.from_json(before, device, processes).resumed(iterations, redraw)
        check_callbacks(callbacks, config)
        _check_processes(config, processes)
        data = _load_data(config)
        if data is not None and data.fingerprint != before["data_hash"]:
            raise InputError(
                f"{data.path} no longer contains the episodes that the run was started with; start a new run"
            )
        first(lambda: config.check_resumable(before))
        set_torch_threads(before["torch_threads"])  # torch's sums depend on it
        # Only those entries of config.json are rewritten that a resumed run may change.
        run = {**before["run"], **{name: getattr(config.run, name) for name in ("iterations", "device", "redraw")}}
        killed_at_once = not first(lambda: directory.checkpoint_files() or directory.read_metrics())
        if killed_at_once:
            first(lambda: directory.write_config({**before, "run": run}))
            learner = _new_learner(config, processes)
            return TrainingLoop(config, learner, directory, data, lock, callbacks).run(0, 0, stop)
        _, learner, done = load_run(path, device, processes=processes)
        finished = first(directory.finished_iterations)
        if done > config.run.iterations or done == finished == config.run.iterations:
            raise InputError(f"{path} has done {done} iterations already; to continue, pass a larger --iterations")
        refuse_ended_annealing(config, learner, config.run.iterations - done, path)
        content = first(directory.load_checkpoint)
        tracking_mode(config.run.track)
        first(lambda: check_whole(directory, content))
        # Nothing that was read may be refused from here on: what follows the checkpoint is discarded.
        first(lambda: _go_back(directory, before, content, run))
        training = TrainingLoop(config, learner, directory, data, lock, callbacks)
        training.checkpoints.restore(content)
        return training.run(done, int(content["env_steps"]), stop)


def _go_back(
    directory: RunDirectory, before: Mapping[str, Any], content: Mapping[str, Any], run: Mapping[str, Any]
) -> None:
    """Return the run directory to its latest checkpoint, and write the settings that the run continues with."""
    tracking_id = tracking_id_of(directory, before, content)
    if goes_on := content["iteration"] < run["iterations"]:
        directory.finished.unlink(missing_ok=True)
    directory.write_config({**before, "run": run, "tracking_id": tracking_id})
    go_back_to(directory, content, goes_on)


def _load_data(config: TrainConfig) -> RecordedData | None:
    """Return the recorded episodes that a run trains on; None if it samples its own."""
    if config.run.data is None:
        return None
    data = load_recorded(config.run.data, config.run.device)
    data.check(config.make_family(), config.split_hash)
    return data


def _check_processes(config: TrainConfig, processes: Processes) -> None:
    """Raise ``InputError`` if the learner cannot be trained by that many processes, or there are fewer tasks."""
    config.learner_class.check_processes(processes)
    tasks = config.run.tasks_per_batch
    if processes.size > tasks:
        raise InputError(
            f"{processes.size} processes need at least one task each, but an iteration has {tasks}; use "
            f"--tasks-per-batch {processes.size} or more, or fewer devices"
        )
