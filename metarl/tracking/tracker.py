"""The tracker interface, a tracker that does nothing, and a wrapper that contains failures."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from metarl.errors import MetarlError
from metarl.run.adaptation_curve import AdaptationCurve
from metarl.run.directory import CheckpointChoice, RunDirectory


def flat_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's configuration with one entry per setting, named as on the command line: ``trust_region.max_kl``.

    Trackers show, sort and group runs by single entries.
    """
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            prefix = "" if name in ("run", "settings") else f"{name}."
            flat |= {f"{prefix}{key}": each for key, each in flat_config(value).items()}
        else:
            flat[name] = value
    return flat


class Tracker(Protocol):
    """The destination of a run's logs."""

    def log(self, row: Mapping[str, float | None]) -> None:
        """Record one iteration's metrics, including ``iteration`` and ``env_steps``; None was not measured."""
        ...

    def log_histograms(self, row: Mapping[str, float | None], parameters: Callable[[], Mapping[str, Tensor]]) -> None:
        """Record the distribution of each tensor of parameters after an iteration; ``parameters`` returns them."""
        ...

    def log_curve(self, curve: AdaptationCurve, picture: Path) -> None:
        """Record an adaptation curve, its figure, and the table of its tasks."""
        ...

    def log_video(self, path: Path) -> None:
        """Record a video file."""
        ...

    def log_checkpoints(self, directory: RunDirectory) -> None:
        """Record the latest and the best checkpoint of a run."""
        ...

    def use_checkpoint(self, run_id: str, choice: CheckpointChoice, directory: RunDirectory) -> None:
        """Record which checkpoint of which tracked run is evaluated."""
        ...

    def finish(self) -> None:
        """Close the run."""
        ...


class NoTracker:
    """Does nothing."""

    def log(self, row: Mapping[str, float | None]) -> None:
        """Do nothing."""

    def log_histograms(self, row: Mapping[str, float | None], parameters: Callable[[], Mapping[str, Tensor]]) -> None:
        """Do nothing."""

    def log_curve(self, curve: AdaptationCurve, picture: Path) -> None:
        """Do nothing."""

    def log_video(self, path: Path) -> None:
        """Do nothing."""

    def log_checkpoints(self, directory: RunDirectory) -> None:
        """Do nothing."""

    def use_checkpoint(self, run_id: str, choice: CheckpointChoice, directory: RunDirectory) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""


class GuardedTracker:
    """Logs to another tracker until that fails; then it prints one line and stops logging.

    Errors of a tracker (W&B's process was killed, the disk is full) must not end training, whose metrics are in
    metrics.csv anyway.

    Args:
        make: makes the tracker.
    """

    def __init__(self, make: Callable[[], Tracker]) -> None:
        self._tracker: Tracker = NoTracker()
        self._guard(lambda: setattr(self, "_tracker", make()))

    def log(self, row: Mapping[str, float | None]) -> None:
        """Record one iteration's metrics."""
        self._guard(lambda: self._tracker.log(row))

    def log_histograms(self, row: Mapping[str, float | None], parameters: Callable[[], Mapping[str, Tensor]]) -> None:
        """Record histograms of the parameters."""
        self._guard(lambda: self._tracker.log_histograms(row, parameters))

    def log_curve(self, curve: AdaptationCurve, picture: Path) -> None:
        """Record an adaptation curve."""
        self._guard(lambda: self._tracker.log_curve(curve, picture))

    def log_video(self, path: Path) -> None:
        """Record a video file."""
        self._guard(lambda: self._tracker.log_video(path))

    def log_checkpoints(self, directory: RunDirectory) -> None:
        """Record the checkpoints of a run."""
        self._guard(lambda: self._tracker.log_checkpoints(directory))

    def use_checkpoint(self, run_id: str, choice: CheckpointChoice, directory: RunDirectory) -> None:
        """Record which checkpoint is evaluated."""
        self._guard(lambda: self._tracker.use_checkpoint(run_id, choice, directory))

    def finish(self) -> None:
        """Close the run."""
        self._guard(self._tracker.finish)

    def _guard(self, report: Callable[[], Any]) -> None:
        try:
            report()
        except MetarlError:
            raise
        except Exception as error:
            self._tracker = NoTracker()
            reason = (str(error).splitlines() or [""])[0]
            print(
                f"metarl: tracking failed ({type(error).__name__}: {reason}); the run continues without it, and "
                "metrics.csv is complete",
                file=sys.stderr,
            )
