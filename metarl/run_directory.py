"""What a run leaves on disk, written so that a reader never takes a part for the whole.

    config.json            resolved configuration, task-split hash, versions
    metrics.csv            one row an iteration
    checkpoint.pt          the learner and how far it came
    replay/                replay buffers of learners that have some, which the checkpoint lists
    adaptation_curve.png   return against adaptation step on held-out tasks
    evaluation.json        what ``metarl evaluate`` measured
    wandb/                 the W&B run, unless tracking is disabled

Files are written beside their place and then moved there, so a run that is killed leaves the old file or the new one.
"""

import io
import json
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from metarl import metrics_file
from metarl.errors import InputError

FORMAT = "metarl run 1"
VIDEOS = (".gif", ".mp4")
CheckpointChoice = Literal["latest", "best"]


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file, and move it to ``path`` when it is on disk."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        write(temporary)
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a mapping as indented JSON."""
    write_whole(path, lambda part: part.write_text(json.dumps(content, indent=2) + "\n"))


def make_folder(path: Path, content: str) -> bool:
    """Make a folder for ``content``, unless it is there; return whether it is empty.

    Raises:
        InputError: when it cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        empty = not any(path.iterdir())
        probe = path / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"cannot write {content} to {path}: {error.strerror}; choose another --out") from None
    return empty


class RunDirectory:
    """One run's folder.

    Args:
        path: of the folder, which need not exist yet.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.checkpoint = self.path / "checkpoint.pt"
        self.best = self.path / "best.pt"
        self.replay = self.path / "replay"
        self.metrics = self.path / "metrics.csv"
        self.config = self.path / "config.json"
        self.curve, self.evaluation = self.evaluated("")

    def evaluated(self, part: str) -> tuple[Path, Path]:
        """Return the picture and the numbers of an evaluation on test tasks (""), or on others, beside them."""
        ending = f"-{part}" if part else ""
        return self.path / f"adaptation_curve{ending}.png", self.path / f"evaluation{ending}.json"

    def create(self) -> None:
        """Make the folder.

        Raises:
            InputError: when it cannot be written, or holds something already.
        """
        if not make_folder(self.path, "the run"):
            raise InputError(
                f"{self.path} is not empty; choose another --out, or continue that run with: "
                f"metarl train --resume {self.path}"
            )

    def write_config(self, content: Mapping[str, Any]) -> None:
        """Write config.json."""
        write_json(self.config, {"format": FORMAT, **content})

    def read_config(self) -> dict[str, Any]:
        """Read config.json.

        Raises:
            InputError: when the folder is missing, or not the run of this metarl.
        """
        if not self.path.is_dir():
            raise InputError(f"there is no run directory {self.path}")
        try:
            content: dict[str, Any] = json.loads(self.config.read_text())
            known = content["format"] == FORMAT
        except FileNotFoundError:
            raise InputError(f"{self.path} is not a run directory of metarl: it has no config.json") from None
        except (ValueError, KeyError, TypeError, OSError, RecursionError):
            raise InputError(f"{self.config} is damaged or not metarl's; the run cannot be read") from None
        if not known:
            raise InputError(f"{self.config} has the format {content['format']!r}; this metarl reads {FORMAT!r}")
        return content

    def save_checkpoint(self, content: Mapping[str, Any], path: Path | None = None) -> None:
        """Write checkpoint.pt, or another file."""
        buffer = io.BytesIO()  # torch's own writer turns a full disk into an error of many lines
        torch.save({"format": FORMAT, **content}, buffer)
        write_whole(path or self.checkpoint, lambda part: part.write_bytes(buffer.getvalue()))

    def load_checkpoint(self, path: Path | None = None) -> dict[str, Any]:
        """Read checkpoint.pt, or another file, tensors to the CPU.

        Raises:
            InputError: when it is missing, truncated, or another program's.
        """
        path = path or self.checkpoint
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise InputError(f"{self.path} has no {path.name} yet; the run ended before its first one") from None
        except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError):
            raise InputError(f"{path} is truncated, damaged or not a checkpoint of metarl") from None
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise InputError(f"{path} is not a checkpoint of this metarl")
        return content

    def describe_checkpoint(self) -> str:
        """Return the latest checkpoint's file and iteration, for a message."""
        if not self.checkpoint.exists():
            return "none, because the run had not written one yet"
        return f"{self.checkpoint}, after {self.load_checkpoint()['iteration']} iterations"

    def find_checkpoint(self, choice: CheckpointChoice) -> Path:
        """Return the file of the latest checkpoint, or of the one that did best on validation tasks.

        Raises:
            InputError: when the best is asked for, and none was validated.
        """
        if choice == "latest":
            return self.checkpoint
        if (best := self.best_checkpoint()) is None:
            raise InputError(
                f"no checkpoint of {self.path} has been validated, so none is the best; a run is validated at its end, "
                "and as often as --validate-every says"
            )
        return best

    def best_checkpoint(self) -> Path | None:
        """Return the file of the checkpoint that did best on validation tasks, or None where none was validated.

        That is best.pt, or the latest one if it did better at the end of training. A run may be validated at its end
        only because it ends there; then best.pt stays as it is, for a run that goes on must forget that end.
        """
        there = [path for path in (self.best, self.checkpoint) if path.exists()]
        values = {path: self.load_checkpoint(path).get("validation") for path in there}
        known = {path: value for path, value in values.items() if value is not None}
        return max(known, key=lambda path: known[path], default=None)

    def videos(self) -> list[Path]:
        """Return the videos that lie in the folder."""
        return sorted(path for path in self.path.iterdir() if path.suffix in VIDEOS)

    def keep_metrics(self, iterations: int, forget: str | None = None) -> None:
        """Drop the rows of metrics.csv after the first ``iterations``, which a resumed run will write again.

        Args:
            iterations: rows to keep.
            forget: prefix of the columns to empty in the last of them.

        Raises:
            InputError: when the file has fewer rows, or is not what the run wrote.
        """
        rows = self.read_metrics()
        if len(rows) < iterations:
            raise InputError(
                f"{self.metrics} has {len(rows)} of the {iterations} iterations in {self.checkpoint.name}; put the "
                "whole file back, or train a new run"
            )
        names, kept = metrics_file.column_names(self.metrics), rows[:iterations]
        if kept and forget:
            kept[-1].update({name: None for name in names if name.startswith(forget)})
        if names:
            write_whole(self.metrics, lambda part: metrics_file.write_rows(part, names, kept))

    def read_metrics(self) -> list[metrics_file.MetricsRow]:
        """Return the rows of metrics.csv as numbers; see ``metrics_file.read_metrics``."""
        return metrics_file.read_metrics(self.metrics)

    def append_metrics(self, row: Mapping[str, float | None]) -> None:
        """Add a row to metrics.csv; what is None stays empty, and columns that are new are so in the rows before."""
        metrics_file.append_row(self.metrics, row, write_whole)
