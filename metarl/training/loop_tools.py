"""Tools of the training loop: timing of its parts, handling of stop signals, and a progress bar."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Real
from types import FrameType, TracebackType
from typing import Any, Self

import torch
from tqdm import tqdm

from metarl.errors import RunError

# Set in the environment by --quiet, so that processes which are started meanwhile are quiet, too.
QUIET = "METARL_QUIET"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class Stopwatch:
    """Measures the seconds spent in named parts of an iteration, synchronising with the device at the end of each.

        with watch("sampling"):
            ...

    Args:
        device: device of the work.
        parts: names of the parts.
    """

    def __init__(self, device: torch.device, *parts: str) -> None:
        self._device, self._parts = device, parts
        self._sums: dict[str, float] = {}
        self._began = 0.0

    def start(self) -> None:
        """Start an iteration."""
        self._sums = dict.fromkeys(self._parts, 0.0)
        self._began = time.perf_counter()

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Time the work inside the ``with`` block."""
        began = time.perf_counter()
        yield
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._sums[part] += time.perf_counter() - began

    def seconds(self) -> dict[str, float]:
        """Return the seconds spent in each part, and in the whole iteration."""
        total = {"time_iteration": time.perf_counter() - self._began}
        return {f"time_{name}": value for name, value in self._sums.items()} | total


class StopRequest:
    """Turns the first stop signal into a request; a second one has its usual effect and ends the process.

    The signals are SIGINT, SIGTERM, SIGHUP (the terminal was closed) and SIGUSR1 (Slurm's warning before the time
    limit, which several senders may repeat, so that a second one has no effect). Under nohup, which ignores SIGHUP, it
    stays ignored.

    Args:
        signals: others than these.
        then: is called when a signal comes.

    Attributes:
        signal: number of the first signal received, or None.
    """

    def __init__(self, signals: Sequence[signal.Signals] = SIGNALS, then: Callable[[], None] = lambda: None) -> None:
        self.signal: int | None = None
        self._signals = signals
        self._then = then
        self._previous: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether there was a signal."""
        return self.signal is not None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in self._signals:
                if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._request)
        return self

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.signal = self.signal or number
        self._then()
        self._restore(signal.SIGUSR1)

    def _restore(self, besides: int | None = None) -> None:
        for number, handler in self._previous.items():
            if number != besides:
                signal.signal(number, handler)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()


@contextmanager
def progress(total: int, done: int, hidden: bool = False) -> Iterator[Callable[[dict[str, float]], None]]:
    """Show returns, speed and remaining time, unless hidden, quiet or standard error is not a terminal."""
    with tqdm(
        total=total, initial=done, disable=hidden or QUIET in os.environ or None, unit="it", dynamic_ncols=True
    ) as bar:

        def show(row: dict[str, float]) -> None:
            speed, before, after = (row[key] for key in ("env_steps_per_second", "return_before", "return_after"))
            bar.set_postfix_str(f"return {before:.1f} -> {after:.1f}, {speed:,.0f} env steps/s", refresh=False)
            bar.update()

        yield show


def checked_metrics(found: Any, learner: str) -> dict[str, float]:
    """Return what a learner's ``update`` returned, if it is numbers by name.

    Raises:
        RunError: if not.
    """
    if not isinstance(found, Mapping):
        raise RunError(f"{learner}.update must return metrics by name, {{}} for none, not {found!r}")
    for name, value in found.items():
        if not isinstance(value, Real):
            raise RunError(f"{learner}.update must return numbers, but {name} is {value!r}; use .item()")
    return {name: float(value) for name, value in found.items()}
