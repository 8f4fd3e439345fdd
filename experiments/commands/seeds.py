"""Several seeds of one training run, side by side: a process for each, as many at once as there are devices."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from metarl.errors import InputError, RunError, RunStopped
from metarl.experiments.commands.launch import parse_devices
from metarl.experiments.commands.parsing import parse_seeds, take_option
from metarl.run.config import TrainConfig
from metarl.run.directory import RunDirectory
from metarl.training.loop_tools import StopRequest

SEEDS = "--seeds"
LOG = "training.log"
PAUSE_SECONDS = 0.5
STOPPED = (128 + signal.SIGUSR1, -signal.SIGUSR1)  # exit codes of a job that was asked to stop


@dataclass
class Job:
    """A process to be run on one device.

    Attributes:
        name: name in the progress line.
        command: returns its command line, given the device.
        log: file of its output.
        progress: returns the done and the total number of steps.
        device: device it runs on.
        process: its process, once started.
    """

    name: str
    command: Callable[[str], Sequence[str]]
    log: Path
    progress: Callable[[], tuple[int, int]]
    device: str = ""
    process: subprocess.Popen[bytes] | None = None

    def start(self, device: str, at_once: int) -> None:
        """Run on a device, sharing the cores with ``at_once - 1`` others."""
        self.device = device
        threads = str(max(1, (os.cpu_count() or 1) // at_once))
        environment = {"OMP_NUM_THREADS": threads, **os.environ, "LOCAL_WORLD_SIZE": str(at_once)}
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "w") as log:
            # In its own session, so that a signal from the terminal does not reach it in addition to ``stop``.
            self.process = subprocess.Popen(
                self.command(device), stdout=log, stderr=log, env=environment, start_new_session=True
            )

    @property
    def code(self) -> int | None:
        """Its exit code, once it has ended."""
        return None if self.process is None else self.process.poll()

    def stop(self) -> None:
        """Make it end after the present iteration."""
        assert self.process is not None
        self.process.send_signal(signal.SIGUSR1)

    def last_line(self) -> str:
        """Return the last line that it printed."""
        lines = self.log.read_text().strip().splitlines()
        return lines[-1] if lines else f"exit code {self.code}"


def several_seeds(words: Sequence[str], config_of: Callable[[Sequence[str]], TrainConfig]) -> bool:
    """Train with each of the seeds that the words name, side by side; return whether they name several.

    ``--out`` is then the folder of the runs.

    Args:
        words: of ``metarl train``.
        config_of: returns the training run that words name.

    Raises:
        InputError: for seeds and options that make no sense.
        RunError: after all have ended, when one has failed.
    """
    text, rest = take_option(words, SEEDS)
    if text is None:
        return False
    if any(word == SEEDS and third.isdecimal() for word, third in zip(words, words[2:], strict=False)):
        raise InputError(f"{SEEDS} takes integers separated by commas, as in {SEEDS} 1,2,3")
    seeds = parse_seeds(text)
    given = {word.split("=")[0] for word in words}
    if misplaced := sorted(given & {"--seed", "--resume", "--device", "--max-restarts"}):
        raise InputError(f"{SEEDS} starts a run for each seed on the --devices; leave out {misplaced[0]}")
    devices, rest = take_option(rest, "--devices")
    out, rest = take_option(rest, "--out")
    jobs = [_training(seed, rest, out, config_of) for seed in seeds]
    run_jobs(jobs, parse_devices(devices or "cpu"))
    return True


def _training(
    seed: int, words: Sequence[str], out: str | None, config_of: Callable[[Sequence[str]], TrainConfig]
) -> Job:
    """Return the training run with one seed."""
    out = out or config_of(words).run.out  # of a file of settings
    place = [] if out is None else ["--out", str(Path(out) / f"seed{seed}")]
    own = [*words, "--seed", str(seed), *place]
    config = config_of(own)
    directory = RunDirectory(config.run.out or f"runs/{config.learner_name}-{config.family_name}-seed{seed}")

    def command(device: str) -> list[str]:
        return [sys.executable, "-m", "metarl", "train", *own, "--device", device]

    def progress() -> tuple[int, int]:
        try:
            return len(directory.read_metrics()), config.run.iterations
        except InputError:  # the run itself says what is wrong there
            return 0, config.run.iterations

    log = directory.path.parent / f"{directory.path.name}-{LOG}"
    return Job(f"seed {seed}", command, log, progress)


def run_jobs(jobs: Sequence[Job], devices: Sequence[str], again: str = "with --resume-if-there") -> None:
    """Run each job in a process of its own, one on a device at a time, and show a progress line for each.

    Args:
        jobs: what is run.
        devices: one for each job at a time.
        again: how to run the command when it continues after a stop.

    Raises:
        RunError: after all have ended, when one has failed.
        RunStopped: when a signal has stopped them.
    """
    with StopRequest() as stop, _lines(jobs) as show:
        try:
            _run_all(jobs, devices, stop, show)
        except BaseException:
            for job in jobs:
                if job.process is not None and job.code is None:
                    job.stop()
            raise
    if stop.signal is not None:
        raise RunStopped(f"stopped; run the same command {again} to continue", stop.signal)
    if failed := [job for job in jobs if job.code]:
        names, first = ", ".join(job.name for job in failed), failed[0]
        raise RunError(
            f"{len(failed)} of {len(jobs)} failed ({names}); {first.name}: {first.last_line()} ({first.log})"
        )


def _run_all(jobs: Sequence[Job], devices: Sequence[str], stop: StopRequest, show: Callable[[], None]) -> None:
    """Run each job, one on a device at a time, until all have ended; after a stop request none is started."""
    waiting, free, running = list(jobs), list(devices), list[Job]()
    notified = False
    while running or (waiting and not stop.requested):
        while waiting and free and not stop.requested:
            job = waiting.pop(0)
            job.start(free.pop(0), min(len(devices), len(jobs)))
            running.append(job)
        if stop.requested and not notified:
            notified = True
            for job in running:
                job.stop()
        time.sleep(PAUSE_SECONDS)
        show()
        free += [job.device for job in running if job.code is not None]
        running = [job for job in running if job.code is None]


@contextmanager
def _lines(jobs: Sequence[Job]) -> Iterator[Callable[[], None]]:
    """Show a line of progress for each job; where standard error is not a terminal, a line when one has ended."""
    bars = [
        tqdm(desc=job.name, position=index, disable=None, unit="it", dynamic_ncols=True)
        for index, job in enumerate(jobs)
    ]
    running = list(jobs)

    def show() -> None:
        for job, bar in zip(jobs, bars, strict=True):
            bar.n, bar.total = job.progress()
            bar.refresh()
            if job in running and job.code is not None:
                running.remove(job)
                how = "done" if job.code == 0 else "stopped" if job.code in STOPPED else "failed"
                bar.set_postfix_str(how)
                if bar.disable:
                    print(f"{job.name}: {how}, {job.log}", file=sys.stderr)

    try:
        yield show
    finally:
        for bar in bars:
            bar.close()
