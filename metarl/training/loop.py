"""The training loop: sample, adapt, sample again, update, record.

Every process of a run executes the same loop on its own tasks; only the first one reads and writes files.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from torch import Tensor

from metarl.devices.choice import resolve_device
from metarl.devices.runtime import keep_freed_memory
from metarl.errors import RunError
from metarl.evaluation.evaluate import adaptation_curve
from metarl.evaluation.figures import draw_adaptation_curve
from metarl.learning.learner import Learner
from metarl.rollouts.rollout import Rollout, known_successes
from metarl.run.adaptation_curve import AdaptationCurve
from metarl.run.checkpointing import Checkpoints, is_scheduled
from metarl.run.config import RunConfig, TrainConfig
from metarl.run.directory import RunDirectory
from metarl.run.metrics import METRICS, VALIDATION, VALIDATION_TASKS, returns_row
from metarl.run.recorded import RecordedData
from metarl.sampling.sampler import Sampler
from metarl.sampling.task_source import TASK_SOURCES
from metarl.seeding import derive_seed
from metarl.storage.files import write_json
from metarl.storage.lock import RunLock
from metarl.tracking.tracker import NoTracker, Tracker
from metarl.tracking.tracking import track_training
from metarl.training.callbacks import Callback, Logged, Training
from metarl.training.divergence import DivergenceCheck, policy_deviation
from metarl.training.initial_pool import collect_initial_pool
from metarl.training.loop_tools import StopRequest, Stopwatch, checked_metrics, progress

Row = dict[str, float | None]
COMPARED_EVERY = 10  # iterations between comparisons of the processes' parameters


class TrainingLoop:
    """The training of one run, in one of its processes.

    Args:
        config: of the run.
        learner: untrained, or restored from the latest checkpoint.
        directory: of the run; only the first process reads and writes it.
        data: recorded episodes to train on; None to sample them.
        lock: on the directory.
        callbacks: called in this order.

    Attributes:
        checkpoints: of the run.
    """

    def __init__(
        self,
        config: TrainConfig,
        learner: Learner,
        directory: RunDirectory,
        data: RecordedData | None,
        lock: RunLock,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.config, self.learner, self.directory, self.data, self.lock = config, learner, directory, data, lock
        self.processes = learner.processes
        self.run_config: RunConfig = config.run
        self.split = config.split()
        self.sampler = Sampler(config.make_family(), config.run.device)
        self.task_source = TASK_SOURCES.find(config.run.task_source)(self.split, config.run)
        self.task_source.processes = self.processes
        self.watch = Stopwatch(resolve_device(config.run.device), "sampling", "adaptation", "update")
        self.checkpoints = Checkpoints(directory, config.run, learner, self.task_source, lock)
        self.divergence = DivergenceCheck(learner.kl_metric, self.processes.from_first(directory.read_metrics))
        self.training = Training(config, learner, directory, self.checkpoints)
        self.callbacks = [Logged(), *callbacks]
        self.deviation: float | None = None  # Of the policy at the start of the last iteration.

    def run(self, done: int, env_steps: int, stop: StopRequest | None) -> RunDirectory:
        """Continue after ``done`` iterations and ``env_steps`` steps until all are done or a stop is requested.

        Raises:
            RunError: as in ``metarl.training.train.train``.
        """
        keep_freed_memory()
        if self.checkpoints.latest is None:
            with self.checkpoints.writing(0):
                self.checkpoints.save(0, 0)
        with stop or StopRequest() as request:
            tracker = track_training(self.config, self.directory) if self.processes.rank == 0 else NoTracker()
            try:
                done = self._loop(done, env_steps, request, tracker)
            finally:
                tracker.finish()
        if done == self.run_config.iterations:
            with self.checkpoints.writing(done):
                self.processes.from_first(lambda: write_json(self.directory.finished, {"iterations": done}))
        return self.directory

    def _loop(self, done: int, env_steps: int, stop: StopRequest, tracker: Tracker) -> int:
        """Train until all iterations are done or a stop is requested; return the number done."""
        total, curve = self.run_config.iterations, None
        self.training.iteration = done
        self._call(lambda callback: callback.on_start(self.training))
        with progress(total, done, hidden=self.processes.rank > 0) as show:
            # A request to stop one process stops all of them after the same iteration.
            while done < total and self.processes.all(not (stop.requested or self.training.stop_reason)):
                row = self._checked(self._iterate(done, env_steps))
                done, env_steps = done + 1, int(row["env_steps"])
                curve, measured = self._validate_if_due(done, row)
                score = None if curve is None else _score(curve)
                self._call_after(done, {**row, **measured}, curve, score)
                with self.checkpoints.writing(done):
                    if self.processes.from_first(partial(self._record, done, {**row, **measured}, score)):
                        self.checkpoints.save(done, env_steps, score)
                        self._call(lambda callback: callback.on_checkpoint(self.training))
                if done % COMPARED_EVERY == 0:
                    self.processes.check_equal(self.learner.state_dict)
                tracker.log(row | measured | self.training.take_logged())
                if (every := self.run_config.histogram_every) and done % every == 0:
                    tracker.log_histograms(row, self.learner.parameters)
                show(row)
        with self.checkpoints.writing(done):
            if self.checkpoints.latest != done:
                self.checkpoints.save(done, env_steps, None if curve is None else _score(curve))
            if done == total:
                last = curve or self._validate()
                self.processes.from_first(lambda: self._draw(last, tracker))
        tracker.log_checkpoints(self.directory)
        self._call(lambda callback: callback.on_end(self.training))
        return done

    def _call_after(self, done: int, row: Row, curve: AdaptationCurve | None, score: float | None) -> None:
        """Call the callbacks after an iteration, and after its validation if there was one."""
        self.training.iteration, self.training.row = done, row
        self._call(lambda callback: callback.on_iteration(self.training))
        if curve is not None and score is not None:
            self.training.validations.append(score)
            self._call(lambda callback: callback.on_validation(self.training, curve))

    def _call(self, hook: Callable[[Callback], None]) -> None:
        for callback in self.callbacks:
            hook(callback)

    def _record(self, done: int, row: Row, score: float | None) -> bool:
        """Write the row of an iteration; return whether a checkpoint is due."""
        self._append(row)
        return self.checkpoints.is_due(done, score)

    def _append(self, row: Mapping[str, float | None]) -> None:
        self.lock.check()
        self.directory.append_metrics(row)

    def _draw(self, curve: AdaptationCurve, tracker: Tracker) -> None:
        draw_adaptation_curve(curve, self.directory.curve, f"{self.config.learner} on {self.config.family}")
        tracker.log_curve(curve, self.directory.curve)

    def _iterate(self, iteration: int, env_steps: int) -> dict[str, float]:
        self.watch.start()
        try:
            pooled = self._fill() if iteration == 0 else 0
            rollouts = self._sample(iteration) if self.data is None else self._read(self.data, iteration)
            with self.watch("update"):
                metrics = self.learner.update(rollouts)
        except RunError as error:
            with self.checkpoints.writing(iteration):
                self.checkpoints.save_if_finite(iteration, env_steps)
            raise RunError(
                f"iteration {iteration}: {error}; {self.checkpoints.describe()}; if it fails there again, add --redraw "
                f"{iteration}, which draws other tasks and episodes in that iteration"
            ) from error
        if self.data is None:
            self.task_source.report(rollouts, iteration)
        self.deviation = policy_deviation(rollouts[0], self.processes)
        return self._row(iteration, env_steps, pooled, rollouts, checked_metrics(metrics, self.config.learner))

    def _fill(self) -> int:
        """Fill a replay buffer before the first update, if the learner wants that; return the env steps."""
        with self.watch("sampling"):
            return collect_initial_pool(self.learner, self.sampler, self.split, self.run_config, self._seed(0))

    def _checked(self, row: dict[str, float]) -> dict[str, float]:
        """Return the row with the metric ``diverged``.

        Raises:
            RunError: when training has diverged. The row is in metrics.csv; the last checkpoint is earlier.
        """
        sign = self.divergence.sign(row, self.deviation)
        row = {**row, "diverged": float(sign is not None)}
        if sign is not None:
            with self.checkpoints.writing(int(row["iteration"])):
                self.processes.from_first(lambda: self._append(row))
            raise RunError(
                f"training diverged in iteration {int(row['iteration'])}: {sign}; {self.checkpoints.describe()}; train "
                "with a smaller learning rate or more episodes"
            )
        return row

    def _sample(self, iteration: int) -> list[Rollout]:
        """Sample a rollout, then adapt and sample again as often as the learner adapts in training."""
        run, seed = self.run_config, self._seed(iteration)
        shard = self.processes.shard(run.tasks_per_batch)
        tasks = self.task_source.draw(run.tasks_per_batch, seed, iteration)
        session = self.sampler.session(self.learner, tasks[shard.rows], run.episodes_per_task, shard)
        rollouts: list[Rollout] = []
        for step in range(self.learner.inner_steps + 1):
            if step > 0:
                with self.watch("adaptation"):
                    session.adapt()
                before, tasks = tasks, self.task_source.follow(tasks, seed, iteration, step)
                if tasks is not before:
                    session.change(tasks[shard.rows])
            with self.watch("sampling"):
                collect = partial(self.sampler.run, session, derive_seed(seed, "rollout", iteration, step))
                rollouts.append(self.processes.together(collect))
        return rollouts

    def _read(self, data: RecordedData, iteration: int) -> list[Rollout]:
        """Draw recorded episodes instead of sampling."""
        run, count = self.run_config, self.learner.inner_steps + 1
        shard = self.processes.shard(run.tasks_per_batch)
        wanted = run.tasks_per_batch, run.episodes_per_task, count
        return data.draw(*wanted, self._seed(iteration), iteration, shard.rows, self.learner.stride)

    def _seed(self, iteration: int) -> int:
        """Return the seed of an iteration's tasks and episodes: the run's, or another one after ``--redraw``."""
        run = self.run_config
        times = run.redraw.count(iteration)
        return derive_seed(run.seed, "redraw", times) if times else run.seed

    def _row(
        self, iteration: int, env_steps: int, pooled: int, rollouts: list[Rollout], metrics: dict[str, float]
    ) -> dict[str, float]:
        """Return the iteration's row of metrics.csv.

        Args:
            iteration: its number.
            env_steps: count before it.
            pooled: steps taken in it besides the rollouts'.
            rollouts: of it.
            metrics: of its update.
        """
        first, last = rollouts[0], rollouts[-1]
        returns = [self._mean(rollout.episode_returns()) for rollout in (first, last)]
        found = [rollout.episode_success() for rollout in (first, last)]
        successes = known_successes(found, first.rewards[..., 0], self.processes)
        rates = [self._mean(success.float()) for success in successes]
        seconds = self.watch.seconds()
        sampled = sum(rollout.env_steps for rollout in rollouts) if self.data is None else 0
        fresh = pooled + sum(self.processes.counts(sampled))
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
        return self.processes.mean(self.processes.weight(len(values)) * values.mean()).item()

    def _validate_if_due(self, done: int, row: dict[str, float]) -> tuple[AdaptationCurve | None, Row]:
        """Return the adaptation curve and its columns; None and empty columns if validation is not due."""
        empty: Row = {f"{VALIDATION}{name}": None for name in row if f"{VALIDATION}{name}" in METRICS}
        if done < self.run_config.iterations and not is_scheduled(done, self.run_config.validate_every):
            return None, empty
        try:
            curve = self._validate()
        except RunError as error:
            with self.checkpoints.writing(done):
                self.processes.from_first(lambda: self._append({**row, **empty}))
                self.checkpoints.save_if_finite(done, int(row["env_steps"]))
            raise RunError(f"validation after iteration {done - 1}: {error}; {self.checkpoints.describe()}") from error
        rates = None if curve.success is None else curve.success.mean(0).tolist()
        return curve, {**returns_row(curve.returns.mean(0).tolist(), rates, VALIDATION)}

    def _validate(self) -> AdaptationCurve:
        """Measure adaptation on validation tasks; test tasks are for ``evaluate`` only.

        The random numbers are the same each time, so that checkpoints of a run are compared on equal terms.
        """
        tasks = self.split.held_out_tasks("validation", VALIDATION_TASKS)
        steps, episodes = self.learner.inner_steps, self.run_config.episodes_per_task
        return adaptation_curve(self.learner, self.sampler, tasks, steps, episodes, "validation")


def _score(curve: AdaptationCurve) -> float:
    return float(curve.returns[:, -1].mean())
