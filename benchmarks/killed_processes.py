"""Kill -9 of one of several processes at random moments: nothing is lost, and the final numbers are equal.

    python benchmarks/killed_processes.py
    python benchmarks/killed_processes.py --kills 20 --devices "cpu*2"

A run is trained without a kill, and again as often as asked for, each time with one process killed at a random moment,
alternately with and without ``--max-restarts``. With it the run restarts automatically; without it the command must end
within 30 s with one line that names the process, and the run is resumed. The benchmark counts runs whose metrics.csv
and parameters are equal, to the last bit, to those of the run that was never killed.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from metarl.run.directory import RunDirectory

TRAIN = ["train", "maml-vpg", "navigation-2d", "--hidden-sizes", "8", "--horizon", "20", "--tasks-per-batch", "4"]
TRAIN += ["--episodes-per-task", "4", "--checkpoint-every", "3", "--track", "disabled"]
NOT_COMPARED = ("time_", "env_steps_per_second")
PATIENCE_SECONDS = 30.0


@dataclass(frozen=True)
class Options:
    """Kill processes at random moments."""

    kills: int = 20
    """How many runs are killed."""
    devices: str = "cpu*2"
    """Devices of the processes."""
    iterations: int = 40
    """Iterations of each run."""
    seed: int = 0
    """Seed of the moments and processes."""
    folder: str = "/tmp/metarl-killed"
    """Folder of the runs; it is removed at the end."""


def start(out: Path, options: Options, *words: str) -> subprocess.Popen[str]:
    """Start training on several processes."""
    command = [sys.executable, "-m", "metarl", *words, "--devices", options.devices]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def ranks(launcher: int) -> list[int]:
    """Return the ids of the processes that a launcher has started and that are training by now."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            words = (entry / "cmdline").read_text()
        except OSError:
            continue
        if entry.name.isdigit() and int(fields[1]) == launcher and "spawn_main" in words:
            found.append(int(entry.name))
    return sorted(found)


def state(out: Path) -> tuple[list[dict[str, float | None]], dict[str, object]]:
    """Return a run's numbers: its rows without times, and what it has learned."""
    directory = RunDirectory(out)
    rows = [
        {name: value for name, value in row.items() if not name.startswith(NOT_COMPARED)}
        for row in directory.read_metrics()
    ]
    return rows, directory.load_checkpoint()["learner"]


def same(one: object, other: object) -> bool:
    """Return whether two nested states have the same bits."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    return one == other


def kill_one(process: subprocess.Popen[str], out: Path, options: Options, draw: random.Random) -> bool:
    """Kill a process once the run has reached a random iteration; return whether there was one to kill."""
    moment = draw.randrange(options.iterations)
    while process.poll() is None and len(RunDirectory(out).read_metrics()) < moment:
        time.sleep(0.02)
    time.sleep(draw.random() * 0.2)
    if process.poll() is not None or not (living := ranks(process.pid)):
        return False
    os.kill(draw.choice(living), signal.SIGKILL)
    return True


def main(options: Options) -> None:
    """Train, kill, compare, and print the counts."""
    draw, folder = random.Random(options.seed), Path(options.folder)
    shutil.rmtree(folder, ignore_errors=True)
    words = [*TRAIN, "--iterations", str(options.iterations)]
    assert start(folder / "whole", options, *words, "--out", str(folder / "whole")).wait() == 0
    expected = state(folder / "whole")
    counts = {"killed": 0, "by themselves": 0, "ended in one line": 0, "equal": 0}
    slowest = 0.0
    for number in range(options.kills):
        out, restarts = folder / f"run-{number}", number % 2 == 0
        more = ["--max-restarts", "3"] if restarts else []
        process = start(out, options, *words, "--out", str(out), *more)
        killed = kill_one(process, out, options, draw)
        began = time.perf_counter()
        _, lines = process.communicate()
        counts["killed"] += killed
        if killed and restarts:
            counts["by themselves"] += process.returncode == 0
        elif killed:
            slowest = max(slowest, time.perf_counter() - began)
            reports = [line for line in lines.splitlines() if "was killed by SIGKILL" in line]
            counts["ended in one line"] += process.returncode == 1 and len(reports) == len(lines.splitlines()) == 1
            assert start(out, options, "train", "--resume", str(out)).wait() == 0
        counts["equal"] += same(list(state(out)), list(expected))
        print(f"{number + 1} of {options.kills}: {counts}, slowest end {slowest:.1f} s", flush=True)
    shutil.rmtree(folder)
    assert slowest < PATIENCE_SECONDS


if __name__ == "__main__":
    main(tyro.cli(Options))
