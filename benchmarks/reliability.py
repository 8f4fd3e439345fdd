"""Kills at random and at every write of every file, and damaged checkpoints; prints counts, and a fault ends it with 1.

    python benchmarks/reliability.py [--kills 200] [--mutations 1000]

Each run that was killed is continued by the command of a requeued job (``--resume-if-there``) and compared, number by
number, with one that was not. A mutated checkpoint must be refused in one line.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from metarl.checkpoint_format import decode, encode
from metarl.errors import InputError
from metarl.evaluation import load_run
from metarl.experiments.commands.main import main as metarl_command
from metarl.run_directory import RunDirectory

CALLS = ("replace", "link", "fsync", "unlink", "rename", "mkdir", "write")
WORDS = (
    "train {learner} navigation-2d --horizon 5 --iterations 5 --tasks-per-batch 2 --episodes-per-task 2 "
    "--track disabled --checkpoint-every 2 --validate-every 1 --resume-if-there"
)


def start(out: Path, learner: str, number: int = 0) -> tuple[int, Path]:
    """Run the training command in a process of its own, killed before the file operation of that number if it is one.

    Returns:
        The process, and the file that its output goes to, which ends with the number of file operations.
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
        code = run_counted([*WORDS.format(learner=learner).split(), "--out", str(out)], number)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run_counted(words: list[str], number: int) -> int:
    """Run a command of metarl; print how many operations on files there were, and die before that of the number."""
    count = 0

    def counted(operation: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*given: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return operation(*given, **named)

        return wrapped

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    writing = Path.write_bytes
    Path.write_bytes = counted(writing)  # type: ignore[method-assign]
    code = metarl_command(words)
    print(count)
    return code


def call(out: Path, learner: str, number: int = 0) -> tuple[int, str]:
    """Run the training command to its end; return its exit code and what it printed."""
    child, said = start(out, learner, number)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), said.read_text()


def kill_after(out: Path, learner: str, seconds: float) -> None:
    """Run the training command, and kill it after some seconds."""
    child, _ = start(out, learner)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def numbers(path: Path) -> list[dict[str, str]]:
    """Return the rows of metrics.csv without what a clock measured."""
    rows = RunDirectory(path).read_metrics()
    return [{key: row[key] for key in row if not key.startswith(("time_", "env_steps_per_second"))} for row in rows]


def same_learner(one: Path, other: Path) -> bool:
    """Return whether two checkpoints hold the same learner, bit by bit."""
    first, second = (encode(RunDirectory(path.parents[1]).load_checkpoint(path)["learner"]) for path in (one, other))
    return first == second


def verdict(out: Path, whole: Path, learner: str) -> str:
    """Continue a killed run, and return what is wrong with it then."""
    code, said = call(out, learner)
    if "Traceback" in said:
        return f"traceback: {said}"
    if code:
        return f"dead end: {said.strip()}"
    one, other = RunDirectory(out), RunDirectory(whole)
    best, best_whole = one.find_checkpoint("best"), other.find_checkpoint("best")
    equal = (
        numbers(out) == numbers(whole)
        and best.name == best_whole.name
        and same_learner(best, best_whole)
        and same_learner(one.checkpoint, other.checkpoint)
        and one.curve.exists()
    )
    return "right" if equal else "wrong numbers"


def try_kills(folder: Path, kills: int) -> Counter[str]:
    """Kill runs at every file operation, then at random moments until there are enough kills."""
    counts: Counter[str] = Counter()
    draw = random.Random(0)
    for learner in ("maml-trpo", "pearl"):
        whole = folder / f"{learner}-whole"
        began = time.monotonic()
        operations = int(call(whole, learner)[1].split()[-1])
        seconds = time.monotonic() - began
        for number in range(1, operations + 1):
            out = folder / "killed"
            call(out, learner, number)
            counts[f"at a file operation of {learner}: {verdict(out, whole, learner)}"] += 1
            shutil.rmtree(out)
        for _ in range(max(0, kills // 2 - operations)):
            out = folder / "killed"
            for _ in range(draw.choice([1, 1, 2, 3])):
                kill_after(out, learner, draw.uniform(0.0, 1.0) * seconds)
            counts[f"at random in {learner}: {verdict(out, whole, learner)}"] += 1
            shutil.rmtree(out, ignore_errors=True)
        print(dict(counts), flush=True)
    return counts


def mutate(data: bytes, draw: random.Random) -> bytes:
    """Return a damaged copy: flipped bits, a zeroed block, a cut, a repeated block."""
    changed, kind = bytearray(data), draw.randrange(4)
    start = draw.randrange(len(data))
    stop = min(len(data), start + draw.choice([1, 16, 512]))
    if kind == 0:
        changed[start] ^= 1 << draw.randrange(8)
    elif kind == 1:
        changed[start:stop] = bytes(stop - start)
    elif kind == 2:
        del changed[start:]
    else:
        changed[start:start] = changed[start:stop]
    return bytes(changed)


def change_content(data: bytes, draw: random.Random) -> bytes:
    """Return a checkpoint with a right SHA-256 over a wrong content."""
    content = decode(data)
    params = content["learner"]["params"]
    name = draw.choice(sorted(params))
    kind = draw.randrange(6)
    if kind == 0:
        params[name] = params[name].flatten()[:, None]
    elif kind == 1:
        params[name] = params[name].double()
    elif kind == 2:
        params[name] = params[name] * float("nan")
    elif kind == 3:
        del params[name]
    elif kind == 4:
        content["env_steps"] = -1
    else:
        content["config_hash"] = "0" * 64
    return encode(content)


def try_mutations(folder: Path, mutations: int) -> Counter[str]:
    """Damage the latest checkpoint in many ways; each must be refused in one line, or have changed nothing."""
    counts: Counter[str] = Counter()
    draw = random.Random(0)
    directory = RunDirectory(folder / "maml-trpo-whole")
    whole = directory.checkpoint.read_bytes()
    for index in range(mutations):
        change = change_content if index % 5 == 0 else mutate
        damaged = change(whole, draw)
        if damaged == whole:
            continue
        directory.checkpoint.write_bytes(damaged)
        try:
            load_run(directory.path)
            counts[f"{change.__name__}: accepted"] += 1
        except InputError as error:
            counts[f"{change.__name__}: {'refused' if str(error).count(chr(10)) == 0 else 'many lines'}"] += 1
        except Exception as error:
            counts[f"{change.__name__}: traceback of {type(error).__name__}: {error}"] += 1
    directory.checkpoint.write_bytes(whole)
    return counts


def main() -> int:
    torch.set_num_threads(1)  # a forked process has no threads but its own
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--mutations", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = try_kills(Path(folder), options.kills) + try_mutations(Path(folder), options.mutations)
    for what, count in sorted(counts.items()):
        print(f"{count:>6} {what}")
    return int(any(not what.endswith((": right", ": refused")) for what in counts))


if __name__ == "__main__":
    sys.exit(main())
