"""Processes that are threads of this one, each with its own shard of the tasks."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from threading import Barrier
from typing import Any, TypeVar

import torch
from torch import Tensor

from metarl.devices.processes import Processes
from metarl.numerics.distributions import Distribution
from metarl.rollouts.rollout import Rollout

Result = TypeVar("Result")


class Exchange:
    """Where the threads of one group meet.

    Attributes:
        calls: how many means and agreements there were.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.calls = 0
        self._barrier = Barrier(size, timeout=20)
        self._given: list[Any] = [None] * size

    def gather(self, rank: int, value: Any) -> list[Any]:
        """Wait for all, and return what each has given."""
        self._given[rank] = value
        self._barrier.wait()
        given = list(self._given)
        self._barrier.wait()
        if rank == 0:
            self.calls += 1
        return given

    def abort(self) -> None:
        """Let the others fail as well instead of waiting."""
        self._barrier.abort()


class Threads(Processes):
    """One thread's view of the group."""

    def __init__(self, rank: int, exchange: Exchange) -> None:
        self.rank, self.size, self._exchange = rank, exchange.size, exchange

    def mean(self, values: Tensor) -> Tensor:
        assert not values.requires_grad
        given = self._exchange.gather(self.rank, values)
        assert len({(each.shape, each.dtype) for each in given}) == 1, "the processes are at different places"
        joined = torch.stack(given)
        return (joined if joined.is_floating_point() else joined.to(torch.get_default_dtype())).mean(0)

    def device(self, name: str) -> str:
        return name

    def all(self, flag: bool) -> bool:
        return all(self._exchange.gather(self.rank, flag))

    def gather(self, value: Result) -> list[Result]:
        return self._exchange.gather(self.rank, value)

    def from_first(self, work: Callable[[], Result]) -> Result:
        return self._exchange.gather(self.rank, work() if self.rank == 0 else None)[0]


def in_threads(size: int, work: Callable[[Processes], Result]) -> list[Result]:
    """Run ``work`` in as many threads, and return what each returned, by rank; the first error of its own is raised."""
    exchange = Exchange(size)

    def run(rank: int) -> Result:
        try:
            return work(Threads(rank, exchange))
        except BaseException:
            exchange.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        waiting = [pool.submit(run, rank) for rank in range(size)]
    errors = [error for future in waiting if (error := future.exception()) is not None]
    for error in sorted(errors, key=lambda each: type(each).__name__ == "BrokenBarrierError"):
        raise error
    return [future.result() for future in waiting]


def of_tasks(rollout: Rollout, tasks: slice) -> Rollout:
    """Return the rollout of some of its tasks, cut to the length of their longest episode, as a process collects it."""
    steps = int(rollout.valid[tasks].any(0).any(0).sum())

    def cut(tensor: Tensor) -> Tensor:
        return tensor[tasks, :, :steps]

    fields = {}
    for name, value in vars(rollout).items():
        if isinstance(value, Distribution):
            fields[name] = value.map(cut)
        elif name in ("tasks", "final_observations"):
            fields[name] = value[tasks]
        elif value is not None:
            fields[name] = cut(value)
    return Rollout(**fields)


def shards(rollouts: Sequence[Rollout], bounds: Sequence[int]) -> list[list[Rollout]]:
    """Return the rollouts of the tasks between each two bounds."""
    return [[of_tasks(rollout, slice(start, end)) for rollout in rollouts] for start, end in pairwise(bounds)]
