"""The processes of one command, on the devices that ``--devices`` names: started, watched, and started again.

The processes are started and watched by torch's own elastic launcher, in this process. Stop signals reach them
through it, so that each gets them once. What torchrun starts is several processes as well, and needs no ``--devices``.
"""

import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from metarl.devices.choice import resolve_device
from metarl.devices.distributed import ProcessLost, processes_here
from metarl.devices.processes import Processes
from metarl.errors import InputError, MetarlError, RunError, RunStopped
from metarl.experiments.commands.parsing import take_option
from metarl.training.loop_tools import StopRequest

# What the launcher sends to its processes to stop them; SIGINT reaches them when the launcher is dead.
STOP_SIGNALS = (signal.SIGUSR1, signal.SIGINT)


@dataclass(frozen=True)
class Outcome:
    """How a process ended: its exit code, its message, and whether it ended because another one did."""

    exit_code: int = 0
    message: str = ""
    lost: bool = False


class LaunchError(MetarlError):
    """What ended the processes; with the exit code of the one that knows."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.message)
        self.exit_code = outcome.exit_code


def parse_devices(text: str) -> list[str]:
    """Return the devices that ``--devices`` names, one for each process.

    Args:
        text: such as ``cuda:0,cuda:1``, ``cpu*4``, or ``all``: every CUDA device, or without one a process per core.

    Raises:
        InputError: when there is no such device, or no process.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if text == "all":
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())] or ["cpu"] * cores
    devices: list[str] = []
    for item in text.split(","):
        name, times, count = item.strip().partition("*")
        if times and not (count.isdecimal() and int(count) > 0):
            raise InputError(
                f"--devices {text}: {item!r} needs a positive number of processes after the *; for example {name}*4"
            )
        resolve_device(name)
        devices += [name] * (int(count) if times else 1)
    return devices


def launched(command: str, words: Sequence[str]) -> bool:
    """Run a command on the devices that its words name; return whether they name any.

    Args:
        command: its name; its module has ``run_on(words, processes, stop)``.
        words: with ``--devices`` and ``--max-restarts`` among them, or without.

    Raises:
        InputError: when the devices make no sense.
        LaunchError: when a process ended with an error, with the message and exit code of the one that caused it.
        RunError: when a process was killed, or failed unexpectedly.
    """
    text, rest = take_option(words, "--devices")
    restarts, rest = take_option(rest, "--max-restarts")
    if text is None:
        if restarts is not None:
            raise InputError("--max-restarts restarts the processes of --devices: also give --devices, such as cpu*4")
        return False
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("a launcher such as torchrun has started several processes already; leave out --devices")
    if restarts is not None and not restarts.isdecimal():
        raise InputError(f"--max-restarts must be a number of restarts, not {restarts!r}")
    devices = parse_devices(text)
    kinds = {torch.device(name).type for name in devices}
    if len(kinds) > 1 or ("cuda" in kinds and len(set(devices)) < len(devices)):
        raise InputError(f"--devices {text}: the processes of one run must use different CUDA devices, or the CPU")
    alone = ["--device", devices[0]] if len(devices) == 1 else []
    launch(command, [*rest, *alone], devices, int(restarts or 0))
    return True


def run_on_devices(
    command: str, words: Sequence[str], run_on: Callable[[Sequence[str], Processes, StopRequest], None]
) -> None:
    """Run a command in the processes that ``--devices`` names, or in this one, alone or with those of a launcher.

    Args:
        command: its name.
        words: its options.
        run_on: runs it as one of several processes.
    """
    if not launched(command, words):
        with processes_here() as processes:
            run_on(words, processes, StopRequest())


def launch(command: str, words: Sequence[str], devices: Sequence[str], restarts: int) -> None:
    """Run a command on one process for each device; all are started again when one of them is killed.

    Raises:
        LaunchError: when a process ended with an error, with the message and exit code of the one that caused it.
        RunError: when a process was killed, or failed unexpectedly, more often than ``restarts``.
        RunStopped: when a stop signal came while the processes were starting or ending.
    """
    # The messages of torch and Python about a killed process are replaced by one line below.
    for name in ("torch.distributed", "torch.multiprocessing"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    sys.warnoptions.append("ignore:resource_tracker")
    with tempfile.TemporaryDirectory() as folder, _stop_request(marker := Path(folder, "stopped")) as stop:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=len(devices),
            run_id=f"metarl-{os.getpid()}-{time.time_ns()}",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=restarts,
            signals_to_handle="SIGQUIT",  # the others are forwarded
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            found = elastic_launch(config, work)(command, list(words), list(devices), marker)
        except ChildFailedError as error:
            if stop.signal is not None:
                raise RunStopped(_advice_after_stop(command, words), stop.signal) from None
            raise RunError(_describe(error, len(devices), command)) from None
    outcomes = [found[rank] for rank in sorted(found)]
    # A process that lost another one does not know why; the other one does.
    outcome = next((each for each in outcomes if each.exit_code and not each.lost), outcomes[0])
    if outcome.exit_code:
        code = 128 + stop.signal if stop.signal and outcome.exit_code > 128 else outcome.exit_code
        raise LaunchError(Outcome(code, outcome.message))


def work(command: str, words: list[str], devices: list[str], marker: Path) -> Outcome:
    """Be one of the processes of a command; return how it ended.

    Args:
        command: its name.
        words: its options.
        devices: one for each process.
        marker: a file that exists when the command is to stop.
    """
    if marker.exists():  # the signal ended a process that was still starting, which made the launcher start them again
        return Outcome(128 + signal.SIGUSR1, _advice_after_stop(command, words))
    os.setpgrp()  # signals of the terminal reach the launcher alone, which forwards them
    parent = os.getppid()
    module = import_module(f"metarl.experiments.commands.{command}")
    try:
        with processes_here(devices) as processes:
            module.run_on(words, processes, StopRequest(STOP_SIGNALS))
        outcome = Outcome()
    except MetarlError as error:
        outcome = Outcome(error.exit_code, str(error), isinstance(error, ProcessLost))
    if os.getppid() != parent:  # the launcher is dead, and nothing waits for the outcome
        os._exit(outcome.exit_code)
    return outcome


def _stop_request(marker: Path) -> StopRequest:
    """Return a stop request that is sent to the processes, and marked in a file for those that start later."""

    def forward() -> None:
        marker.touch()
        for child in multiprocessing.active_children():
            if child.pid is not None:
                os.kill(child.pid, signal.SIGUSR1)

    return StopRequest(then=forward)


def _advice_after_stop(command: str, words: Sequence[str]) -> str:
    again = " with --resume-if-there" if command == "train" and "--resume" not in words else ""
    return f"stopped; run the same command again{again} to continue"


def _describe(error: ChildFailedError, count: int, command: str) -> str:
    rank, failure = error.get_first_failure()
    code = failure.exitcode
    how = f"was killed by {failure.signal_name()}" if code < 0 else f"failed with exit code {code}"
    resume = "resume from the last checkpoint with metarl train --resume RUN --devices ..."
    return (
        f"process {rank} of {count} (pid {failure.pid}) {how}, so the others were stopped; "
        f"{resume if command == 'train' else 'run the command again'}, or restart automatically with --max-restarts 3"
    )
