"""What W&B's own programs send of a run that was stopped, killed and resumed, to a server on this machine."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from metarl.run.directory import RunDirectory
from metarl.tracking import wandb_files
from metarl.tracking.tracking import where_tracked
from metarl.tracking.wandb_files import HEADER, await_end, records, remove_empty_parts, whole_parts
from metarl.training.train import resume, train
from tests.runs import small
from tests.wandb_server import WandbServer, wandb_server


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    with wandb_server() as running:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", running.url)
        yield running


def parts(path: Path) -> list[Path]:
    return sorted((path / "wandb").glob("offline-run-*"))


def sync(*places: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "wandb", "sync", *map(str, places)]
    return subprocess.run(words, env=dict(os.environ), capture_output=True, text=True, timeout=100, check=False)


def kill_a_part(path: Path, run_id: str, name: str, rows: int) -> Path:
    """Leave a part as a process does that was killed when it had written some rows, or, with 0, the header alone."""
    part = path / "wandb" / f"offline-run-{name}-{run_id}"
    (whole,) = parts(path)[0].glob("*.wandb")
    content, size = whole.read_bytes(), HEADER
    part.mkdir()
    while size <= len(content):
        (part / whole.name).write_bytes(content[:size])
        if sum(record.HasField("history") for record in records(part / whole.name)) == rows:
            return part
        size += 100  # less than a row
    raise AssertionError(f"the run has not had {rows} rows")


@pytest.fixture
def stopped(tmp_path: Path) -> tuple[Path, str]:
    """Return an offline run of three iterations, and its id."""
    train(small(tmp_path / "run", iterations=3, track="offline"))
    return tmp_path / "run", RunDirectory(tmp_path / "run").read_config()["tracking_id"]


def test_the_part_with_most_rows_is_uploaded_the_newest_of_several(stopped: tuple[Path, str]) -> None:
    path, run_id = stopped
    (first,) = parts(path)
    kill_a_part(path, run_id, "29991231_000001", 0)
    kill_a_part(path, run_id, "29991231_000002", 1)
    assert whole_parts(path) == [first]
    again = first.with_name(f"offline-run-29991231_000003-{run_id}")
    shutil.copytree(first, again)
    assert whole_parts(path) == [again]
    assert where_tracked(path)[1] == f"upload    wandb sync {again}"


def test_a_part_without_a_record_is_removed_and_no_other(stopped: tuple[Path, str]) -> None:
    path, run_id = stopped
    (first,) = parts(path)
    empty = kill_a_part(path, run_id, "29991231_000001", 0)
    other = kill_a_part(path, f"{run_id}-eval-1", "29991231_000002", 0)
    remove_empty_parts(path, run_id)
    assert parts(path) == [first, other]
    assert not empty.exists()


def test_a_run_has_ended_when_its_file_has(stopped: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    path, run_id = stopped
    monkeypatch.setattr(wandb_files, "PATIENCE_SECONDS", 0.05)
    await_end(parts(path)[0])
    with pytest.raises(TimeoutError, match="W&B has not finished"):
        await_end(kill_a_part(path, run_id, "29991231_000001", 1))


@pytest.mark.slow
def test_after_stops_and_kills_an_upload_is_the_whole_history(stopped: tuple[Path, str], server: WandbServer) -> None:
    path, run_id = stopped
    assert sync(*whole_parts(path)).returncode == 0
    assert server.iterations(run_id) == [0, 1, 2]
    kill_a_part(path, run_id, "20991231_000001", 0)
    kill_a_part(path, run_id, "20991231_000002", 1)
    resume(path, iterations=5)
    for part in parts(path):  # the new part was made before those that imitate killed ones
        if "2099" not in part.name and part != parts(path)[0]:
            part.rename(part.with_name(f"offline-run-29991231_000001-{run_id}"))
    (newest,) = whole_parts(path)
    assert newest == parts(path)[-1]
    assert sync(newest).returncode == 0
    assert server.iterations(run_id) == [0, 1, 2, 3, 4]


@pytest.mark.slow
def test_so_is_an_upload_of_the_whole_folder(stopped: tuple[Path, str], server: WandbServer) -> None:
    path, run_id = stopped
    kill_a_part(path, run_id, "20201231_000001", 0)
    resume(path, iterations=5)
    assert len(parts(path)) == 2
    assert sync(path / "wandb").returncode == 0
    assert server.iterations(run_id) == [0, 1, 2, 3, 4]


@pytest.mark.slow
def test_online_a_resumed_run_continues_after_its_last_row(tmp_path: Path, server: WandbServer) -> None:
    path = tmp_path / "run"
    train(small(path, iterations=2, track="online"))
    run_id = RunDirectory(path).read_config()["tracking_id"]
    assert server.iterations(run_id) == [0, 1]
    resume(path, iterations=4)
    assert server.iterations(run_id) == [0, 1, 2, 3]
