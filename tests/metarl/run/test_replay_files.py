"""Replay buffers in files: what a checkpoint lists is there at any moment, and only what is new is written."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import metarl.storage.files
from metarl.agents.in_context.pearl_config import PearlConfig
from metarl.devices.processes import ONE_PROCESS, Processes
from metarl.errors import InputError
from metarl.evaluation.evaluate import evaluate
from metarl.run.directory import RunDirectory
from metarl.run.replay_files import ReplayFiles
from metarl.training.train import resume, train
from tests.runs import numbers, tiny


class Numbers:
    """Keeps the newest numbers."""

    def __init__(self, room: int = 4) -> None:
        self.room, self.added, self.values = room, 0, torch.empty(0)

    @property
    def kept(self) -> int:
        return len(self.values)

    def add(self, *values: float) -> None:
        self.values = torch.cat([self.values, torch.tensor(values)])[-self.room :]
        self.added += len(values)

    def read(self, start: int, stop: int, processes: Processes = ONE_PROCESS) -> dict[str, Tensor]:
        oldest = self.added - self.kept
        return {"values": self.values[start - oldest : stop - oldest]}

    def restore(self, added: int, pieces: list[dict[str, Tensor]], processes: Processes = ONE_PROCESS) -> None:
        self.values = torch.cat([torch.empty(0), *(piece["values"] for piece in pieces)])[-self.room :]
        self.added = added


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def listed(content: dict[str, Any]) -> set[str]:
    """Return the files that a checkpoint lists."""
    return {segment["file"] for replay in content.values() for segment in replay["segments"]}


def test_only_what_is_new_is_written_and_what_is_not_needed_goes(tmp_path: Path) -> None:
    buffer, folder = Numbers(), tmp_path / "replay"
    files = ReplayFiles(folder, {"n": buffer})
    assert files.save() == {"n": {"added": 0, "segments": []}}
    assert not folder.exists()
    buffer.add(0, 1, 2)
    files.save()
    first = (folder / "n-0-3.npz").stat().st_mtime_ns
    buffer.add(3)
    content = files.save()
    files.remove_others(listed(files.save()))
    assert names(folder) == ["n-0-3.npz", "n-3-4.npz"]
    assert (folder / "n-0-3.npz").stat().st_mtime_ns == first
    assert files.save() == content  # nothing new
    buffer.add(4, 5)
    files.save()
    assert names(folder) == ["n-0-3.npz", "n-3-4.npz", "n-4-6.npz"]  # 2 is still kept
    buffer.add(6)
    files.save()
    assert "n-0-3.npz" in names(folder)  # until the checkpoint is there
    files.remove_others(listed(files.save()))
    assert names(folder) == ["n-3-4.npz", "n-4-6.npz", "n-6-7.npz"]


@pytest.mark.parametrize("after", [1, 2, 3, 4, 5])
def test_a_buffer_is_what_it_was_at_the_checkpoint_whatever_was_written_since(after: int, tmp_path: Path) -> None:
    buffer = Numbers()
    files = ReplayFiles(tmp_path / "replay", {"n": buffer})
    for number in range(after):
        buffer.add(number, number + 0.5)
        content = files.save()
        files.remove_others(listed(files.save()))
    expected = buffer.values.clone()
    buffer.add(7, 8, 9, 10, 11)
    files.save()  # killed before the checkpoint
    other = Numbers()
    again = ReplayFiles(tmp_path / "replay", {"n": other})
    again.load(content)
    assert torch.equal(other.values, expected)
    assert other.added == 2 * after
    # It goes on, and the orphan goes.
    other.add(100)
    again.save()
    again.remove_others(listed(again.save()))
    assert len(names(tmp_path / "replay")) == len(again.save()["n"]["segments"])


def test_more_than_the_room_at_once_is_written_as_far_as_it_is_kept(tmp_path: Path) -> None:
    buffer, other = Numbers(), Numbers()
    buffer.add(*range(10))
    content = ReplayFiles(tmp_path, {"n": buffer}).save()
    ReplayFiles(tmp_path, {"n": other}).load(content)
    assert other.values.tolist() == [6, 7, 8, 9]


def pearl(out: Path, iterations: int, **run: int) -> None:
    settings = PearlConfig(hidden_sizes=(8,), updates_per_iteration=2, batch_size=4, replay_size=2 * 2 * 2 * 6 * 2)
    train(replace(tiny("pearl", out, iterations=iterations, **run), settings=settings))


class Killed(BaseException):
    """The process is gone."""


# Written at each save: a segment, then the checkpoint; the first save is of iteration 0, which has no segment.
@pytest.mark.parametrize("write", range(9))
def test_a_run_killed_at_any_write_resumes_to_the_same_numbers(
    write: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pearl(tmp_path / "whole", 4, checkpoint_every=1)
    replacing, done = metarl.storage.files.os.replace, [0]

    def killed(source: Path, target: Path) -> None:
        if Path(target).parent.name in ("replay", "checkpoints"):
            done[0] += 1
            if done[0] > write:
                raise Killed
        replacing(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(metarl.storage.files.os, "replace", killed)
        with pytest.raises(Killed):
            pearl(tmp_path / "parts", 4, checkpoint_every=1)
    resume(tmp_path / "parts")
    assert numbers(tmp_path / "parts") == numbers(tmp_path / "whole")


def test_the_checkpoint_does_not_hold_the_replay_and_evaluation_does_not_read_it(tmp_path: Path) -> None:
    pearl(tmp_path / "run", 2)
    before = evaluate(tmp_path / "run", tasks=2).returns
    (segment,) = (tmp_path / "run" / "replay").iterdir()
    segment.unlink()
    assert (evaluate(tmp_path / "run", tasks=2).returns == before).all()
    assert "replay" not in RunDirectory(tmp_path / "run").load_checkpoint()["learner"]
    with pytest.raises(InputError, match=r"transitions-0-4.npz is missing"):
        resume(tmp_path / "run", 3)


def test_a_damaged_replay_is_refused(tmp_path: Path) -> None:
    pearl(tmp_path / "run", 2)
    (segment,) = (tmp_path / "run" / "replay").iterdir()
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 1
    segment.write_bytes(content)
    with pytest.raises(InputError, match="is damaged: its SHA-256"):
        resume(tmp_path / "run", 3)


def test_the_latest_checkpoints_keep_their_replay(tmp_path: Path) -> None:
    pearl(tmp_path / "whole", 5, checkpoint_every=1)
    pearl(tmp_path / "run", 5, checkpoint_every=1)
    directory = RunDirectory(tmp_path / "run")
    directory.checkpoint.unlink()  # as its message advises where it is damaged
    directory.checkpoint.unlink()
    resume(tmp_path / "run")
    assert numbers(tmp_path / "run") == numbers(tmp_path / "whole")
