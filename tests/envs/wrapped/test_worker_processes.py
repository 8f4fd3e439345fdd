import multiprocessing
import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from metarl.envs.wrapped import worker_processes
from metarl.envs.wrapped.worker_processes import TimedAsyncVectorEnv
from tests.forked import Child


class Hanging(gymnasium.Env[np.ndarray, Any]):
    """Never comes back from a step."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        time.sleep(1000)
        raise AssertionError


def make(parent: int) -> Hanging:
    if os.getpid() != parent:  # The vector environment makes one for itself as well.
        worker_processes.exit_with(parent)
    return Hanging()


def test_a_step_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_processes, "STEP_SECONDS", 0.5)
    worlds = TimedAsyncVectorEnv([Hanging, Hanging])
    worlds.reset()
    with pytest.raises(multiprocessing.TimeoutError):
        worlds.step(np.zeros((2, 1), np.float32))
    worlds.close(terminate=True)


def hang() -> None:
    worker_processes.PARENT_CHECK_SECONDS = 0.05
    worlds = TimedAsyncVectorEnv([partial(make, os.getpid())] * 2)
    worlds.reset()
    print(*(process.pid for process in worlds.processes), flush=True)
    worlds.step(np.zeros((2, 1), np.float32))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    parent, deadline = Child(hang, folder=tmp_path), time.monotonic() + 20
    while not parent.stdout.endswith("\n"):
        assert parent.running, parent.ended()
        time.sleep(0.02)
    workers = [int(word) for word in parent.stdout.split()]
    assert len(workers) == 2
    assert all(map(alive, workers))
    os.kill(parent.pid, signal.SIGKILL)
    assert parent.ended().returncode == -signal.SIGKILL
    while any(map(alive, workers)):
        assert time.monotonic() < deadline, "a worker is still running"
        time.sleep(0.02)
