"""Logging to TensorBoard's event files; TensorBoard is imported only when a run is tracked with it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from metarl.run.adaptation_curve import AdaptationCurve
from metarl.run.directory import CheckpointChoice, RunDirectory
from metarl.run.metrics import METRICS, curve_rows, task_table, tracked_row


class TensorBoardTracker:
    """Writes to ``tensorboard/JOB_TYPE-ID`` in the run directory; a resumed run continues there.

    The step of a scalar is its x-axis in W&B: env steps, iterations or adaptation steps. TensorBoard has neither
    artifacts nor links between runs; their paths are logged as text.

    Args:
        directory: directory of the run.
        config: resolved configuration.
        job_type: ``train``, ``baseline`` or ``evaluate``.
        run_id: id of the tracked run.
    """

    def __init__(self, directory: Path, config: Mapping[str, Any], job_type: str, run_id: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(directory / "tensorboard" / f"{job_type}-{run_id}"))
        self._text("config", f"```json\n{json.dumps(config, indent=2)}\n```")

    def log(self, row: Mapping[str, float | None]) -> None:
        """Record one iteration's metrics."""
        self._scalars(tracked_row(row))

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

    def _scalars(self, row: Mapping[str, float]) -> None:
        for name, value in row.items():
            axis = METRICS[name].axis if name in METRICS else "iteration"
            if name != axis:
                self._writer.add_scalar(name, value, int(row[axis]))

    def _text(self, name: str, text: str) -> None:
        self._writer.add_text(name, text)
