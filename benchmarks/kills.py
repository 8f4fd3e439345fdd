"""Training runs that are killed, when writing a file or at a random moment, and then continued (``reliability.py``)."""

import contextlib
import io
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.backends.backend_agg
import matplotlib.figure  # noqa: F401 (so that each process need not import it again)
import stable_baselines3  # noqa: F401
import torch

import metarl.run.metrics_file
from metarl.experiments.commands.main import main as metarl_command
from metarl.run.directory import RunDirectory
from metarl.storage.checkpoint_format import encode

CALLS = ("replace", "link", "fsync", "unlink", "rename", "mkdir", "write")
COMMON = (
    "--horizon 5 --iterations 5 --tasks-per-batch 2 --episodes-per-task 2 --track disabled --checkpoint-every 2 "
    "--validate-every 1 --resume-if-there"
)
# An on-policy learner, one with replay buffers, one of Stable-Baselines3's, and one with a task source's state.
WORDS = {
    "maml-trpo": "train maml-trpo navigation-2d",
    "pearl": "train pearl navigation-2d --updates-per-iteration 3 --hidden-sizes 8",
    "dqn": "train dqn gridnavi",
    "rl2-plr": "train rl2 navigation-2d --task-source plr",
}


def start(out: Path, learner: str, number: int = 0) -> tuple[int, Path]:
    """Train in a process of its own, which is killed at the point of that number in its writing, if there is one.

    Returns:
        The process, and the file that its output goes to, which ends with the number of points.
    """
    said = out.with_name(f"{out.name}.txt")
    said.unlink(missing_ok=True)
    if (child := os.fork()) > 0:
        return child, said
    with open(said, "w") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    code = 70
    try:
        code = run_counted([*f"{WORDS[learner]} {COMMON}".split(), "--out", str(out)], number)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run_counted(words: list[str], number: int) -> int:
    """Run a command of metarl; print how many points there were in its writing, and die at the point of that number.

    Points are before each operation on a file and, of those that write text, rows or bytes, after half of it.
    """
    count = 0

    def reached() -> bool:
        nonlocal count
        count += 1
        return count == number

    def dying_before(operation: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*given: Any, **named: Any) -> Any:
            if reached():
                os.kill(os.getpid(), signal.SIGKILL)
            return operation(*given, **named)

        return wrapped

    def dying_within(operation: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(path: Path, *given: Any, **named: Any) -> Any:
            before = path.stat().st_size if path.exists() and operation is append else 0
            if not reached():
                return operation(path, *given, **named)
            operation(path, *given, **named)
            os.truncate(path, (before + path.stat().st_size) // 2)
            os.kill(os.getpid(), signal.SIGKILL)

        return dying_before(wrapped)

    for name in CALLS:
        setattr(os, name, dying_before(getattr(os, name)))
    append = metarl.run.metrics_file.append_row
    metarl.run.metrics_file.append_row = dying_within(append)
    for name in ("write_bytes", "write_text"):
        setattr(Path, name, dying_within(getattr(Path, name)))
    code = metarl_command(words)
    print(count)
    return code


def call(out: Path, learner: str, number: int = 0) -> tuple[int, str]:
    """Train to the end; return the exit code and what was printed."""
    child, said = start(out, learner, number)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), said.read_text()


def quietly(call: Callable[[], int]) -> tuple[int, str]:
    """Return the exit code of a command and what it printed, or a traceback."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = call()
        except Exception:
            return 70, traceback.format_exc()
    return code, said.getvalue()


def kill_after(out: Path, learner: str, seconds: float) -> None:
    """Train, and kill the process after some seconds."""
    child, _ = start(out, learner)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def numbers(path: Path) -> list[dict[str, Any]]:
    """Return the rows of metrics.csv without what a clock measured."""
    rows = RunDirectory(path).read_metrics()
    return [{key: row[key] for key in row if not key.startswith(("time_", "env_steps_per_second"))} for row in rows]


def same_learner(one: Path, other: Path) -> bool:
    """Return whether two checkpoints hold the same learner, bit by bit."""
    first, second = (encode(RunDirectory(path.parents[1]).load_checkpoint(path)["learner"]) for path in (one, other))
    return first == second


def same_run(one: Path, other: Path) -> bool:
    """Return whether two finished runs have the same numbers, latest and best checkpoint."""
    first, second = RunDirectory(one), RunDirectory(other)
    best, best_other = first.find_checkpoint("best"), second.find_checkpoint("best")
    return (
        numbers(one) == numbers(other)
        and best.name == best_other.name
        and same_learner(best, best_other)
        and same_learner(first.checkpoint, second.checkpoint)
        and first.curve.exists()
        and first.finished_iterations() == second.finished_iterations()
    )


def verdict(out: Path, whole: Path, learner: str) -> tuple[str, str]:
    """Continue a killed run by the command that began it; return the outcome, and what was printed."""
    code, said = call(out, learner)
    if "Traceback" in said:
        return "TRACEBACK", said
    if code:
        return "DEAD END", said
    if not same_run(out, whole):
        return "WRONG NUMBERS", said
    code, said = quietly(lambda: metarl_command(["check", str(out)]))
    return ("the same numbers", "") if code == 0 else ("WRONG FILE", said)


class Kills:
    """The cases of one learner.

    Args:
        learner: a key of ``WORDS``.
        folder: where the run that is not killed is made, and the others beside it.
    """

    def __init__(self, learner: str, folder: Path) -> None:
        torch.set_num_threads(1)  # a forked process has no threads but its own
        self.learner, self.folder, self.whole = learner, folder, folder / f"{learner}-whole"
        if not self.whole.exists():
            making = folder / f"{learner}-{os.getpid()}"
            began = time.monotonic()
            code, said = call(making, learner)
            assert code == 0, said
            (making / "points.txt").write_text(f"{said.split()[-1]} {time.monotonic() - began}")
            making.rename(self.whole)
        points, seconds = (self.whole / "points.txt").read_text().split()
        self.points, self.seconds = int(points), float(seconds)

    def at_a_write(self, number: int) -> tuple[str, str]:
        """Kill at the point of that number in the writing of all files."""
        out = self._place(f"write-{number}")
        code, said = call(out, self.learner, number + 1)
        assert code == -signal.SIGKILL, f"the point was not reached: {said}"
        return self._end(out)

    def at_random(self, number: int) -> tuple[str, str]:
        """Kill one to three times, each at a random moment."""
        out, draw = self._place(f"random-{number}"), random.Random(f"{self.learner} {number}")
        for _ in range(draw.choice([1, 1, 2, 3])):
            kill_after(out, self.learner, draw.uniform(0.0, 1.0) * self.seconds)
        return self._end(out)

    def _place(self, name: str) -> Path:
        out = self.folder / f"{self.learner}-{name}"
        shutil.rmtree(out, ignore_errors=True)
        return out

    def _end(self, out: Path) -> tuple[str, str]:
        found = verdict(out, self.whole, self.learner)
        if not found[0].isupper():
            shutil.rmtree(out)
            out.with_name(f"{out.name}.txt").unlink()
        return found
