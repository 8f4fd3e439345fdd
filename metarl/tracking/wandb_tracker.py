"""Logging to Weights & Biases: wandb is imported only when a run is tracked."""

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from metarl.run.adaptation_curve import AdaptationCurve
from metarl.run.directory import CheckpointChoice, RunDirectory
from metarl.run.labels import RunLabels
from metarl.run.metrics import METRICS, curve_rows, task_table, tracked_row
from metarl.run.metrics_file import MetricsRow
from metarl.tracking.tracker import flat_config
from metarl.tracking.wandb_files import await_end


class WandbTracker:
    """Logs to a W&B run, online or offline; without a network it falls back to offline.

    Args:
        directory: directory of the run; W&B's files go to its ``wandb/``.
        mode: ``online`` or ``offline``.
        config: resolved configuration.
        group: group of related runs.
        job_type: ``train``, ``baseline`` or ``evaluate``.
        run_id: id of the W&B run; the same id continues it.
        history: rows of the earlier iterations. Offline they are logged again, because uploading a later part replaces
            the earlier ones: the newest part is the whole run.
    """

    def __init__(
        self,
        directory: Path,
        mode: str,
        config: Mapping[str, Any],
        group: str,
        job_type: str,
        run_id: str,
        history: Sequence[MetricsRow] = (),
    ) -> None:
        import wandb

        # Runs of older versions have no such entry.
        labels = RunLabels(**config.get("run", {}).get("labels", {}))

        def start(chosen: str) -> Any:
            return wandb.init(
                project=labels.project,
                entity=labels.entity,
                tags=labels.tags or None,
                notes=labels.notes,
                dir=directory.resolve(),  # W&B's own process keeps its initial working directory
                mode=chosen,  # type: ignore[arg-type]
                config=flat_config(config),
                allow_val_change=True,  # a resumed run may have a new total of iterations
                group=group,
                job_type=job_type,
                name=f"{directory.name}-{job_type}",
                id=run_id,
                resume="allow" if chosen == "online" else None,
                settings=wandb.Settings(silent=True, console="wrap", init_timeout=30),
            )

        try:
            self._run = start(mode)
        except (wandb.errors.CommError, wandb.errors.UsageError) as error:
            if mode == "offline":
                raise
            reason = str(error).splitlines()[0]
            print(
                f"metarl: W&B cannot be reached ({reason}); tracking offline, upload later with wandb sync",
                file=sys.stderr,
            )
            wandb.teardown()  # discards the attempt, which holds the run's id
            self._run = start("offline")
        self._wandb = wandb
        _silence_log()
        self._define_axes()
        for row in history if self._run.offline else ():
            self.log(row)

    def log(self, row: Mapping[str, float | None]) -> None:
        """Record one iteration's metrics."""
        self._run.log(tracked_row(row))

    def log_histograms(self, row: Mapping[str, float | None], parameters: Callable[[], Mapping[str, Tensor]]) -> None:
        """Record a histogram of each tensor of parameters."""
        drawn: Any = self._wandb.Histogram
        histograms = {f"parameters/{name}": drawn(value.numpy()) for name, value in parameters().items()}
        self._run.log({"iteration": row["iteration"], **histograms})

    def log_curve(self, curve: AdaptationCurve, picture: Path) -> None:
        """Record the curve step by step, its figure (also as an artifact), and the table of its tasks."""
        for row in curve_rows(curve):
            self._run.log(row)
        self._run.summary["adaptation/gain"] = float(curve.gains.mean())
        names, rows = task_table(curve)
        self._run.log(
            {
                "adaptation_curve": self._wandb.Image(str(picture)),
                "held_out_tasks": self._wandb.Table(columns=[*names], data=rows),
            }
        )
        artifact = self._wandb.Artifact(f"adaptation-curve-{self._run.id}", type="curve")
        artifact.add_file(str(picture))
        self._run.log_artifact(artifact)

    def log_video(self, path: Path) -> None:
        """Record a video file under its name."""
        self._run.log({f"videos/{path.stem}": self._wandb.Video(str(path))})

    def log_checkpoints(self, directory: RunDirectory) -> None:
        """Record the best and the latest checkpoint as versions of one artifact, with these aliases."""
        versions: dict[Path, list[str]] = {}
        if (best := directory.best_checkpoint()) is not None:
            versions[best] = ["best"]
        versions.setdefault(directory.checkpoint, []).append("latest")
        for path, aliases in versions.items():
            self._run.log_artifact(self._checkpoint(self._run.id, path, directory), aliases=aliases)

    def use_checkpoint(self, run_id: str, choice: CheckpointChoice, directory: RunDirectory) -> None:
        """Make the training run's artifact an input of this run, and put its name and digest into the config.

        Offline W&B records no inputs; then only the config names the checkpoint.
        """
        name = f"checkpoint-{run_id}:{choice}"
        digest = self._checkpoint(run_id, directory.find_checkpoint(choice), directory).digest
        self._run.config.update({"checkpoint": {"artifact": name, "digest": digest}})
        if self._run.offline:
            return
        from wandb.sdk.lib.service.service_connection import WandbApiFailedError

        try:
            self._run.use_artifact(name)
        except (self._wandb.errors.Error, WandbApiFailedError, ValueError) as error:
            reason = str(error).splitlines()[0]
            print(f"metarl: not linked to {name}, which W&B does not have ({reason})", file=sys.stderr)

    def finish(self) -> None:
        """Close the W&B run; offline, everything is in its file then."""
        self._run.finish()
        if self._run.offline:
            await_end(Path(self._run.dir).parent)

    def _define_axes(self) -> None:
        for axis in ("iteration", "env_steps", "adaptation_step"):
            self._run.define_metric(axis)
        self._run.define_metric("*", step_metric="iteration")
        for name, metric in METRICS.items():
            if metric.axis != "iteration":
                self._run.define_metric(name, step_metric=metric.axis)

    def _checkpoint(self, run_id: str, path: Path, directory: RunDirectory) -> Any:
        """Return an artifact with a checkpoint and its configuration, which together can be evaluated."""
        content = directory.load_checkpoint(path)
        about = {name: content.get(name) for name in ("iteration", "env_steps", "validation")}
        artifact = self._wandb.Artifact(f"checkpoint-{run_id}", type="model", metadata=about)
        artifact.add_file(str(path), name=str(path.relative_to(directory.path)))
        artifact.add_file(str(directory.config))
        return artifact


def _silence_log() -> None:
    """Do not show on the terminal what fails in W&B's own log: on a full disk, every line would be a traceback."""
    for handler in logging.getLogger("wandb").handlers:
        handler.handleError = lambda record: None  # type: ignore[method-assign]
