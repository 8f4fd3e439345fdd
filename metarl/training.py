"""The training loop: sample, adapt, sample again, update, record; it may be stopped at any moment and resumed."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metarl.config import RunConfig, TrainConfig, resolve_device
from metarl.divergence import DivergenceCheck, policy_deviation
from metarl.errors import InputError, RunError
from metarl.evaluation import AdaptationCurve, adaptation_curve, load_run
from metarl.figures import draw_adaptation_curve
from metarl.learner import Learner
from metarl.loop_tools import StopRequest, Stopwatch, progress
from metarl.metrics import METRICS, VALIDATION, VALIDATION_TASKS, returns_row
from metarl.recorded import RecordedData, load_recorded
from metarl.replay_files import ReplayFiles
from metarl.rollout import Rollout
from metarl.run_directory import RunDirectory
from metarl.runtime import keep_freed_memory
from metarl.sampler import Sampler
from metarl.seeding import derive_seed
from metarl.task_source import TASK_SOURCES
from metarl.tracking.tracker import Tracker
from metarl.tracking.tracking import name_run, track_training, tracking_mode

Row = dict[str, float | None]


def train(config: TrainConfig) -> RunDirectory:
    """Train a learner from the start.

    Progress is shown when standard error is a terminal. Ctrl-C and SIGTERM end the run after the current iteration,
    with a checkpoint.

    Args:
        config: what to train, how, and where its run directory goes.

    Returns:
        The run directory. ``metrics.csv`` has fewer rows than ``iterations`` when the run was stopped.

    Raises:
        InputError: when the run directory cannot be written or holds something already.
        RunError: when sampling or an update fails; the run up to then is in the run directory.
    """
    learner = config.make_learner()
    config.split().held_out_tasks("train", 1)  # raises where there are fewer training tasks than asked for
    tracking_mode(config.run.track)
    out, tracking_id = name_run(config)
    data = _load_data(config)
    directory = RunDirectory(out)
    directory.create()
    directory.write_config({**config.to_json(), "tracking_id": tracking_id, "data_hash": data and data.fingerprint})
    return _Training(config, learner, directory, data).run(0, 0)


def resume(path: str | Path, iterations: int | None = None, device: str | None = None) -> RunDirectory:
    """Continue a run from its checkpoint, to the same numbers as if it had never stopped.

    Args:
        path: the run's directory.
        iterations: new total; by default what the run was started with.
        device: to go on with; by default the one the run was started on. Another one gives other numbers.

    Raises:
        InputError: when the directory is not a run, or the run has that many iterations already.
        RunError: as ``train``.
    """
    config, learner, done = load_run(path, device)
    directory = RunDirectory(path)
    if iterations is not None:
        config = dataclasses.replace(config, run=dataclasses.replace(config.run, iterations=iterations))
    if done >= config.run.iterations:
        raise InputError(f"{path} has its {done} iterations; to go on, resume it with a larger --iterations")
    before, data = directory.read_config(), _load_data(config)
    config.check_resumable(before)
    torch.set_num_threads(before["torch_threads"])  # The sums of torch depend on it.
    if data is not None and data.fingerprint != before["data_hash"]:
        raise InputError(f"{data.path} no longer holds the episodes that the run was started with; train a new run")
    own = {name: before.get(name) for name in ("tracking_id", "data_hash")}
    directory.write_config({**config.to_json(), **own})
    # What was measured because the run ended there is none of an uninterrupted one's.
    directory.keep_metrics(done, forget=None if _scheduled(done, config.run.validate_every) else VALIDATION)
    content = directory.load_checkpoint()
    training = _Training(config, learner, directory, data)
    training.task_source.load_state_dict(content.get("task_source", {}))  # runs of before had none
    training.replay_files.load(content.get("replay"))
    return training.run(done, int(content["env_steps"]))


def _load_data(config: TrainConfig) -> RecordedData | None:
    """Read the recorded episodes that a run is to train on, if it is."""
    if config.run.data is None:
        return None
    data = load_recorded(config.run.data, config.run.device)
    data.check(config.make_family(), config.split().fingerprint())
    return data


class _Training:
    def __init__(
        self, config: TrainConfig, learner: Learner, directory: RunDirectory, data: RecordedData | None
    ) -> None:
        self.config, self.learner, self.directory, self.data = config, learner, directory, data
        self.run_config: RunConfig = config.run
        self.split = config.split()
        self.sampler = Sampler(config.make_family(), config.run.device)
        self.task_source = TASK_SOURCES.find(config.run.task_source)(self.split, config.run)
        self.watch = Stopwatch(resolve_device(config.run.device), "sampling", "adaptation", "update")
        self.replay_files = ReplayFiles(directory.replay, learner.replays())
        self.divergence = DivergenceCheck(learner.kl_metric, directory.read_metrics())
        self.deviation: float | None = None  # Of the policy that began the last iteration.
        has_best = directory.best.exists()
        self.best: float | None = directory.load_checkpoint(directory.best)["validation"] if has_best else None

    def run(self, done: int, env_steps: int) -> RunDirectory:
        keep_freed_memory()
        with StopRequest() as stop:
            tracker = track_training(self.config, self.directory)
            try:
                self._loop(done, env_steps, stop, tracker)
            finally:
                tracker.finish()
        return self.directory

    def _loop(self, done: int, env_steps: int, stop: StopRequest, tracker: Tracker) -> None:
        total, curve = self.run_config.iterations, None
        with progress(total, done) as show:
            # A request to stop any process stops all of them, after the same iteration.
            while done < total and self.learner.processes.all(not stop.requested):
                row = self._checked(self._iterate(done, env_steps))
                done, env_steps = done + 1, int(row["env_steps"])
                curve, measured = self._validate_if_due(done, row)
                self.directory.append_metrics(row | measured)
                if done % self.run_config.checkpoint_every == 0:
                    self._save(done, env_steps, curve)
                if curve and _scheduled(done, self.run_config.validate_every):
                    self._save_if_best(done, env_steps, curve)
                tracker.log(row | measured)
                show(row)
        self._save(done, env_steps, curve)
        if curve and done == total:
            draw_adaptation_curve(curve, self.directory.curve, f"{self.config.learner} on {self.config.family}")
            tracker.log_curve(curve, self.directory.curve)
        tracker.log_checkpoints(self.directory)

    def _iterate(self, iteration: int, env_steps: int) -> dict[str, float]:
        self.watch.start()
        try:
            rollouts = self._sample(iteration) if self.data is None else self._draw(self.data, iteration)
            with self.watch("update"):
                metrics = self.learner.update(rollouts)
        except RunError as error:
            self._save(iteration, env_steps)
            kept = f"{self.directory.path} holds the run up to there"
            raise RunError(f"iteration {iteration}: {error}; {kept}") from error
        if self.data is None:
            self.task_source.report(rollouts, iteration)
        self.deviation = policy_deviation(rollouts[0], self.learner.processes)
        return self._row(iteration, env_steps, rollouts, metrics)

    def _checked(self, row: dict[str, float]) -> dict[str, float]:
        """Return the row with ``diverged`` in it.

        Raises:
            RunError: when training has diverged. The row is in metrics.csv; the last checkpoint is from before it.
        """
        sign = self.divergence.sign(row, self.deviation)
        row = {**row, "diverged": float(sign is not None)}
        if sign is not None:
            self.directory.append_metrics(row)
            raise RunError(
                f"training diverged in iteration {int(row['iteration'])}: {sign}; the last good checkpoint is "
                f"{self.directory.describe_checkpoint()}; train with a smaller learning rate or more episodes"
            )
        return row

    def _sample(self, iteration: int) -> list[Rollout]:
        """Sample, adapt, and sample again, as often as the learner adapts in training."""
        run = self.run_config
        tasks = self.task_source.draw(run.tasks_per_batch, run.seed, iteration)
        session = self.sampler.session(self.learner, tasks, run.episodes_per_task)
        rollouts: list[Rollout] = []
        for step in range(self.learner.inner_steps + 1):
            if step > 0:
                with self.watch("adaptation"):
                    session.adapt()
            with self.watch("sampling"):
                rollouts.append(self.sampler.run(session, derive_seed(run.seed, "rollout", iteration, step)))
        return rollouts

    def _draw(self, data: RecordedData, iteration: int) -> list[Rollout]:
        """Draw recorded episodes in place of those that would be sampled."""
        run, count = self.run_config, self.learner.inner_steps + 1
        return data.draw(run.tasks_per_batch, run.episodes_per_task, count, run.seed, iteration)

    def _row(
        self, iteration: int, env_steps: int, rollouts: list[Rollout], metrics: dict[str, float]
    ) -> dict[str, float]:
        """Return the iteration's row of metrics.csv; ``env_steps`` are those of the iterations before."""
        first, last = rollouts[0], rollouts[-1]
        returns = [self._mean(rollout.episode_returns()) for rollout in (first, last)]
        successes = [rollout.episode_success() for rollout in (first, last)]
        rates = [self._mean(success.float()) for success in successes if success is not None]
        seconds = self.watch.seconds()
        sampled = sum(rollout.env_steps for rollout in rollouts) if self.data is None else 0
        fresh = sum(self.learner.processes.counts(sampled))
        return {
            "iteration": iteration,
            "env_steps": env_steps + fresh,
            "env_steps_per_second": fresh / seconds["time_iteration"],
            **returns_row(returns, rates or None),
            **metrics,
            **seconds,
        }

    def _mean(self, values: Tensor) -> float:
        """Return the mean of ``[N, E]`` over the tasks of all processes."""
        processes = self.learner.processes
        return processes.mean(processes.weight(len(values)) * values.mean()).item()

    def _save(self, done: int, env_steps: int, curve: AdaptationCurve | None = None) -> None:
        replay = self.replay_files.save()
        self.directory.save_checkpoint({**self._content(done, env_steps, curve), "replay": replay})
        self.replay_files.remove_others()

    def _save_if_best(self, done: int, env_steps: int, curve: AdaptationCurve) -> None:
        value = _score(curve)
        if self.best is None or value > self.best:
            self.best = value
            self.directory.save_checkpoint(self._content(done, env_steps, curve), self.directory.best)

    def _content(self, done: int, env_steps: int, curve: AdaptationCurve | None) -> dict[str, Any]:
        return {
            "learner": self.learner.state_dict(),
            "task_source": self.task_source.state_dict(),
            "iteration": done,
            "env_steps": env_steps,
            "validation": None if curve is None else _score(curve),
        }

    def _validate_if_due(self, done: int, row: dict[str, float]) -> tuple[AdaptationCurve | None, Row]:
        """Return the adaptation curve if one is due after so many iterations, and its columns, empty if none is."""
        empty: Row = {f"{VALIDATION}{name}": None for name in row if f"{VALIDATION}{name}" in METRICS}
        if done < self.run_config.iterations and not _scheduled(done, self.run_config.validate_every):
            return None, empty
        try:
            curve = self._validate()
        except RunError as error:
            self.directory.append_metrics(row | empty)
            self._save(done, int(row["env_steps"]))
            kept = f"{self.directory.path} holds the run up to there"
            raise RunError(f"validation after iteration {done - 1}: {error}; {kept}") from error
        rates = None if curve.success is None else curve.success.mean(0).tolist()
        return curve, {**returns_row(curve.returns.mean(0).tolist(), rates, VALIDATION)}

    def _validate(self) -> AdaptationCurve:
        """Measure adaptation on validation tasks; the test tasks wait for ``evaluate``.

        Always with the same random numbers, so that a run's checkpoints are compared on equal terms.
        """
        tasks = self.split.held_out_tasks("validation", VALIDATION_TASKS)
        steps, episodes = self.learner.inner_steps, self.run_config.episodes_per_task
        return adaptation_curve(self.learner, self.sampler, tasks, steps, episodes, "validation")


def _scheduled(done: int, validate_every: int) -> bool:
    return validate_every > 0 and done % validate_every == 0


def _score(curve: AdaptationCurve) -> float:
    return float(curve.returns[:, -1].mean())
