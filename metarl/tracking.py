"""Experiment tracking: the only module that imports wandb, and only when a run is tracked."""

import netrc
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from metarl.config import TrackMode
from metarl.errors import InputError
from metarl.evaluation import AdaptationCurve

PROJECT = "metarl"
AGAINST_ENV_STEPS = ("return_before", "return_after", "gain")


class Tracker(Protocol):
    """Where a run reports to."""

    def log(self, row: Mapping[str, float]) -> None:
        """Record one iteration's metrics, ``iteration`` and ``env_steps`` among them."""
        ...

    def log_curve(self, curve: AdaptationCurve, picture: Path) -> None:
        """Record an adaptation curve and its picture."""
        ...

    def log_checkpoint(self, checkpoint: Path) -> None:
        """Record a checkpoint file."""
        ...

    def finish(self) -> None:
        """Close the run."""
        ...


class NoTracker:
    """Reports nowhere."""

    def log(self, row: Mapping[str, float]) -> None:
        """Do nothing."""

    def log_curve(self, curve: AdaptationCurve, picture: Path) -> None:
        """Do nothing."""

    def log_checkpoint(self, checkpoint: Path) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""


class WandbTracker:
    """Reports to a W&B run, online or offline; a missing network makes it an offline one.

    Args:
        directory: of the run; W&B's files go to its ``wandb/``.
        mode: ``online`` or ``offline``.
        config: resolved configuration.
        group: runs that belong together.
        job_type: ``train`` or ``evaluate``.
        run_id: of the W&B run; the same id continues it.
    """

    def __init__(
        self, directory: Path, mode: str, config: Mapping[str, Any], group: str, job_type: str, run_id: str
    ) -> None:
        import wandb

        def start(chosen: str) -> Any:
            return wandb.init(
                project=PROJECT,
                dir=directory,
                mode=chosen,  # type: ignore[arg-type]
                config=dict(config),
                group=group,
                job_type=job_type,
                name=f"{directory.name}-{job_type}",
                id=run_id,
                resume="allow" if chosen == "online" else None,
                settings=wandb.Settings(silent=True, console="off", init_timeout=30),
            )

        try:
            self._run = start(mode)
        except (wandb.errors.CommError, wandb.errors.UsageError) as error:
            if mode == "offline":
                raise
            reason = str(error).splitlines()[0]
            print(f"metarl: W&B cannot be reached ({reason}); tracking offline, wandb sync later", file=sys.stderr)
            wandb.teardown()  # forgets the attempt, which holds the run's id
            self._run = start("offline")
        self._wandb = wandb
        for axis in ("iteration", "env_steps", "adaptation_step"):
            self._run.define_metric(axis)
        self._run.define_metric("*", step_metric="iteration")
        for name in AGAINST_ENV_STEPS:
            self._run.define_metric(name, step_metric="env_steps")
        self._run.define_metric("adaptation/*", step_metric="adaptation_step")

    def log(self, row: Mapping[str, float]) -> None:
        """Record one iteration's metrics."""
        self._run.log(dict(row))

    def log_curve(self, curve: AdaptationCurve, picture: Path) -> None:
        """Record mean return and success at every adaptation step, the curve's picture, and both as an artifact."""
        for step, value in enumerate(curve.returns.mean(0)):
            row = {"adaptation_step": step, "adaptation/return": value, "adaptation/env_steps": curve.env_steps[step]}
            if curve.success is not None:
                row["adaptation/success"] = curve.success[:, step].mean()
            self._run.log({key: float(number) for key, number in row.items()})
        self._run.summary["adaptation/gain"] = float(curve.gains.mean())
        self._run.log({"adaptation_curve": self._wandb.Image(str(picture))})
        self._log_file(picture, "adaptation-curve", "curve")

    def log_checkpoint(self, checkpoint: Path) -> None:
        """Record the checkpoint as an artifact."""
        self._log_file(checkpoint, "checkpoint", "model")

    def finish(self) -> None:
        """Close the W&B run."""
        self._run.finish()

    def _log_file(self, path: Path, name: str, kind: str) -> None:
        artifact = self._wandb.Artifact(f"{name}-{self._run.id}", type=kind)
        artifact.add_file(str(path))
        self._run.log_artifact(artifact)


def tracking_mode(track: TrackMode) -> str:
    """Return ``online``, ``offline`` or ``disabled``.

    ``auto`` follows WANDB_MODE where it is set; else it is online with an API key, and offline without one.

    Raises:
        InputError: when ``track``, or WANDB_MODE, is another word.
    """
    modes = ("online", "offline", "disabled")
    if track in modes:
        return track
    if track != "auto":
        raise InputError(f"track must be auto, online, offline or disabled, not {track!r}")
    mode = os.environ.get("WANDB_MODE") or ("online" if _has_api_key() else "offline")
    if mode not in modes:
        raise InputError(f"WANDB_MODE must be online, offline or disabled, not {mode!r}")
    return mode


def make_tracker(
    track: TrackMode, directory: Path, config: Mapping[str, Any], group: str, job_type: str, run_id: str
) -> Tracker:
    """Make the tracker that ``track`` asks for, as ``tracking_mode`` reads it; see ``WandbTracker``."""
    mode = tracking_mode(track)
    return NoTracker() if mode == "disabled" else WandbTracker(directory, mode, config, group, job_type, run_id)


def offline_run(directory: Path) -> Path | None:
    """Return the newest W&B run folder in a run directory, or None."""
    runs = sorted((directory / "wandb").glob("*run-*"), key=lambda path: path.stat().st_mtime)
    return runs[-1] if runs else None


def _has_api_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return any("wandb" in host for host in netrc.netrc().hosts)
    except (FileNotFoundError, netrc.NetrcParseError):
        return False
