"""Replay buffers in files next to the checkpoint: each checkpoint writes only the records added since the last one.

A buffer's records are numbered from 0 in the order in which they were added, and the newest are kept. A file holds the
records START to STOP - 1; the checkpoint lists the files that it needs, with their hashes. New files are written before
the checkpoint that lists them, and old ones are removed after it, so a run killed at any moment has all files of the
checkpoint it resumes from.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from metarl.devices.processes import ONE_PROCESS, Processes
from metarl.learning.replay import Replay
from metarl.run.tensor_files import read_tensors, write_tensors
from metarl.storage.files import make_folder


@dataclass(frozen=True)
class Segment:
    """A file with the records ``start`` to ``stop - 1``."""

    file: str
    start: int
    stop: int
    sha256: str


class ReplayFiles:
    """The files of a learner's replay buffers.

    They hold the records of all processes, in one order, so they do not depend on the number of processes.

    Args:
        folder: folder of the files, created when needed.
        replays: the buffers by name.
        processes: that share the buffers.
    """

    def __init__(self, folder: Path, replays: Mapping[str, Replay], processes: Processes = ONE_PROCESS) -> None:
        self._folder, self._replays, self._processes = folder, replays, processes
        self._segments: dict[str, list[Segment]] = {name: [] for name in replays}

    def save(self) -> dict[str, Any]:
        """Write the records added since the last call, and return the content for the checkpoint."""
        return {name: self._save(name, replay) for name, replay in self._replays.items()}

    def _save(self, name: str, replay: Replay) -> dict[str, Any]:
        oldest = replay.added - replay.kept
        segments = [segment for segment in self._segments[name] if segment.stop > oldest]
        start = max(oldest, segments[-1].stop if segments else 0)
        if start < replay.added:
            file = f"{name}-{start}-{replay.added}.npz"
            records = replay.read(start, replay.added, self._processes)
            sha256 = self._processes.from_first(partial(self._write, file, records))
            segments.append(Segment(file, start, replay.added, sha256))
        self._segments[name] = segments
        return {"added": replay.added, "segments": [asdict(segment) for segment in segments]}

    def _write(self, file: str, records: Mapping[str, Tensor]) -> str:
        make_folder(self._folder, "the replay buffer")
        return write_tensors(self._folder / file, records)

    def remove_others(self, needed: Set[str]) -> None:
        """Remove files that no checkpoint needs; called after the latest checkpoint is on disk.

        Args:
            needed: names of the files to keep.
        """
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                if path.name not in needed:
                    path.unlink()

    def load(self, content: Mapping[str, Any]) -> None:
        """Restore the buffers from the files that a checkpoint lists.

        Raises:
            InputError: if a file is missing or damaged.
        """
        for name, replay in self._replays.items():
            self._segments[name] = [Segment(**segment) for segment in content[name]["segments"]]
            pieces = self._processes.from_first(partial(_read, self._folder, self._segments[name]))
            replay.restore(int(content[name]["added"]), pieces, self._processes)


def check_replay(folder: Path, content: Mapping[str, Any]) -> None:
    """Make sure that the files that a checkpoint lists are there and whole.

    Raises:
        InputError: if one is not.
    """
    for buffer in content.values():
        _read(folder, [Segment(**segment) for segment in buffer["segments"]])


def _read(folder: Path, segments: Sequence[Segment]) -> list[dict[str, Tensor]]:
    return [read_tensors(folder / each.file, each.sha256) for each in segments]
