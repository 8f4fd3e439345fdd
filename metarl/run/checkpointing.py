"""When a training run writes checkpoints, which ones it keeps, and what it resumes from."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from metarl.errors import InputError, RunError
from metarl.learning.learner import Learner
from metarl.run.config import RunConfig
from metarl.run.config_file import config_hash
from metarl.run.directory import RunDirectory, iteration_of
from metarl.run.identity import place_of
from metarl.run.metrics import VALIDATION
from metarl.run.metrics_file import digest
from metarl.run.replay_files import ReplayFiles, check_replay
from metarl.sampling.task_source import TaskSource
from metarl.storage.checkpoint_format import find_not_finite
from metarl.storage.lock import RunLock

KEPT = 3  # number of latest checkpoints to keep, besides the best


@dataclass(frozen=True)
class _Kept:
    """What is needed of a checkpoint: its validation return, whether that was scheduled, and its replay files."""

    validation: float | None
    scheduled: bool
    replay: frozenset[str]


class Checkpoints:
    """The checkpoints of a training run: the latest few, and those with the best validation returns.

    The best one is not recorded anywhere: it follows from the validation returns in the checkpoints themselves, so it
    is known even if a run is killed between two writes. With several processes the first alone
    reads and writes, and all call the same methods.

    Args:
        directory: directory of the run.
        run: settings of the run.
        learner: the learner in training.
        task_source: source of its tasks.
        lock: lock on the directory, checked before anything is written.

    Attributes:
        best_kept: number of checkpoints with the best validation returns to keep.
    """

    def __init__(
        self, directory: RunDirectory, run: RunConfig, learner: Learner, task_source: TaskSource, lock: RunLock
    ) -> None:
        self._directory, self._run, self._learner, self._task_source = directory, run, learner, task_source
        self._processes = learner.processes
        self.best_kept = 1
        self._lock, self._replay_files = lock, ReplayFiles(directory.replay, learner.replays(), self._processes)
        config = self._processes.from_first(directory.read_config)
        self._about = {
            "tracking_id": config["tracking_id"],
            "config_hash": config_hash(config),
            "place": place_of(directory),
        }
        self._kept = self._processes.from_first(self._read_kept)
        self._saved_at = time.monotonic()

    def _read_kept(self) -> dict[int, _Kept]:
        files = self._directory.checkpoint_files()
        return {iteration_of(path): _kept(self._directory.load_checkpoint(path)) for path in files}

    @property
    def latest(self) -> int | None:
        """Number of iterations at the latest checkpoint, or None before the first."""
        return max(self._kept, default=None)

    def restore(self, content: Mapping[str, Any]) -> None:
        """Restore the task source's state and the replay buffers of a checkpoint."""
        self._task_source.load_state_dict(content["task_source"])
        self._replay_files.load(content["replay"])

    def is_due(self, done: int, validation: float | None) -> bool:
        """Return whether a checkpoint should be written after ``done`` iterations.

        Args:
            done: number of iterations.
            validation: validation return after them, if it was measured.
        """
        minutes = (time.monotonic() - self._saved_at) / 60
        by_time = 0 < self._run.checkpoint_minutes <= minutes
        return done % self._run.checkpoint_every == 0 or by_time or self._would_be_best(done, validation)

    def _would_be_best(self, done: int, validation: float | None) -> bool:
        if validation is None or not is_scheduled(done, self._run.validate_every):
            return False
        values = sorted(self._scheduled_values().values(), reverse=True)
        return len(values) < self.best_kept or validation > values[self.best_kept - 1]

    def save(self, done: int, env_steps: int, validation: float | None = None) -> None:
        """Write a checkpoint, and remove those that are no longer needed.

        Raises:
            RunError: if a value is not finite, in which case the latest checkpoint remains the last good one; if the
                parameters of processes differ; or if another process has taken over the run.
        """
        learned = {"learner": self._learner.state_dict(), "task_source": self._task_source.state_dict()}
        if (broken := find_not_finite(learned)) is not None:
            raise RunError(f"{broken} is not finite after {done} iterations: training has diverged; {self.describe()}")
        self._processes.check_equal(lambda: learned)
        self._processes.from_first(self._before_writing)
        scheduled = is_scheduled(done, self._run.validate_every)
        content = {
            **learned,
            **self._about,
            "metrics_hashes": self._processes.from_first(lambda: self._digests(done, scheduled)),
            "iteration": done,
            "env_steps": env_steps,
            "validation": validation if validation is not None and math.isfinite(validation) else None,
            "scheduled": scheduled,
            "replay": self._replay_files.save(),
        }
        self._processes.from_first(lambda: self._directory.save_checkpoint(content))
        self._kept[done] = _kept(content)
        self._saved_at = time.monotonic()
        self._remove_superfluous()

    def _before_writing(self) -> None:
        self._lock.check()
        self._directory.sync_metrics()

    def save_if_finite(self, done: int, env_steps: int) -> None:
        """Write a checkpoint before the run ends with an error, unless one exists or it would not be finite."""
        learned = [self._learner.state_dict(), self._task_source.state_dict()]
        if done != self.latest and find_not_finite(learned) is None:
            self.save(done, env_steps)

    def describe(self) -> str:
        """Return a sentence about the last good checkpoint and what can be done with it."""
        return (
            f"{self._directory.path} contains the run up to the checkpoint of iteration {self.latest}; evaluate it "
            f"with metarl evaluate {self._directory.path}, or continue it with metarl train --resume "
            f"{self._directory.path}"
        )

    @contextmanager
    def writing(self, done: int) -> Iterator[None]:
        """Turn failures to write files inside the block into errors of one line.

        Raises:
            RunError: if writing fails (full disk, permissions), naming the file and what to do.
        """
        try:
            yield
        except OSError as error:
            raise RunError(
                f"iteration {done}: cannot write {error.filename}: {error.strerror}; {self._directory.path} contains "
                f"the run up to the checkpoint of iteration {self.latest or 0}: fix this, then run "
                f"metarl train --resume {self._directory.path}"
            ) from error

    def _scheduled_values(self) -> dict[int, float]:
        """Return the scheduled validation returns by iteration, in ascending order."""
        return {
            iteration: kept.validation
            for iteration, kept in sorted(self._kept.items())
            if kept.scheduled and kept.validation is not None
        }

    def _remove_superfluous(self) -> None:
        """Remove checkpoints other than the latest and the best, and replay files that none of the latest refers to."""
        latest, values = sorted(self._kept)[-KEPT:], self._scheduled_values()
        best = sorted(values, key=lambda iteration: -values[iteration])[: self.best_kept]  # the first of equals
        self._kept = {key: kept for key, kept in self._kept.items() if key in (*latest, *best)}
        needed = frozenset[str]().union(*(self._kept[iteration].replay for iteration in latest))
        self._processes.from_first(lambda: self._remove_others(needed))

    def _digests(self, done: int, scheduled: bool) -> list[str]:
        """Return the hashes that rows may have: a resumed run forgets a validation made only because the run ended."""
        rows = self._directory.read_metrics()[:done]
        return [digest(rows), digest(rows, None if scheduled else VALIDATION)]

    def _remove_others(self, needed: frozenset[str]) -> None:
        for path in self._directory.checkpoint_files():
            if iteration_of(path) not in self._kept:
                path.unlink()
        self._replay_files.remove_others(needed)


def check_whole(directory: RunDirectory, content: Mapping[str, Any]) -> None:
    """Make sure that everything that a resumed run reads is there and whole, before anything is discarded.

    Args:
        directory: of the run.
        content: its latest checkpoint.

    Raises:
        InputError: naming the file that is not.
    """
    for path in directory.checkpoint_files():
        directory.load_checkpoint(path)
    check_metrics(directory, content)
    check_replay(directory.replay, content["replay"])


def go_back_to(directory: RunDirectory, content: Mapping[str, Any], goes_on: bool) -> None:
    """Discard everything after the latest checkpoint.

    If the run goes on, this includes a validation made only because the run ended there: an uninterrupted run would not
    have it, and might select another best checkpoint.
    """
    forgets = goes_on and not content["scheduled"]
    if forgets and content["validation"] is not None:
        directory.save_checkpoint({**content, "validation": None})
    directory.keep_metrics(int(content["iteration"]), forget=VALIDATION if forgets else None)


def check_metrics(directory: RunDirectory, content: Mapping[str, Any]) -> None:
    """Make sure that metrics.csv has the rows that it had when a checkpoint was written.

    Raises:
        InputError: when it does not.
    """
    done = int(content["iteration"])
    if digest(directory.metrics_until(done)) not in content["metrics_hashes"]:
        raise InputError(
            f"{directory.metrics} has changed since the checkpoint of iteration {done} was written; restore it, or "
            "start a new run"
        )


def is_scheduled(done: int, validate_every: int) -> bool:
    """Return whether a validation is due after ``done`` iterations, wherever the run ends."""
    return validate_every > 0 and done % validate_every == 0


def _kept(content: Mapping[str, Any]) -> _Kept:
    files = frozenset(segment["file"] for replay in content["replay"].values() for segment in replay["segments"])
    return _Kept(content["validation"], content["scheduled"], files)
