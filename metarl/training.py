"""The training loop: sample, adapt, sample again, update, record; it may be stopped at any moment and resumed."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from metarl.checkpointing import Checkpoints, go_back_to, is_scheduled
from metarl.config import RunConfig, TrainConfig, resolve_device
from metarl.divergence import DivergenceCheck, policy_deviation
from metarl.errors import InputError, RunError
from metarl.evaluation import AdaptationCurve, adaptation_curve, load_run
from metarl.figures import draw_adaptation_curve
from metarl.files import write_json
from metarl.learner import Learner
from metarl.lock import RunLock
from metarl.loop_tools import StopRequest, Stopwatch, progress
from metarl.metrics import METRICS, VALIDATION, VALIDATION_TASKS, returns_row
from metarl.recorded import RecordedData, load_recorded
from metarl.rollout import Rollout
from metarl.run_directory import RunDirectory
from metarl.run_identity import tracking_id_of
from metarl.runtime import keep_freed_memory
from metarl.sampler import Sampler
from metarl.seeding import derive_seed
from metarl.task_source import TASK_SOURCES
from metarl.tracking.tracker import Tracker
from metarl.tracking.tracking import name_run, track_training, tracking_mode

Row = dict[str, float | None]


def train(config: TrainConfig, stop: StopRequest | None = None) -> RunDirectory:
    """Train a learner from the start.

    Progress is shown when standard error is a terminal. Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 end the run after the
    current iteration, with a checkpoint.

    Args:
        config: what to train, how, and where its run directory goes.
        stop: which receives those signals, for a caller that asks afterwards whether there was one.

    Returns:
        The run directory. ``metrics.csv`` has fewer rows than ``iterations`` when the run was stopped.

    Raises:
        InputError: when the run directory cannot be written, holds something already, or is in use.
        RunError: when sampling, an update or writing fails; the run up to then is in the run directory.
    """
    learner = config.make_learner()
    config.split().held_out_tasks("train", 1)  # raises where there are fewer training tasks than asked for
    tracking_mode(config.run.track)
    out, tracking_id = name_run(config)
    data = _load_data(config)
    directory = RunDirectory(out)
    directory.make()
    with RunLock(directory.path) as lock:
        directory.require_empty()
        directory.write_config(
            {**config.to_json(None if data is None else data.fingerprint), "tracking_id": tracking_id}
        )
        return _Training(config, learner, directory, data, lock).run(0, 0, stop)


def resume(
    path: str | Path,
    iterations: int | None = None,
    device: str | None = None,
    redraw: Sequence[int] = (),
    stop: StopRequest | None = None,
) -> RunDirectory:
    """Continue a run from its latest checkpoint, to the same numbers as if it had never stopped.

    Args:
        path: the run's directory.
        iterations: new total; by default what the run was started with.
        device: to go on with; by default the one the run was started on. Another one gives other numbers.
        redraw: iterations whose tasks and episodes are drawn from other random streams, in addition to those of before.
        stop: as ``train``.

    Raises:
        InputError: when the directory is not a run or is in use, or the run has that many iterations already.
        RunError: as ``train``.
    """
    directory = RunDirectory(path)
    directory.read_config()
    with RunLock(directory.path) as lock:
        before = directory.read_config()
        config = TrainConfig.from_json(before, device).resumed(iterations, redraw)
        data = _load_data(config)
        if data is not None and data.fingerprint != before["data_hash"]:
            raise InputError(f"{data.path} no longer holds the episodes that the run was started with; train a new run")
        config.check_resumable(before)
        torch.set_num_threads(before["torch_threads"])  # The sums of torch depend on it.
        # Of the entries of config.json only those are written anew that a resumed run may change.
        run = {**before["run"], **{name: getattr(config.run, name) for name in ("iterations", "device", "redraw")}}
        if not directory.checkpoint_files() and not directory.read_metrics():  # killed before its first checkpoint
            directory.write_config({**before, "run": run})
            return _Training(config, config.make_learner(), directory, data, lock).run(0, 0, stop)
        _, learner, done = load_run(path, device)
        if done > config.run.iterations or done == directory.finished_iterations() == config.run.iterations:
            raise InputError(f"{path} has its {done} iterations; to go on, resume it with a larger --iterations")
        content = directory.load_checkpoint()
        directory.write_config({**before, "run": run, "tracking_id": tracking_id_of(directory, before, content)})
        if done < config.run.iterations:
            go_back_to(directory, content)
        training = _Training(config, learner, directory, data, lock)
        training.checkpoints.restore(content)
        return training.run(done, int(content["env_steps"]), stop)


def _load_data(config: TrainConfig) -> RecordedData | None:
    """Read the recorded episodes that a run is to train on, if it is."""
    if config.run.data is None:
        return None
    data = load_recorded(config.run.data, config.run.device)
    data.check(config.make_family(), config.split().fingerprint())
    return data


class _Training:
    def __init__(
        self,
        config: TrainConfig,
        learner: Learner,
        directory: RunDirectory,
        data: RecordedData | None,
        lock: RunLock,
    ) -> None:
        self.config, self.learner, self.directory, self.data, self.lock = config, learner, directory, data, lock
        self.run_config: RunConfig = config.run
        self.split = config.split()
        self.sampler = Sampler(config.make_family(), config.run.device)
        self.task_source = TASK_SOURCES.find(config.run.task_source)(self.split, config.run)
        self.watch = Stopwatch(resolve_device(config.run.device), "sampling", "adaptation", "update")
        self.checkpoints = Checkpoints(directory, config.run, learner, self.task_source, lock)
        self.divergence = DivergenceCheck(learner.kl_metric, directory.read_metrics())
        self.deviation: float | None = None  # Of the policy that began the last iteration.

    def run(self, done: int, env_steps: int, stop: StopRequest | None) -> RunDirectory:
        keep_freed_memory()
        if self.checkpoints.latest is None:
            with self.checkpoints.writing(0):
                self.checkpoints.save(0, 0)
        with stop or StopRequest() as request:
            tracker = track_training(self.config, self.directory)
            try:
                done = self._loop(done, env_steps, request, tracker)
            finally:
                tracker.finish()
        if done == self.run_config.iterations:
            with self.checkpoints.writing(done):
                write_json(self.directory.finished, {"iterations": done})
        return self.directory

    def _loop(self, done: int, env_steps: int, stop: StopRequest, tracker: Tracker) -> int:
        """Train until all iterations are done or the run is stopped; return how many there are then."""
        total, curve = self.run_config.iterations, None
        with progress(total, done) as show:
            # A request to stop any process stops all of them, after the same iteration.
            while done < total and self.learner.processes.all(not stop.requested):
                row = self._checked(self._iterate(done, env_steps))
                done, env_steps = done + 1, int(row["env_steps"])
                curve, measured = self._validate_if_due(done, row)
                score = None if curve is None else _score(curve)
                with self.checkpoints.writing(done):
                    self.lock.check()
                    self.directory.append_metrics(row | measured)
                    if self.checkpoints.is_due(done, score):
                        self.checkpoints.save(done, env_steps, score)
                tracker.log(row | measured)
                show(row)
        with self.checkpoints.writing(done):
            if self.checkpoints.latest != done:
                self.checkpoints.save(done, env_steps, None if curve is None else _score(curve))
            if done == total:
                self._draw(curve or self._validate(), tracker)
        tracker.log_checkpoints(self.directory)
        return done

    def _draw(self, curve: AdaptationCurve, tracker: Tracker) -> None:
        draw_adaptation_curve(curve, self.directory.curve, f"{self.config.learner} on {self.config.family}")
        tracker.log_curve(curve, self.directory.curve)

    def _iterate(self, iteration: int, env_steps: int) -> dict[str, float]:
        self.watch.start()
        try:
            rollouts = self._sample(iteration) if self.data is None else self._read(self.data, iteration)
            with self.watch("update"):
                metrics = self.learner.update(rollouts)
        except RunError as error:
            with self.checkpoints.writing(iteration):
                self.checkpoints.save_if_finite(iteration, env_steps)
            raise RunError(
                f"iteration {iteration}: {error}; {self.checkpoints.describe()}; if it fails there again, add --redraw "
                f"{iteration}, which draws that iteration's tasks and episodes anew"
            ) from error
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
            with self.checkpoints.writing(int(row["iteration"])):
                self.directory.append_metrics(row)
            raise RunError(
                f"training diverged in iteration {int(row['iteration'])}: {sign}; {self.checkpoints.describe()}; train "
                "with a smaller learning rate or more episodes"
            )
        return row

    def _sample(self, iteration: int) -> list[Rollout]:
        """Sample, adapt, and sample again, as often as the learner adapts in training."""
        run, seed = self.run_config, self._seed(iteration)
        tasks = self.task_source.draw(run.tasks_per_batch, seed, iteration)
        session = self.sampler.session(self.learner, tasks, run.episodes_per_task)
        rollouts: list[Rollout] = []
        for step in range(self.learner.inner_steps + 1):
            if step > 0:
                with self.watch("adaptation"):
                    session.adapt()
            with self.watch("sampling"):
                rollouts.append(self.sampler.run(session, derive_seed(seed, "rollout", iteration, step)))
        return rollouts

    def _read(self, data: RecordedData, iteration: int) -> list[Rollout]:
        """Draw recorded episodes in place of those that would be sampled."""
        run, count = self.run_config, self.learner.inner_steps + 1
        return data.draw(run.tasks_per_batch, run.episodes_per_task, count, self._seed(iteration), iteration)

    def _seed(self, iteration: int) -> int:
        """Return the seed of an iteration's tasks and episodes: the run's, unless they are to be drawn anew."""
        run = self.run_config
        times = run.redraw.count(iteration)
        return derive_seed(run.seed, "redraw", times) if times else run.seed

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

    def _validate_if_due(self, done: int, row: dict[str, float]) -> tuple[AdaptationCurve | None, Row]:
        """Return the adaptation curve if one is due after so many iterations, and its columns, empty if none is."""
        empty: Row = {f"{VALIDATION}{name}": None for name in row if f"{VALIDATION}{name}" in METRICS}
        if done < self.run_config.iterations and not is_scheduled(done, self.run_config.validate_every):
            return None, empty
        try:
            curve = self._validate()
        except RunError as error:
            with self.checkpoints.writing(done):
                self.directory.append_metrics(row | empty)
                self.checkpoints.save_if_finite(done, int(row["env_steps"]))
            raise RunError(f"validation after iteration {done - 1}: {error}; {self.checkpoints.describe()}") from error
        rates = None if curve.success is None else curve.success.mean(0).tolist()
        return curve, {**returns_row(curve.returns.mean(0).tolist(), rates, VALIDATION)}

    def _validate(self) -> AdaptationCurve:
        """Measure adaptation on validation tasks; the test tasks wait for ``evaluate``.

        Always with the same random numbers, so that a run's checkpoints are compared on equal terms.
        """
        tasks = self.split.held_out_tasks("validation", VALIDATION_TASKS)
        steps, episodes = self.learner.inner_steps, self.run_config.episodes_per_task
        return adaptation_curve(self.learner, self.sampler, tasks, steps, episodes, "validation")


def _score(curve: AdaptationCurve) -> float:
    return float(curve.returns[:, -1].mean())
