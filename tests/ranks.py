"""Ranks of torch.distributed over gloo: real processes, started once, that do one piece of work after the other."""

from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import metarl.training.loop
from metarl.devices.distributed import DistributedProcesses
from tests.forked import CONTEXT, start_server


class Ranks:
    """Up to ``most`` ranks; work is done by the first few of them, which make up a group.

    Args:
        most: how many there are.
        folder: where they meet.
    """

    def __init__(self, most: int, folder: Path) -> None:
        start_server()
        pairs = [CONTEXT.Pipe() for _ in range(most)]
        self._ends = [ours for ours, _ in pairs]
        self._processes = [
            CONTEXT.Process(target=_serve, args=(rank, most, str(folder / "store"), theirs), daemon=True)
            for rank, (_, theirs) in enumerate(pairs)
        ]
        for process in self._processes:
            process.start()

    def do(self, size: int, work: Callable[..., Any], *given: Any) -> list[Any]:
        """Let ``size`` ranks call ``work(processes, *given)``; return what each returned, or raise the first error."""
        for end in self._ends[:size]:
            end.send((size, work, given))
        found = [end.recv() for end in self._ends[:size]]
        for _, error in found:
            if error is not None:
                raise error
        return [value for value, _ in found]

    def close(self) -> None:
        """End the ranks."""
        for end in self._ends:
            end.send(None)
        for process in self._processes:
            process.join(20)


def _serve(rank: int, most: int, store: str, end: Connection) -> None:
    torch.set_num_threads(1)
    metarl.training.loop.draw_adaptation_curve = lambda *given: None  # pictures take most of the time
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=most)
    groups = {size: dist.new_group(range(size)) for size in range(1, most + 1)}
    while (job := end.recv()) is not None:
        size, work, given = job
        try:
            end.send((work(DistributedProcesses(groups[size]), *given), None))
        except Exception as error:
            end.send((None, error))
