"""Run directories with a damaged file or an edited config.json (``reliability.py``).

Each is evaluated, checked by ``metarl check`` and resumed. What reads the file must refuse it with a one-line error, or
arrive at the numbers of the undamaged run; and the check must find what has changed.
"""

import contextlib
import io
import json
import os
import random
import re
import shutil
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.kills import numbers as rows_of
from benchmarks.kills import quietly, same_learner
from metarl.errors import InputError, RunError
from metarl.evaluation.evaluate import evaluate
from metarl.experiments.commands.main import main as metarl_command
from metarl.run.config_file import CHANGEABLE
from metarl.run.directory import RunDirectory
from metarl.run.metrics_file import read_metrics
from metarl.storage.checkpoint_format import decode, encode
from metarl.training.loop_tools import StopRequest
from metarl.training.train import resume

ITERATIONS, FURTHER = 3, 2
WORDS = {
    "maml-trpo": "train maml-trpo navigation-2d --hidden-sizes 8",
    "pearl": "train pearl navigation-2d --updates-per-iteration 3 --hidden-sizes 8",
}
COMMON = (
    f"--horizon 5 --iterations {ITERATIONS} --tasks-per-batch 2 --episodes-per-task 2 --track disabled "
    "--checkpoint-every 1 --validate-every 1"
)
# What a user may change in config.json, because it does not change the numbers, or changes them as asked.
FREE = {"iterations", "redraw", *CHANGEABLE}


class StopAfter(StopRequest):
    """A request to stop that comes after some iterations."""

    def __init__(self, iterations: int) -> None:
        super().__init__()
        self._left = iterations

    @property
    def requested(self) -> bool:
        """Whether the iterations are over; asked before each of them."""
        self._left -= 1
        return self._left < 0


class Damages:
    """The cases of one learner.

    Args:
        learner: a key of ``WORDS``.
        folder: where the undamaged run is made, and the others beside it.
    """

    def __init__(self, learner: str, folder: Path) -> None:
        torch.set_num_threads(1)
        self.folder, self.half, self.whole = folder, folder / f"{learner}-half", folder / f"{learner}-resumed"
        if not self.whole.exists():
            making = folder / f"{learner}-{os.getpid()}"
            quietly(lambda: metarl_command([*f"{WORDS[learner]} {COMMON}".split(), "--out", str(making)]))
            quietly(lambda: metarl_command(["evaluate", str(making), "--tasks", "3", "--steps", "1"]))
            shutil.copytree(making, self.half)
            go_on(making)
            making.rename(self.whole)
        self.returns = evaluate(self.half, 3, 1).returns
        self.files = sorted(path.relative_to(self.half) for path in self.half.rglob("*") if path.is_file())
        self.edits = list(edits(json.loads((self.half / "config.json").read_text())))

    def damaged(self, number: int) -> tuple[str, str]:
        """Damage a file of the run."""
        draw = random.Random(number)
        file = self.files[number % len(self.files)]
        changes: list[Callable[[bytes, random.Random], bytes]] = [mutate, mutate, change_digit]
        if file.parts[0] == "checkpoints":
            changes = [mutate, change_content]
        before = (self.half / file).read_bytes()
        after = draw.choice(changes)(before, draw)
        return self._try(f"damaged-{number}", file, after)

    def edited(self, number: int) -> tuple[str, str]:
        """Change an entry of config.json as a person might."""
        return self._try(f"edited-{number}", Path("config.json"), json.dumps(self.edits[number], indent=2).encode())

    def _try(self, name: str, file: Path, content: bytes) -> tuple[str, str]:
        if content == (self.half / file).read_bytes():
            return "changed nothing", ""
        place = self.folder / f"{self.half.name}-{name}"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.half, place)
        (place / file).write_bytes(content)
        found, said = self._outcome(place, file)
        if not found.isupper():
            shutil.rmtree(place)
        return found, f"{file}: {said}" if said else ""

    def _outcome(self, place: Path, file: Path) -> tuple[str, str]:
        changed = meaning(place / file) != meaning(self.half / file)
        check_code, check_said = quietly(lambda: metarl_command(["check", str(place)]))
        if "Traceback" in check_said:
            return "TRACEBACK", check_said
        if changed and check_code == 0 and file.name != "finished.json":
            return "NOT FOUND BY CHECK", check_said
        for step in (self._evaluates_alike, self._resumes_alike):
            found, said = step(place)
            if found != "same":
                return found, said
        return "the same numbers, and found by metarl check" if check_code else "the same numbers", ""

    def _evaluates_alike(self, place: Path) -> tuple[str, str]:
        def alike() -> bool:
            return bool((evaluate(place, 3, 1).returns == self.returns).all())

        return _attempt(alike)

    def _resumes_alike(self, place: Path) -> tuple[str, str]:
        def alike() -> bool:
            go_on(place)
            one, other = RunDirectory(place), RunDirectory(self.whole)
            same = one.find_checkpoint("best").name == other.find_checkpoint("best").name
            return same and rows_of(place) == rows_of(self.whole) and same_learner(one.checkpoint, other.checkpoint)

        return _attempt(alike)


def go_on(path: Path) -> None:
    """Resume a run for some iterations; it is then stopped, so that nothing is plotted."""
    resume(path, ITERATIONS + FURTHER + 1, stop=StopAfter(FURTHER))


def _attempt(alike: Callable[[], bool]) -> tuple[str, str]:
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            return ("same", "") if alike() else ("WRONG NUMBERS", "")
    except (InputError, RunError) as error:
        return ("refused" if "\n" not in str(error) else "MANY LINES"), str(error)
    except Exception:
        return "TRACEBACK", traceback.format_exc()


def meaning(path: Path) -> Any:
    """Return what a file says, however it is written; its bytes where it cannot be read.

    Entries of config.json that a user may change are left out.
    """
    data = path.read_bytes()
    with contextlib.suppress(Exception):
        if path.name == "config.json":
            content = json.loads(data)
            return {**content, "run": {key: value for key, value in content["run"].items() if key not in FREE}}
        if path.suffix == ".json":
            return json.loads(data)
        if path.suffix == ".csv":
            return data.count(b"\n"), read_metrics(path)
        if path.suffix == ".png":
            with Image.open(path) as image:
                return np.asarray(image.convert("RGB")).tobytes()
    return data


def mutate(data: bytes, draw: random.Random) -> bytes:
    """Return a damaged copy: a flipped bit, a zeroed block, a cut, a repeated block."""
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


def change_digit(data: bytes, draw: random.Random) -> bytes:
    """Return a copy with one digit changed to another, if there is one."""
    places = [match.start() for match in re.finditer(rb"\d", data)]
    if not places:
        return data
    place = draw.choice(places)
    other = draw.choice([digit for digit in b"0123456789" if digit != data[place]])
    return data[:place] + bytes([other]) + data[place + 1 :]


def change_content(data: bytes, draw: random.Random) -> bytes:
    """Return a checkpoint with wrong contents and the SHA-256 that fits them."""
    content = decode(data)
    tensors = draw.choice(containers(content["learner"]))
    key = draw.choice(sorted(tensors))
    kind = draw.randrange(6)
    if kind == 0:
        tensors[key] = tensors[key].flatten()[:, None]
    elif kind == 1:
        tensors[key] = tensors[key].to(torch.float64 if tensors[key].dtype == torch.float32 else torch.float32)
    elif kind == 2:
        tensors[key] = tensors[key] * float("nan")
    elif kind == 3:
        del tensors[key]
    elif kind == 4:
        content["env_steps"] = -1
    else:
        content["config_hash"] = "0" * 64
    return encode(content)


def containers(content: Any) -> list[dict[Any, torch.Tensor]]:
    """Return the mappings in a content that hold nothing but tensors of several numbers."""
    if not isinstance(content, dict):
        return []
    found = [inner for value in content.values() for inner in containers(value)]
    if content and all(isinstance(value, torch.Tensor) and value.numel() > 1 for value in content.values()):
        found.append(content)
    return found


def edits(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Return copies of a config.json, each with one entry changed, left out or misspelt."""
    found = []
    for path, value in places(config):
        for new in (*others(value), ...):
            found.append(with_entry(config, path, new))
        found.append(with_entry(with_entry(config, path, ...), (*path[:-1], f"{path[-1]}s"), value))
    return found


def places(content: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    """Return every value in a content that is not a mapping, with its path."""
    if not isinstance(content, dict):
        return [(path, content)]
    return [pair for key, value in content.items() for pair in places(value, (*path, key))]


def others(value: Any) -> tuple[Any, ...]:
    """Return other values for an entry: of its type, and of other types."""
    if isinstance(value, bool):
        return (not value, "yes")
    if isinstance(value, int | float):
        return (value + 1, value * 1.5, -1, 10**30, str(value), None)
    if isinstance(value, str):
        return (f"{value}x", "", 3, None)
    if isinstance(value, list):
        return ([*value, 1], 1, "1", None)
    return (0, 1, "x", [])


def with_entry(content: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Return a content with another value at a path, or without it for ``...``."""
    if len(path) == 1:
        rest = {key: old for key, old in content.items() if value is not ... or key != path[0]}
        return rest if value is ... else {**rest, path[0]: value}
    return {**content, path[0]: with_entry(content.get(path[0], {}), path[1:], value)}
