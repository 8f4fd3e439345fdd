"""Logging to TensorBoard's event files; TensorBoard is imported only when a run is tracked with it."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from metarl.run.adaptation_curve import AdaptationCurve
from metarl.run.directory import CheckpointChoice, RunDirectory
from metarl.run.metrics import METRICS, curve_rows, task_table, tracked_row
from metarl.run.metrics_file import MetricsRow
from metarl.tracking.tracker import flat_config

# What TensorBoard's table of hyperparameters compares runs by.
COMPARED = ("training/return_after", "validation/return_after")


def tag(name: str) -> str:
    """Return a metric's name with its group: ``time``, ``training``, ``learner`` or the one that it has."""
    if "/" in name:
        return name
    if name.startswith("time_") or name == "env_steps_per_second":
        return f"time/{name}"
    return f"{'training' if name in METRICS else 'learner'}/{name}"


def axis_of(tagged: str) -> str:
    """Return what the steps of a tag count: env steps, adaptation steps or, also for your own scalars, iterations."""
    group, _, name = tagged.partition("/")
    if group == "adaptation":
        return "adaptation_step"
    known = METRICS.get(name if group in ("time", "training") else tagged)
    return "iteration" if known is None else known.axis


class TensorBoardTracker:
    """Writes to ``tensorboard/JOB_TYPE-ID`` in the run directory; a resumed run continues there, from its checkpoint.

    The step of a scalar is its x-axis in W&B: env steps, iterations or adaptation steps. Its tag begins with its group:
    TensorBoard shows those of a group together. TensorBoard has neither artifacts nor links between runs; their paths
    are logged as text.

    Args:
        directory: directory of the run.
        config: resolved configuration.
        job_type: ``train``, ``baseline`` or ``evaluate``.
        run_id: id of the tracked run.
        history: rows of the earlier iterations. What was logged after them is discarded: curves would otherwise go back
            to the checkpoint.
    """

    def __init__(
        self,
        directory: Path,
        config: Mapping[str, Any],
        job_type: str,
        run_id: str,
        history: Sequence[MetricsRow] = (),
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = directory / "tensorboard" / f"{job_type}-{run_id}"
        before = sorted(folder.glob("events.out.tfevents.*"))
        self._writer: Any = SummaryWriter(str(folder))
        for path in before:
            self._keep(path, history)
        self._writer.flush()
        for path in before:
            path.unlink()
        self._text("config", f"```json\n{json.dumps(config, indent=2)}\n```")
        self._hyperparameters(flat_config(config))

    def log(self, row: Mapping[str, float | None]) -> None:
        """Record one iteration's metrics."""
        self._scalars(tracked_row(row))

    def log_histograms(self, row: Mapping[str, float | None], parameters: Callable[[], Mapping[str, Tensor]]) -> None:
        """Record a histogram of each tensor of parameters."""
        for name, value in parameters().items():
            self._writer.add_histogram(f"parameters/{name}", value, int(row["iteration"] or 0))

    def log_curve(self, curve: AdaptationCurve, picture: Path) -> None:
        """Record the curve step by step, its figure, and the table of its tasks."""
        for row in curve_rows(curve):
            self._scalars(row)
        self._writer.add_scalar("adaptation/gain", float(curve.gains.mean()), len(curve.env_steps) - 1)
        with Image.open(picture) as image:
            self._writer.add_image("adaptation_curve", np.asarray(image.convert("RGB")), dataformats="HWC")
        names, rows = task_table(curve)
        lines = [names, ["---"] * len(names), *rows]
        self._text("held_out_tasks", "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines))

    def log_video(self, path: Path) -> None:
        """Record the path of a video."""
        self._text(f"videos/{path.stem}", str(path))

    def log_checkpoints(self, directory: RunDirectory) -> None:
        """Record the paths of the checkpoints."""
        self._text("checkpoint/latest", str(directory.checkpoint))
        if (best := directory.best_checkpoint()) is not None:
            self._text("checkpoint/best", str(best))

    def use_checkpoint(self, run_id: str, choice: CheckpointChoice, directory: RunDirectory) -> None:
        """Record which checkpoint file is evaluated."""
        self._text("checkpoint", str(directory.find_checkpoint(choice)))

    def finish(self) -> None:
        """Close the event file."""
        self._writer.close()

    def _keep(self, path: Path, history: Sequence[MetricsRow]) -> None:
        """Copy scalars and histograms of earlier iterations from a file of events."""
        from tensorboard.backend.event_processing.event_file_loader import (  # type: ignore[import-untyped]
            LegacyEventFileLoader,
        )

        last = {"iteration": len(history) - 1, "env_steps": (history[-1]["env_steps"] or 0) if history else 0}
        for event in LegacyEventFileLoader(str(path)).Load():
            kinds = {value.WhichOneof("value"): value.tag for value in event.summary.value}
            kept = kinds.get("simple_value") or kinds.get("histo")
            if kept is not None and event.step <= last.get(axis_of(kept), -1):
                self._writer.file_writer.event_writer.add_event(event)

    def _scalars(self, row: Mapping[str, float]) -> None:
        for name, value in row.items():
            axis = axis_of(tag(name))
            if name != axis:
                self._writer.add_scalar(tag(name), value, int(row[axis]))

    def _hyperparameters(self, config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import summary

        formats: Any = summary
        # TensorBoard takes no other values than these.
        plain = {name: value if isinstance(value, bool | int | float) else str(value) for name, value in config.items()}
        for part in formats.hparams(plain, dict.fromkeys(COMPARED)):
            self._writer.file_writer.add_summary(part)

    def _text(self, name: str, text: str) -> None:
        self._writer.add_text(name, text)
