"""Processes that communicate through ``torch.distributed``: gloo for tensors on the CPU, NCCL for those on CUDA.

A mean is one plain all-reduce. torch's wrappers for data parallelism cannot be used: a meta-gradient is a gradient
through a gradient, which DistributedDataParallel refuses.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from metarl.devices.processes import ONE_PROCESS, Processes
from metarl.devices.runtime import set_torch_threads
from metarl.errors import MetarlError

Value = TypeVar("Value")

# How long a process waits for another. Only a machine that went silent is detected by this timeout: a process that ends
# closes its connections.
PATIENCE = timedelta(minutes=30)


class ProcessLost(MetarlError):
    """Another process has ended, so this one cannot continue."""


class DistributedProcesses(Processes):
    """The processes of a ``torch.distributed`` group.

    Every process receives the same bits from a mean: each element is summed in one place and sent to all.

    Attributes:
        exchanges: number of exchanges so far.
        bytes_given: bytes that this process sent in them.
        seconds: time spent in exchanges, including waiting for other processes.

    Args:
        group: by default all initialised processes.
        devices: of the processes on this machine, by local rank; by default, in a run on CUDA, each process uses the
            CUDA device of its local rank.
    """

    def __init__(self, group: dist.ProcessGroup | None = None, devices: Sequence[str] = ()) -> None:
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self.exchanges, self.bytes_given, self.seconds = 0, 0, 0.0
        self._group, self._devices = group, devices

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of the processes' tensors."""
        given = values.detach()
        given = given.clone() if given.is_floating_point() else given.to(torch.get_default_dtype())
        return self._reduced(given.contiguous(), dist.ReduceOp.SUM).div_(self.size)

    def device(self, name: str) -> str:
        """Return the device of this process."""
        rank = int(os.environ.get("LOCAL_RANK", "0"))
        if self._devices:
            return self._devices[rank]
        return f"cuda:{rank}" if name.partition(":")[0] == "cuda" else name

    def all(self, flag: bool) -> bool:
        """Return whether the flag is set on every process."""
        return bool(self._reduced(torch.tensor(int(flag)), dist.ReduceOp.MIN))

    def gather(self, value: Value) -> list[Value]:
        """Return the value of each process, by rank."""
        found: list[Value] = [value] * self.size
        with self._exchange(0):
            dist.all_gather_object(found, value, self._group)
        return found

    def from_first(self, work: Callable[[], Value]) -> Value:
        """Return the result of ``work`` on the first process."""
        outcome: list[tuple[Value | None, Exception | None]] = [(None, None)]
        if self.rank == 0:
            try:
                outcome = [(work(), None)]
            except Exception as error:  # it is raised below, and on every other process
                outcome = [(None, error)]
        with self._exchange(0):
            dist.broadcast_object_list(outcome, group_src=0, group=self._group)
        value, failure = outcome[0]
        if failure is not None:
            raise failure
        return value  # type: ignore[return-value]

    def _reduced(self, values: Tensor, how: dist.ReduceOp.RedOpType) -> Tensor:
        with self._exchange(values.nbytes):
            dist.all_reduce(values, how, self._group)
        return values

    @contextmanager
    def _exchange(self, size: int) -> Iterator[None]:
        """Count an exchange of ``size`` bytes.

        Raises:
            ProcessLost: when another process has ended.
        """
        self.exchanges += 1
        self.bytes_given += size
        began = time.perf_counter()
        try:
            yield
        except RuntimeError as error:
            reason = str(error).splitlines()[0][:200]
            raise ProcessLost(f"process {self.rank} lost another process and ends ({reason})") from error
        self.seconds += time.perf_counter() - began


@contextmanager
def processes_here(devices: Sequence[str] = ()) -> Iterator[Processes]:
    """Join the processes that a launcher such as torchrun started; yield ``ONE_PROCESS`` if there are none.

    torch then uses only this process's share of the machine's cores.

    Args:
        devices: see ``DistributedProcesses``.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ONE_PROCESS
        return
    set_torch_threads(torch.get_num_threads())
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    # A launcher that restarts processes keeps its store. With the same keys, new processes would read the addresses of
    # the ones that died, and wait for them for ever.
    store, rank, size = next(rendezvous("env://"))
    own = PrefixStore(f"metarl {_starts()}", store)
    dist.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=PATIENCE)
    try:
        yield DistributedProcesses(devices=devices)
    finally:
        dist.destroy_process_group()


def restarted() -> bool:
    """Return whether a launcher has restarted the processes after one of them was killed."""
    return _starts() > 0


def _starts() -> int:
    """Return how often a launcher has restarted the processes."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
