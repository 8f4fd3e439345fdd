"""Python processes that start at once: forked from a server that has imported metarl, one in each session of tests.

They are processes like any other, with a number, signals, limits and an end of their own, and with none of what the
tests have imported or patched. Where the start of an interpreter is tested, ``tests.runs.run_python`` starts one.
"""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import chdir
from importlib import import_module
from multiprocessing import forkserver
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

# What the server imports for all.
import metarl.agents
import metarl.envs
import metarl.experiments.commands.train
import metarl.training.train  # noqa: F401
from metarl.experiments.commands.main import main

ROOT = Path(__file__).parents[1]
CONTEXT = multiprocessing.get_context("forkserver")
# The last ones are imported by a training run itself, which would take most of its time.
LATER = ["scipy.special", "tyro", "pydantic.dataclasses", "matplotlib.figure", "matplotlib.backends.backend_agg"]
CONTEXT.set_forkserver_preload([__name__, "pytest", *LATER])
# Where the server finds modules, but the folder that it runs in: as the installed command, and not as the tests do.
PATH = [place for place in sys.path if place]


def start_server() -> None:
    """Start the server where it finds these tests, if it does not run yet."""
    with chdir(ROOT):
        forkserver.ensure_running()


class Child:
    """A process that calls ``work(*given)``; what it returns is its exit code.

    Args:
        work: a function of a module, which the process imports.
        given: what can be pickled.
        folder: where the process runs.

    Attributes:
        pid: its number.
    """

    def __init__(self, work: Callable[..., int | None], *given: Any, folder: Path) -> None:
        start_server()
        self._shown = TemporaryDirectory()
        places = [Path(self._shown.name, name) for name in ("stdout", "stderr")]
        for place in places:
            place.touch()
        name = f"{work.__module__}:{work.__qualname__}"
        self._process = CONTEXT.Process(target=_run, args=(name, given, folder, places, dict(os.environ)))
        self._process.start()
        self._places = places
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.is_alive()

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return self._places[0].read_text()

    def ended(self, timeout: float = 300) -> "subprocess.CompletedProcess[str]":
        """Wait for its end; return its exit code, negative for a signal, and what it printed."""
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            self._process.kill()
            raise TimeoutError(f"still running after {timeout} s: {[place.read_text() for place in self._places]}")
        shown = [place.read_text() for place in self._places]
        self._shown.cleanup()
        return subprocess.CompletedProcess([], code, *shown)


def train_and_show_packages(words: list[str]) -> None:
    """Train as the command line does, and print the packages that are loaded then."""
    assert main(words) == 0
    print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))


def _run(name: str, given: tuple[Any, ...], folder: Path, places: list[Path], environment: dict[str, str]) -> None:
    sys.path[:] = PATH
    multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)  # not the server's
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, place in enumerate(places, start=1):
        stream = os.open(place, os.O_WRONLY | os.O_APPEND)
        os.dup2(stream, number)
        os.close(stream)
    torch.set_num_threads(1)
    module, _, function = name.partition(":")
    sys.exit(getattr(import_module(module), function)(*given))
