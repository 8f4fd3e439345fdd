"""``metarl runs``: list the runs in a folder, with their state, progress, returns and size."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from metarl.errors import InputError
from metarl.experiments.commands.parsing import parse
from metarl.run.directory import RunDirectory
from metarl.run.metrics import VALIDATION
from metarl.run.metrics_file import MetricsRow
from metarl.storage.lock import is_being_written

COLUMNS = ("run", "state", "learner", "family", "iterations", "validated", "written", "size")
MINUTE, HOUR, DAY = 60, 3600, 86400


@dataclass(frozen=True)
class RunsOptions:
    """List the runs in a folder and its subfolders.

    The column "validated" is the best return after adaptation on validation tasks.
    """

    folder: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FOLDER")] = "runs"
    """Folder to look in."""


def run(words: Sequence[str]) -> None:
    """Print a table of the runs.

    Raises:
        InputError: if there is no such folder.
    """
    folder = Path(parse(RunsOptions, "metarl runs", words).folder).expanduser()
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; name the one that holds your runs: metarl runs FOLDER")
    found = sorted(path.parent for path in folder.rglob("config.json") if (path.parent / "metrics.csv").exists())
    if not found:
        print(f"no runs in {folder}")
        return
    table = [COLUMNS, *(_row(path, folder) for path in found)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip())


def _row(path: Path, folder: Path) -> tuple[str, ...]:
    """Return the cells of a run; one that cannot be read has only a name, a state and its size."""
    directory = RunDirectory(path)
    name, size = str(path.relative_to(folder)), _size(path)
    written = _age(time.time() - directory.metrics.stat().st_mtime)
    try:
        config, rows = directory.read_config(), directory.read_metrics()
    except InputError:
        return name, "damaged (metarl check)", "", "", "", "", written, size
    total = int(config["run"]["iterations"])
    values = [row[column] for row in rows if row.get(column := f"{VALIDATION}return_after") is not None]
    best = f"{max(value for value in values if value is not None):.2f}" if values else ""
    state = _state(directory, rows, total)
    return name, state, config["learner"], config["family"], f"{len(rows)}/{total}", best, written, size


def _state(directory: RunDirectory, rows: Sequence[MetricsRow], total: int) -> str:
    if is_being_written(directory.path):
        return "running"
    if directory.finished_iterations() == total:
        return "finished"
    return "diverged" if rows and rows[-1].get("diverged") else "stopped"


def _age(seconds: float) -> str:
    """Return how long ago something was, in its largest unit."""
    for unit, name in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.0f} {name} ago"
    return f"{max(seconds, 0):.0f} s ago"


def _size(path: Path) -> str:
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return f"{size / 1e6:.1f} MB"
