"""Callbacks: your own code at the start of a run, after each iteration, validation and checkpoint, and at the end.

They are called in every process of a run, with the same rows. What a callback changes is not in config.json, so pass
the same callbacks to ``metarl.resume``.
"""

import logging
import time
from collections.abc import Mapping, Sequence

from metarl.errors import InputError
from metarl.learning.learner import Learner
from metarl.run.adaptation_curve import AdaptationCurve
from metarl.run.checkpointing import Checkpoints
from metarl.run.config import TrainConfig
from metarl.run.directory import RunDirectory
from metarl.run.metrics import VALIDATION
from metarl.validation import require_count, require_positive

LOGGER = logging.getLogger("metarl")


class Training:
    """A run in training, as callbacks see it.

    Attributes:
        config: of the run.
        learner: that is trained. Callbacks may change it between updates, for example by a schedule of their own.
        directory: of the run; only the first process may write there.
        checkpoints: of the run.
        iteration: number of iterations done.
        row: the latest row of metrics.csv, by column; empty before the first iteration.
        validations: mean return after adaptation on validation tasks, of all validations of the run so far.
        stop_reason: why the run was stopped by a callback, or None.
    """

    def __init__(
        self, config: TrainConfig, learner: Learner, directory: RunDirectory, checkpoints: Checkpoints
    ) -> None:
        self.config, self.learner, self.directory, self.checkpoints = config, learner, directory, checkpoints
        self.iteration = 0
        self.row: Mapping[str, float | None] = {}
        self.stop_reason: str | None = None
        self._logged: dict[str, float] = {}
        rows = learner.processes.from_first(directory.read_metrics)
        values = [row.get(f"{VALIDATION}return_after") for row in rows]
        self.validations = [value for value in values if value is not None]

    def stop(self, reason: str) -> None:
        """End the run after this iteration, with a checkpoint; it can be resumed."""
        self.stop_reason = reason

    def log(self, name: str, value: float) -> None:
        """Send a number to the tracker (W&B or TensorBoard) with this iteration's metrics; metrics.csv is unchanged."""
        self._logged[name] = value

    def take_logged(self) -> dict[str, float]:
        """Return what was logged since the last call."""
        logged, self._logged = self._logged, {}
        return logged


class Callback:
    """The hooks of a run; each does nothing unless overridden."""

    def check(self, config: TrainConfig) -> None:
        """Called before anything is written; raise ``InputError`` if the run's settings do not fit."""

    def on_start(self, training: Training) -> None:
        """Called before the first iteration of this process."""

    def on_iteration(self, training: Training) -> None:
        """Called after each iteration."""

    def on_validation(self, training: Training, curve: AdaptationCurve) -> None:
        """Called after each validation, after ``on_iteration``."""

    def on_checkpoint(self, training: Training) -> None:
        """Called after each checkpoint."""

    def on_end(self, training: Training) -> None:
        """Called when the run is complete or was stopped, but not when it failed."""


class Logged(Callback):
    """Writes the course of a run to the logger ``metarl``: iterations and checkpoints as DEBUG, the rest as INFO."""

    def on_start(self, training: Training) -> None:
        """Log which run begins or continues."""
        config = training.config
        LOGGER.info(
            "%s on %s (%s): iteration %d of %d, in %s",
            *(config.learner, config.family, config.preset),
            *(training.iteration, config.run.iterations, training.directory.path),
        )

    def on_iteration(self, training: Training) -> None:
        """Log the returns of an iteration."""
        before, after = (training.row[name] for name in ("return_before", "return_after"))
        LOGGER.debug("iteration %d: return %.4g before, %.4g after adaptation", training.iteration, before, after)

    def on_validation(self, training: Training, curve: AdaptationCurve) -> None:
        """Log the return on validation tasks."""
        LOGGER.info("iteration %d: validation return %.4g", training.iteration, training.validations[-1])

    def on_checkpoint(self, training: Training) -> None:
        """Log which checkpoint was written."""
        LOGGER.debug("iteration %d: checkpoint written", training.iteration)

    def on_end(self, training: Training) -> None:
        """Log how the run ended."""
        reason = "" if training.stop_reason is None else f": {training.stop_reason}"
        LOGGER.info("ended after %d iterations%s", training.iteration, reason)


def check_callbacks(callbacks: Sequence[object], config: TrainConfig) -> None:
    """Raise ``InputError`` for something that is no callback, such as a class, or one that the run does not fit."""
    for each in callbacks:
        if not isinstance(each, Callback):
            raise InputError(f"{each!r} is not a callback; pass instances of subclasses of metarl.Callback")
        each.check(config)


def require_validations(config: TrainConfig, callback: Callback) -> None:
    """Raise ``InputError`` if a run is not validated while it is trained, as a callback needs."""
    if not config.run.validate_every:
        raise InputError(f"{type(callback).__name__} needs validations in training; set validate_every")


class EarlyStopping(Callback):
    """Stop when the return on validation tasks no longer improves; set ``validate_every`` too.

    Args:
        patience: number of validations without improvement.
        min_gain: what counts as an improvement over the previous best return.

    Raises:
        InputError: for a patience below 1.
    """

    def __init__(self, patience: int, min_gain: float = 0.0) -> None:
        require_count("patience", patience)
        self.patience, self.min_gain = patience, min_gain

    def check(self, config: TrainConfig) -> None:
        """Check that there will be validations."""
        require_validations(config, self)

    def on_validation(self, training: Training, curve: AdaptationCurve) -> None:
        """Stop if none of the latest ``patience`` validations improved on those before."""
        before, latest = training.validations[: -self.patience], training.validations[-self.patience :]
        if before and max(latest) <= max(before) + self.min_gain:
            training.stop(f"no improvement in {self.patience} validations; the best is {max(before):.2f}")


class TimeLimit(Callback):
    """Stop after some hours, counted anew when a run is resumed.

    Args:
        hours: more than 0.

    Raises:
        InputError: for other hours.
    """

    def __init__(self, hours: float) -> None:
        self.hours = hours
        require_positive(self, "hours")
        self._began = 0.0

    def on_start(self, training: Training) -> None:
        """Start the clock."""
        self._began = time.monotonic()

    def on_iteration(self, training: Training) -> None:
        """Stop if the time is up."""
        if time.monotonic() - self._began >= 3600 * self.hours:
            training.stop(f"the time limit of {self.hours:g} hours is over")


class KeepBest(Callback):
    """Keep the checkpoints with the best validation returns instead of only the best; set ``validate_every`` too.

    Args:
        count: number of checkpoints.

    Raises:
        InputError: for a count below 1.
    """

    def __init__(self, count: int) -> None:
        require_count("count", count)
        self.count = count

    def check(self, config: TrainConfig) -> None:
        """Check that there will be validations."""
        require_validations(config, self)

    def on_start(self, training: Training) -> None:
        """Set how many of the best checkpoints the run keeps."""
        training.checkpoints.best_kept = self.count
