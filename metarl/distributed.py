"""The processes of ``torch.distributed``: gloo for tensors on the CPU, NCCL for those on CUDA.

A plain all-reduce of the values is all that a mean needs. The wrappers of torch for data parallelism do not serve here:
a meta-gradient is a gradient through a gradient, which DistributedDataParallel refuses.
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

from metarl.errors import MetarlError
from metarl.processes import ONE_PROCESS, Processes
from metarl.runtime import set_torch_threads

Value = TypeVar("Value")

# For so long a process waits for another one. Only a machine that fell silent is noticed by it: a process that ends
# closes its connections.
PATIENCE = timedelta(minutes=30)


class ProcessLost(MetarlError):
    """Another process has ended, so that this one cannot go on."""


class DistributedProcesses(Processes):
    """The processes of a group of torch's, of which this is one.

    Every process receives the same bits from a mean: each element is summed up in one place, and sent to all.

    Attributes:
        exchanges: how many exchanges there were.
        bytes_given: how many bytes this process gave to means and agreements.
        seconds: how long it took part in exchanges, and waited for the others to.

    Args:
        group: by default all processes that were initialised.
        devices: of the processes on this machine, by their local rank; by default each has the CUDA device of its local
            rank, if the run is on CUDA.
    """

    def __init__(self, group: dist.ProcessGroup | None = None, devices: Sequence[str] = ()) -> None:
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self.exchanges, self.bytes_given, self.seconds = 0, 0, 0.0
        self._group, self._devices = group, devices

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of the processes' tensors, of one shape."""
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
        """Return what each process gives, by rank."""
        found: list[Value] = [value] * self.size
        with self._exchange(0):
            dist.all_gather_object(found, value, self._group)
        return found

    def from_first(self, work: Callable[[], Value]) -> Value:
        """Return what ``work`` returns on the first process."""
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
        """Count an exchange of so many bytes.

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
            raise ProcessLost(f"process {self.rank} has lost another one, and ends ({reason})") from error
        self.seconds += time.perf_counter() - began


@contextmanager
def processes_here(devices: Sequence[str] = ()) -> Iterator[Processes]:
    """Join the processes that a launcher such as torchrun has started, of which this is one; or stay alone.

    torch then uses no more than this process's share of the machine's cores.

    Args:
        devices: see ``DistributedProcesses``.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ONE_PROCESS
        return
    set_torch_threads(torch.get_num_threads())
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    # A launcher that starts processes anew keeps its store. Under the same keys they would read where those before them
    # had been, and wait for these for ever.
    store, rank, size = next(rendezvous("env://"))
    own = PrefixStore(f"metarl {_starts()}", store)
    dist.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=PATIENCE)
    try:
        yield DistributedProcesses(devices=devices)
    finally:
        dist.destroy_process_group()


def restarted() -> bool:
    """Return whether a launcher has started the processes anew, after one of them was killed."""
    return _starts() > 0


def _starts() -> int:
    """Return how often a launcher has started the processes anew."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
