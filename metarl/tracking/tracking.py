"""Experiment tracking: where runs are logged, and under which names."""

import netrc
import os
import uuid
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from metarl.errors import InputError
from metarl.run.adaptation_curve import AdaptationCurve
from metarl.run.config import TrackMode, TrainConfig
from metarl.run.directory import CheckpointChoice, RunDirectory
from metarl.run.metrics_file import MetricsRow
from metarl.tracking.tensorboard_tracker import TensorBoardTracker
from metarl.tracking.tracker import GuardedTracker, NoTracker, Tracker
from metarl.tracking.wandb_files import offline_run, remove_empty_parts, whole_parts
from metarl.tracking.wandb_tracker import WandbTracker

MODES = ("online", "offline", "disabled", "tensorboard")


def tracking_mode(track: TrackMode) -> str:
    """Return ``online``, ``offline``, ``disabled`` or ``tensorboard``.

    ``auto`` follows WANDB_MODE if it is set; otherwise it is online with an API key, and offline without one.

    Raises:
        InputError: if ``track`` or WANDB_MODE has another value, or TensorBoard is requested but not installed.
    """
    if track == "tensorboard" and find_spec("tensorboard") is None:
        raise InputError("--track tensorboard needs a package: pip install 'metarl-gym[tensorboard]'")
    if track in MODES:
        return track
    if track != "auto":
        raise InputError(f"track must be auto, {', '.join(MODES[:-1])} or {MODES[-1]}, not {track!r}")
    mode = os.environ.get("WANDB_MODE") or ("online" if _has_api_key() else "offline")
    if mode not in MODES[:3]:
        raise InputError(f"WANDB_MODE must be online, offline or disabled, not {mode!r}")
    return mode


def name_run(config: TrainConfig) -> tuple[str, str]:
    """Return the directory of a new run and its tracking id, which in a sweep comes from W&B's agent."""
    sweep, chosen = (os.environ.get(f"WANDB_{name}_ID") for name in ("SWEEP", "RUN"))
    if sweep and chosen:
        return config.run.out or f"runs/{sweep}/{chosen}", chosen
    out = config.run.out or f"runs/{config.learner_name}-{config.family_name}-seed{config.run.seed}"
    return out, uuid.uuid4().hex[:12]


def track_training(config: TrainConfig, directory: RunDirectory) -> Tracker:
    """Make the tracker of a training run, with job type ``baseline`` for baselines, else ``train``."""
    content = directory.read_config()
    job_type = "baseline" if config.learner_class.baseline else "train"
    about = {**content, **_identity(config)}
    history = directory.read_metrics()
    tracking_mode(config.run.track)
    run_id = content["tracking_id"]
    remove_empty_parts(directory.path, run_id)
    return GuardedTracker(
        lambda: make_tracker(config.run.track, directory.path, about, config.group, job_type, run_id, history)
    )


def track_evaluation(
    config: TrainConfig,
    directory: RunDirectory,
    track: TrackMode,
    choice: CheckpointChoice,
    curve: AdaptationCurve,
    settings: Mapping[str, Any],
) -> Tracker:
    """Make the tracker of an evaluation: a separate run in the training run's group that names its checkpoint.

    Args:
        config: configuration of the training run.
        directory: directory of the training run.
        track: as in ``tracking_mode``.
        choice: which checkpoint is evaluated.
        curve: the adaptation curve.
        settings: further settings of the evaluation.
    """
    content = directory.read_config()
    identity = _identity(config)
    # Another name, because tools that plot training runs by experiment would otherwise include the evaluation.
    identity["exp_name"] += "-evaluate"
    measured = {
        "part": curve.part,
        "tasks": len(curve.returns),
        "steps": curve.returns.shape[1] - 1,
        "episodes": curve.episodes,
        "deterministic": curve.deterministic,
    }
    about = {**content, **identity, "evaluation": {"checkpoint": choice, **measured, **settings}}
    run_id = f"{content['tracking_id']}-eval-{uuid.uuid4().hex[:6]}"
    tracker = make_tracker(track, directory.path, about, config.group, "evaluate", run_id)
    tracker.use_checkpoint(content["tracking_id"], choice, directory)
    return tracker


def make_tracker(
    track: TrackMode,
    directory: Path,
    config: Mapping[str, Any],
    group: str,
    job_type: str,
    run_id: str,
    history: Sequence[MetricsRow] = (),
) -> Tracker:
    """Make the tracker for ``track``, as in ``tracking_mode``; see ``WandbTracker``."""
    mode = tracking_mode(track)
    if mode == "disabled":
        return NoTracker()
    if mode == "tensorboard":
        return TensorBoardTracker(directory, config, job_type, run_id, history)
    return WandbTracker(directory, mode, config, group, job_type, run_id, history)


def where_tracked(directory: Path) -> list[str]:
    """Return lines on where the runs of a run directory were logged, and the commands for them."""
    lines = []
    if (run := offline_run(directory)) is not None:
        lines.append(f"{'W&B run':<10}{run}")
        if run.name.startswith("offline"):
            parts = " ".join(str(part) for part in whole_parts(directory))
            lines.append(f"{'upload':<10}wandb sync {parts or run}")
    if (directory / "tensorboard").exists():
        lines.append(f"{'show':<10}tensorboard --logdir {directory / 'tensorboard'}")
    return lines


def _identity(config: TrainConfig) -> dict[str, Any]:
    """Return the config entries by which openrlbenchmark finds runs."""
    env_id = config.make_family().env_id
    return {"env_id": env_id, "exp_name": config.run.group or config.learner_name, "seed": config.run.seed}


def _has_api_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return any("wandb" in host for host in netrc.netrc().hosts)
    except (FileNotFoundError, netrc.NetrcParseError):
        return False
