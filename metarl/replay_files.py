"""Replay buffers in files next to the checkpoint: each checkpoint writes only the records added since the last one.

A buffer's records are numbered from 0 in the order in which they were added, and the newest are kept. A file holds the
records START to STOP - 1; the checkpoint lists the files that it needs, with their hashes. New files are written before
the checkpoint that lists them, and old ones are removed after it, so a run killed at any moment has all files of the
checkpoint it resumes from.
"""

from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from metarl.files import make_folder
from metarl.replay import Replay
from metarl.tensor_files import read_tensors, write_tensors


@dataclass(frozen=True)
class Segment:
    """A file with the records ``start`` to ``stop - 1``."""

    file: str
    start: int
    stop: int
    sha256: str


class ReplayFiles:
    """The files of a learner's replay buffers.

    Args:
        folder: folder of the files, created when needed.
        replays: the buffers by name.
    """

    def __init__(self, folder: Path, replays: Mapping[str, Replay]) -> None:
        self._folder, self._replays = folder, replays
        self._segments: dict[str, list[Segment]] = {name: [] for name in replays}

    def save(self) -> dict[str, Any]:
        """Write the records added since the last call, and return the content for the checkpoint."""
        return {name: self._save(name, replay) for name, replay in self._replays.items()}

    def _save(self, name: str, replay: Replay) -> dict[str, Any]:
        oldest = replay.added - replay.kept
        segments = [segment for segment in self._segments[name] if segment.stop > oldest]
        start = max(oldest, segments[-1].stop if segments else 0)
        if start < replay.added:
            make_folder(self._folder, "the replay buffer")
            file = f"{name}-{start}-{replay.added}.npz"
            sha256 = write_tensors(self._folder / file, replay.read(start, replay.added))
            segments.append(Segment(file, start, replay.added, sha256))
        self._segments[name] = segments
        return {"added": replay.added, "segments": [asdict(segment) for segment in segments]}

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
            pieces = [read_tensors(self._folder / each.file, each.sha256) for each in self._segments[name]]
            replay.restore(int(content[name]["added"]), pieces)
