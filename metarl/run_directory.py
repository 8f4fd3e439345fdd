"""What a run leaves on disk, written so that a reader never takes a part for the whole.

    config.json            resolved configuration, task-split hash, versions
    metrics.csv            one row an iteration
    checkpoint.pt          the learner and how far it came
    adaptation_curve.png   return against adaptation step on held-out tasks
    evaluation.json        what ``metarl evaluate`` measured
    wandb/                 the W&B run, unless tracking is disabled

Files are written beside their place and then moved there, so a run that is killed leaves the old file or the new one.
"""

import csv
import io
import json
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from metarl.errors import InputError

FORMAT = "metarl run 1"


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


class RunDirectory:
    """One run's folder.

    Args:
        path: where it is, or shall be.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.checkpoint = self.path / "checkpoint.pt"
        self.metrics = self.path / "metrics.csv"
        self.config = self.path / "config.json"
        self.curve = self.path / "adaptation_curve.png"
        self.evaluation = self.path / "evaluation.json"

    def create(self) -> None:
        """Make the folder.

        Raises:
            InputError: when it cannot be written, or holds something already.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            occupied = any(self.path.iterdir())
            probe = self.path / ".probe"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise InputError(f"cannot write the run to {self.path}: {error.strerror}; choose another --out") from None
        if occupied:
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
        except (ValueError, KeyError, TypeError, OSError):
            raise InputError(f"{self.config} is damaged or not metarl's; the run cannot be read") from None
        if not known:
            raise InputError(f"{self.config} has the format {content['format']!r}; this metarl reads {FORMAT!r}")
        return content

    def save_checkpoint(self, content: Mapping[str, Any]) -> None:
        """Write checkpoint.pt."""
        buffer = io.BytesIO()  # torch's own writer turns a full disk into an error of many lines
        torch.save({"format": FORMAT, **content}, buffer)
        write_whole(self.checkpoint, lambda part: part.write_bytes(buffer.getvalue()))

    def load_checkpoint(self) -> dict[str, Any]:
        """Read checkpoint.pt, tensors to the CPU.

        Raises:
            InputError: when it is missing, truncated, or another program's.
        """
        try:
            content = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise InputError(f"{self.path} has no checkpoint.pt yet; the run ended before its first one") from None
        except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError):
            raise InputError(f"{self.checkpoint} is truncated, damaged or not a checkpoint of metarl") from None
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise InputError(f"{self.checkpoint} is not a checkpoint of this metarl")
        return content

    def keep_metrics(self, iterations: int) -> None:
        """Drop the rows of metrics.csv behind the first ``iterations``, which a resumed run will write again."""
        rows = self.read_metrics()
        whole = [row for row in rows if None not in row.values() and int(row["iteration"]) < iterations]
        if rows:
            write_whole(self.metrics, lambda part: _write_rows(part, list(rows[0]), whole))

    def read_metrics(self) -> list[dict[str, str]]:
        """Return the rows of metrics.csv."""
        if not self.metrics.exists():
            return []
        with open(self.metrics, newline="") as stream:
            return list(csv.DictReader(stream))

    def append_metrics(self, row: Mapping[str, float]) -> None:
        """Add a row to metrics.csv; the first one writes the header."""
        new = not self.metrics.exists()
        with open(self.metrics, "a", newline="") as stream:
            writer = csv.DictWriter(stream, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)


def _write_rows(path: Path, names: list[str], rows: list[dict[str, str]]) -> None:
    with open(path, "w", newline="") as stream:
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        writer.writerows(rows)
