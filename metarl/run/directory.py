"""The directory of a run, whose files are written atomically.

    config.json            resolved configuration, task-split hash, versions
    metrics.csv            one row per iteration
    checkpoints/           ``iteration-N``: the learner after N iterations; the latest few, and the best
    replay/                replay buffers of learners that have one, listed in the checkpoints
    adaptation_curve.png   return by adaptation step on held-out tasks
    evaluation.json        what ``metarl evaluate`` measured
    finished.json          written last: the number of iterations of the finished run
    tasks.sqlite           tasks, episodes and steps of ``metarl serve``
    wandb/                 the W&B run, unless tracking is disabled

Files are written to a temporary name and then moved, so a killed run leaves either the old file or the new one.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from metarl.errors import InputError
from metarl.run import metrics_file
from metarl.storage.checkpoint_format import decode, encode
from metarl.storage.files import make_folder, write_json, write_whole
from metarl.storage.hub import local_path
from metarl.storage.lock import is_lock_file

FORMAT = "metarl run 2"
CHECKPOINT = "iteration-"  # followed by the number of iterations
VIDEOS = (".gif", ".mp4")
CheckpointChoice = Literal["latest", "best"] | int


class RunDirectory:
    """The directory of one run.

    Args:
        path: path of the directory, which need not exist yet; a leading ``~`` is the home directory. The name of a
            published run, ``hub:NAME`` or ``hub:OWNER/NAME``, is that of its copy, which is made first.

    Raises:
        InputError: if it is not a valid path, or there is no published run of that name.
        RunError: if a published run cannot be downloaded, or is damaged.
    """

    def __init__(self, path: Path | str) -> None:
        if "\0" in str(path):
            raise InputError(f"{str(path)!r} cannot be a directory: it holds a NUL byte; choose another --out")
        self.path = local_path(path)
        self.checkpoints = self.path / "checkpoints"
        self.replay = self.path / "replay"
        self.metrics = self.path / "metrics.csv"
        self.config = self.path / "config.json"
        self.finished = self.path / "finished.json"
        self.curve, self.evaluation = self.evaluated("")

    def evaluated(self, part: str) -> tuple[Path, Path]:
        """Return the paths of figure and results of an evaluation on test tasks ("") or on another part."""
        ending = f"-{part}" if part else ""
        return self.path / f"adaptation_curve{ending}.png", self.path / f"evaluation{ending}.json"

    def make(self) -> None:
        """Create the directory if it does not exist.

        Raises:
            InputError: if it cannot be written to.
        """
        make_folder(self.path, "the run")

    def require_empty(self) -> None:
        """Check that the directory contains nothing but its lock.

        Raises:
            InputError: if it contains anything else.
        """
        if not self.is_empty():
            raise InputError(
                f"{self.path} is not empty; choose another --out, or continue that run with: "
                f"metarl train --resume {self.path}"
            )

    def is_empty(self) -> bool:
        """Return whether the directory contains only its lock and incomplete files of a killed process."""
        return not any(
            not is_lock_file(entry.name) and not entry.name.endswith(".part") for entry in self.path.iterdir()
        )

    def write_config(self, content: Mapping[str, Any]) -> None:
        """Write config.json."""
        write_json(self.config, {"format": FORMAT, **content})

    def read_config(self) -> dict[str, Any]:
        """Read config.json.

        Raises:
            InputError: if the directory is missing, or not a run of this version of metarl.
        """
        if not self.path.is_dir():
            raise InputError(f"there is no run directory {self.path}; metarl runs FOLDER lists the runs in a folder")
        try:
            content: dict[str, Any] = json.loads(self.config.read_text())
            known = content["format"] == FORMAT
        except FileNotFoundError:
            runs = sorted(path.parent.name for path in self.path.glob(f"*/{self.config.name}"))
            hint = f"; the runs in it are {', '.join(runs)}" if runs else ""
            raise InputError(f"{self.path} is not a run directory of metarl: it has no config.json{hint}") from None
        except OSError as error:
            raise InputError(f"{self.config} cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, RecursionError):
            raise InputError(
                f"{self.config} is damaged or was not written by metarl; restore it from a copy, or start a new run"
            ) from None
        if not known:
            raise InputError(
                f"{self.config} has the format {content['format']!r}, but this version of metarl reads {FORMAT!r}; use "
                "the version that wrote it, or start a new run"
            )
        return content

    @property
    def checkpoint(self) -> Path:
        """The file of the latest checkpoint, or that of iteration 0 if there is none."""
        return max(self.checkpoint_files(), key=iteration_of, default=self.checkpoints / f"{CHECKPOINT}0")

    def checkpoint_files(self) -> list[Path]:
        """Return the files of all checkpoints, oldest first."""
        found = [path for path in self.checkpoints.glob(f"{CHECKPOINT}*") if path.name[len(CHECKPOINT) :].isdigit()]
        return sorted(found, key=iteration_of)

    def save_checkpoint(self, content: Mapping[str, Any]) -> Path:
        """Write a checkpoint for the ``iteration`` in its content, and return its file."""
        path = self.checkpoints / f"{CHECKPOINT}{content['iteration']}"
        data = encode(content)
        self.checkpoints.mkdir(exist_ok=True)
        write_whole(path, lambda part: part.write_bytes(data))
        return path

    def load_checkpoint(self, path: Path | None = None) -> dict[str, Any]:
        """Read the latest checkpoint, or another one, with tensors on the CPU.

        Raises:
            InputError: if it is missing, unreadable, damaged or not a checkpoint.
        """
        path = path or self.checkpoint
        try:
            content = decode(path.read_bytes())
            whole = content["iteration"] == iteration_of(path)
        except FileNotFoundError:
            raise InputError(self._explain_missing()) from None
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, RecursionError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"{path} is truncated or damaged: {reason}; {self._remedy(path)}") from None
        if not whole:
            raise InputError(f"{path} contains iteration {content['iteration']}; {self._remedy(path)}")
        return content

    def _explain_missing(self) -> str:
        if (self.path / "checkpoint.pt").exists():
            return (
                f"{self.path} was written by an earlier version of metarl, whose checkpoint.pt has no checksum and is "
                "no longer supported; use the version in its config.json, or start a new run"
            )
        if self.read_metrics():
            return f"{self.path} has lost its checkpoints; restore {self.checkpoints} from a copy, or start a new run"
        return f"{self.path} has no checkpoint yet; start it with metarl train --resume {self.path}"

    def _remedy(self, path: Path) -> str:
        """Return what to do about a checkpoint that cannot be used."""
        others = [iteration_of(each) for each in self.checkpoint_files() if each != path]
        if others:
            return f"remove it to resume from the checkpoint of iteration {max(others)}, with the same results"
        return "restore it from a copy, or start a new run"

    def find_checkpoint(self, choice: CheckpointChoice) -> Path:
        """Return the file of the latest checkpoint, of the one with the best validation return, or of an iteration.

        Raises:
            InputError: for another choice, if the best is requested and none was validated, or if that of the iteration
                is not kept.
        """
        if choice == "latest":
            return self.checkpoint
        if choice != "best":
            kept = {iteration_of(file): file for file in self.checkpoint_files()}
            if choice not in kept:
                raise InputError(
                    f"{self.path} has no checkpoint {choice!r}; it has latest, best, and those of the iterations "
                    f"{', '.join(map(str, kept))}"
                )
            return kept[choice]
        if (best := self.best_checkpoint()) is None:
            raise InputError(
                f"no checkpoint of {self.path} has been validated, so there is no best one; validation takes place at "
                "the end of training, and every --validate-every iterations"
            )
        return best

    def best_checkpoint(self) -> Path | None:
        """Return the file of the checkpoint with the best validation return, or None if none was validated.

        If several are equally good, it is the earliest.
        """
        files = self.checkpoint_files()
        try:
            values = {path: self.load_checkpoint(path).get("validation") for path in files}
        except InputError:
            if self.checkpoint_files() == files:
                raise
            return self.best_checkpoint()  # a run in training has removed one meanwhile
        known = {path: value for path, value in values.items() if value is not None}
        return max(known, key=lambda path: known[path], default=None)

    def finished_iterations(self) -> int | None:
        """Return the number of iterations of a run that is finished, including figure and tracking; else None."""
        try:
            return int(json.loads(self.finished.read_text())["iterations"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def videos(self) -> list[Path]:
        """Return the videos in the directory."""
        return sorted(path for path in self.path.iterdir() if path.suffix in VIDEOS)

    def metrics_until(self, iterations: int) -> list[metrics_file.MetricsRow]:
        """Return the first ``iterations`` rows of metrics.csv, those before a checkpoint.

        Raises:
            InputError: when the file has fewer rows, or is not what the run wrote.
        """
        rows = self.read_metrics()[:iterations]
        if len(rows) < iterations:
            raise InputError(
                f"{self.metrics} has {len(rows)} of the {iterations} iterations in {self.checkpoint.name}; restore "
                "the whole file, or start a new run"
            )
        return rows

    def keep_metrics(self, iterations: int, forget: str | None = None) -> None:
        """Drop the rows of metrics.csv after the first ``iterations``, which a resumed run writes again.

        Args:
            iterations: number of rows to keep.
            forget: prefix of the columns to clear in the last of them.

        Raises:
            InputError: if the file has fewer rows, or is not what the run wrote.
        """
        names, kept = metrics_file.column_names(self.metrics), self.metrics_until(iterations)
        if kept and forget:
            kept[-1].update({name: None for name in names if name.startswith(forget)})
        if names:
            write_whole(self.metrics, lambda part: metrics_file.write_rows(part, names, kept))

    def sync_metrics(self) -> None:
        """Flush metrics.csv to disk, so that rows are there before their checkpoint."""
        if self.metrics.exists():
            with open(self.metrics, "rb+") as stream:
                os.fsync(stream.fileno())

    def read_metrics(self) -> list[metrics_file.MetricsRow]:
        """Return the rows of metrics.csv as numbers; see ``metrics_file.read_metrics``."""
        return metrics_file.read_metrics(self.metrics)

    def append_metrics(self, row: Mapping[str, float | None]) -> None:
        """Append a row to metrics.csv; None becomes empty, and new columns are empty in earlier rows."""
        try:
            metrics_file.append_row(self.metrics, row, write_whole)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.metrics)) from error


def iteration_of(checkpoint: Path) -> int:
    """Return the number of iterations of a checkpoint from its file name."""
    return int(checkpoint.name.removeprefix(CHECKPOINT))
