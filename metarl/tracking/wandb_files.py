"""The folders that W&B leaves in a run directory, and which of them an upload needs.

An offline run that is stopped and resumed leaves several parts of one W&B run. ``wandb sync`` sends the rows of each
from the first on, so that a later part replaces what earlier ones sent. Each part therefore begins with the rows of the
iterations before (``WandbTracker``), and the part with the most rows is the whole run.
"""

import shutil
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Bytes of W&B's header, of that of a record's piece, and of the blocks that no piece crosses (LevelDB's log format).
HEADER, PIECE, BLOCK = 7, 7, 32768
WHOLE, LAST = 1, 4  # kinds of pieces that a record ends with
PATIENCE_SECONDS, PAUSE_SECONDS = 30.0, 0.01


def offline_run(directory: Path) -> Path | None:
    """Return the newest W&B run folder in a run directory, or None."""
    runs = sorted((directory / "wandb").glob("*run-*"), key=lambda path: path.stat().st_mtime)
    return runs[-1] if runs else None


def whole_parts(directory: Path) -> list[Path]:
    """Return, for each offline W&B run in a run directory, the part with the most rows; of several, the newest.

    A part without a record, killed within seconds, ends ``wandb sync`` with an error, and is never among them.
    """
    fullest: dict[str, tuple[int, Path]] = {}
    for part in sorted((directory / "wandb").glob("offline-run-*")):  # their names begin with the time
        _, _, _, run_id = part.name.split("-", 3)
        if not _is_empty(part):
            counted = (_rows(part), part)
            fullest[run_id] = max(fullest.get(run_id, counted), counted)
    return [part for _, part in fullest.values()]


def remove_empty_parts(directory: Path, run_id: str) -> None:
    """Remove the parts of an offline W&B run that hold no record; the process that made them must have ended."""
    for part in (directory / "wandb").glob(f"offline-run-*-{run_id}"):
        if _is_empty(part):
            shutil.rmtree(part)


def await_end(part: Path) -> None:
    """Wait until W&B's process has written a part to its end: ``finish`` may return before the first record is there.

    Raises:
        TimeoutError: after ``PATIENCE_SECONDS``.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not any(record.HasField("exit") for file in part.glob("*.wandb") for record in records(file)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"W&B has not finished {part} within {PATIENCE_SECONDS:.0f} s")
        time.sleep(PAUSE_SECONDS)


def records(path: Path) -> Iterator[Any]:
    """Read the records of a .wandb file, up to the first incomplete one."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    content = path.read_bytes()
    position, gathered = HEADER, b""
    while position + PIECE <= len(content):
        left = BLOCK - position % BLOCK
        if left < PIECE:
            position += left
            continue
        size, kind = struct.unpack_from("<HB", content, position + 4)  # after four bytes of checksum
        position += PIECE + size
        if position > len(content):
            return
        gathered += content[position - size : position]
        if kind in (WHOLE, LAST):
            yield Record.FromString(gathered)
            gathered = b""


def _is_empty(part: Path) -> bool:
    return not any(file.stat().st_size > HEADER for file in part.glob("*.wandb"))


def _rows(part: Path) -> int:
    return sum(record.HasField("history") for file in part.glob("*.wandb") for record in records(file))
