"""The lock on a run directory: one owner, whoever starts when, and none that is dead."""

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pytest

import metarl.storage.lock
from metarl.errors import InputError, RunError
from metarl.storage.lock import DEAD_AFTER_SECONDS, RunLock
from tests.forked import CONTEXT, Child

HELD = r"is being written by process \d+ on .* since .*; wait for it to end, .* \(if .* is gone, remove .*\.lock\)"


def test_a_second_owner_is_refused_and_the_first_continues(tmp_path: Path) -> None:
    with RunLock(tmp_path) as lock:
        with pytest.raises(InputError, match=HELD), RunLock(tmp_path):
            pass
        lock.check()


def test_nothing_is_left(tmp_path: Path) -> None:
    with RunLock(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert list(tmp_path.iterdir()) == []


def die_as_owner(folder: Path) -> None:
    RunLock(folder).__enter__()
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    assert Child(die_as_owner, tmp_path, folder=tmp_path).ended().returncode == -signal.SIGKILL
    assert (tmp_path / ".lock").exists()
    with RunLock(tmp_path) as lock:
        lock.check()


def test_a_process_with_the_number_of_a_dead_one_is_not_its_owner(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    lock._owner = replace(lock._owner, started=lock._owner.started - 1)
    lock.__enter__()
    with RunLock(tmp_path) as other:
        other.check()


@pytest.mark.parametrize(("age", "dead"), [(0.0, False), (DEAD_AFTER_SECONDS + 60, True)])
def test_an_owner_on_another_machine_is_dead_when_it_no_longer_renews(age: float, dead: bool, tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    lock._owner = replace(lock._owner, host="elsewhere")
    lock.__enter__()
    written = (tmp_path / ".lock").stat().st_mtime - age
    os.utime(tmp_path / ".lock", (written, written))
    if dead:
        with RunLock(tmp_path) as other:
            other.check()
            with pytest.raises(RunError, match="another process has taken over"):
                lock.check()
    else:
        with pytest.raises(InputError, match="on elsewhere"), RunLock(tmp_path):
            pass


def test_a_lock_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metarl.storage.lock, "RENEWAL_SECONDS", 0.01)
    with RunLock(tmp_path):
        os.utime(tmp_path / ".lock", (0, 0))
        for _ in range(500):
            if (tmp_path / ".lock").stat().st_mtime > 0:
                break
            time.sleep(0.01)
        assert (tmp_path / ".lock").stat().st_mtime > 0


def test_a_removed_lock_ends_its_owner(tmp_path: Path) -> None:
    with RunLock(tmp_path) as lock:
        (tmp_path / ".lock").unlink()
        with pytest.raises(RunError, match="was removed; this process ends without writing"):
            lock.check()


def test_without_hard_links_the_lock_is_made_exclusively(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with RunLock(tmp_path) as lock:
        lock.check()
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
        with pytest.raises(InputError, match=HELD), RunLock(tmp_path):
            pass


def compete(folder: Path, together: Barrier) -> None:
    together.wait(20)
    try:
        with RunLock(folder):
            together.wait(20)  # until all have tried
            print("owner")
    except InputError:
        together.wait(20)
        print("refused")


@pytest.mark.parametrize("dead", [False, True])
def test_of_processes_that_start_at_the_same_moment_one_is_the_owner(dead: bool, tmp_path: Path) -> None:
    if dead:
        lock = RunLock(tmp_path)
        lock._owner = replace(lock._owner, pid=2**22 + 1)
        lock.__enter__()
    together = CONTEXT.Barrier(4)
    children = [Child(compete, tmp_path, together, folder=tmp_path) for _ in range(4)]
    assert sorted(child.ended().stdout for child in children) == ["owner\n", *["refused\n"] * 3]
