"""What the processes that train one learner together agree on; every other module sees them through this object only.

Tasks are sharded over the processes and parameters are replicated. Each process computes with its own tasks, and what
it shares are means: of gradients, curvature products, statistics and metrics. As every process receives the same bits
from a mean, all take the same steps and the same branches, and their parameters stay equal.

Processes may hold unequally many tasks or steps. Means are pooled nevertheless, never means of means, in one of two
ways:

- the sum over a process's own values, divided by the *mean* count (``mean(valid.sum())``): the mean over the processes
  of these quotients is the pooled mean, also where a process holds nothing;
- the process's own mean, times ``weight(count)``.

Both are differentiable functions of a process's own values, so ``mean`` of their gradients is the gradient of the
pooled mean. With one process they are the plain mean, bit for bit.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from metarl.errors import MetarlError, RunError
from metarl.noise import BatchGenerator, source

Value = TypeVar("Value")


@dataclass(frozen=True)
class Shard:
    """The rows of a whole batch that one process holds.

    Attributes:
        start: the first of them.
        stop: the first one after them.
        total: rows of the whole batch.
    """

    start: int
    stop: int
    total: int

    @property
    def rows(self) -> slice:
        """The rows, to index with."""
        return slice(self.start, self.stop)

    def generator(self, whole: torch.Generator, worlds: int = 1) -> torch.Generator:
        """Return what gives this process its part of the random numbers of the whole batch.

        Args:
            whole: the same on every process.
            worlds: of each row, each with numbers of its own.
        """
        whole = source(whole)
        if self.stop - self.start == self.total:
            return whole
        rows = torch.arange(self.start * worlds, self.stop * worlds, device=whole.device)
        return BatchGenerator(whole, rows, self.total * worlds)


class Processes(ABC):
    """The processes that train one learner, as one of them sees them.

    All processes must call the same methods in the same order. Tensors may live on any device and come back on it,
    without a graph.

    Attributes:
        rank: number of this process, from 0 on.
        size: how many there are.
    """

    rank: int
    size: int

    @abstractmethod
    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of the processes' tensors, of one shape; each receives the same bits.

        Whole numbers and truth values give a mean in torch's default type.
        """

    @abstractmethod
    def device(self, name: str) -> str:
        """Return the torch device that this process works on where the run is on that of this name."""

    @abstractmethod
    def all(self, flag: bool) -> bool:
        """Return whether the flag is set on every process."""

    @abstractmethod
    def gather(self, value: Value) -> list[Value]:
        """Return what each process gives, by rank; anything that can be pickled, tensors on the CPU."""

    @abstractmethod
    def from_first(self, work: Callable[[], Value]) -> Value:
        """Return on every process what ``work`` returns on the first one, which alone calls it.

        So one process reads and writes for all.

        Raises:
            Exception: on every process, what ``work`` raised on the first.
        """

    def together(self, work: Callable[[], Value]) -> Value:
        """Return what ``work``, in which processes exchange nothing, returns on this one, unless it failed on another.

        So that no process waits for one that has failed.

        Raises:
            MetarlError: on every process, what it raised on the first on which it did.
        """
        try:
            done, failure = [work()], None
        except MetarlError as error:
            done, failure = [], error
        if self.all(failure is None):
            return done[0]
        raise next(error for error in self.gather(failure) if error is not None)

    def check_equal(self, state: Callable[[], Any]) -> None:
        """Make sure that a nested state of tensors, numbers and strings has the same bits on every process.

        Raises:
            RunError: on every process, when it has not.
        """
        digests = self.gather(digest(state()))
        if len(set(digests)) > 1:
            other = next(rank for rank, found in enumerate(digests) if found != digests[0])
            raise RunError(
                f"process {other} has come to other parameters than process 0: they no longer train one learner; go on "
                "from the last checkpoint, and if it happens again with fewer processes"
            )

    def means(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Return the mean of each of several tensors of one type, in one exchange."""
        if not values:
            return []
        joined = self.mean(torch.cat([value.reshape(-1) for value in values]))
        pieces = torch.split(joined, [value.numel() for value in values])
        return [piece.view_as(value) for piece, value in zip(pieces, values, strict=True)]

    def counts(self, count: int) -> list[int]:
        """Return the count that each process gives, by rank."""
        own = torch.zeros(self.size, dtype=torch.float64)
        own[self.rank] = count
        return [round(number) for number in (self.size * self.mean(own)).tolist()]

    def weight(self, count: int) -> float:
        """Return the weight of the mean of this process's own ``count`` values: their number over the mean number.

        The mean over processes of weight times mean is the mean of all values.
        """
        return count * self.size / sum(self.counts(count))

    def moments(self, values: Tensor) -> tuple[Tensor, Tensor, int]:
        """Return mean, variance (without Bessel's correction) and number of all processes' rows ``[n, ...]``.

        The processes' moments are joined as in Chan, Golub and LeVeque (1979); each must have at least one row.
        """
        counts = self.counts(len(values))
        weight = counts[self.rank] * self.size / sum(counts)
        own = values.mean(0)
        mean = self.mean(weight * own)
        # Squares about the common mean: those about the process's own mean, and how far that is from the common one.
        squares = values.var(0, correction=0) + (own - mean).square()
        return mean, self.mean(weight * squares), sum(counts)

    def shard(self, total: int) -> Shard:
        """Return which of ``total`` rows this process takes when they are distributed as evenly as possible."""
        return Shard(self.rank * total // self.size, (self.rank + 1) * total // self.size, total)

    def rows(self, count: int) -> tuple[slice, int]:
        """Return which of all processes' rows are the ``count`` of this one, and how many there are in all.

        Rows are numbered in the order of the ranks, so that a draw of numbers is the same on any number of processes.
        """
        counts = self.counts(count)
        first = sum(counts[: self.rank])
        return slice(first, first + count), sum(counts)

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace each parameter's gradient by the processes' mean, which must exist on all or on none."""
        reached = [parameter for parameter in parameters if parameter.grad is not None]
        slopes = [parameter.grad for parameter in reached if parameter.grad is not None]
        for parameter, slope in zip(reached, self.means(slopes), strict=True):
            parameter.grad = slope


class OneProcess(Processes):
    """A single process: every mean is its own tensor, untouched."""

    rank = 0
    size = 1

    def mean(self, values: Tensor) -> Tensor:
        """Return the tensor itself."""
        return values

    def means(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Return the tensors themselves."""
        return list(values)

    def counts(self, count: int) -> list[int]:
        """Return the count."""
        return [count]

    def device(self, name: str) -> str:
        """Return the name."""
        return name

    def all(self, flag: bool) -> bool:
        """Return the flag."""
        return flag

    def gather(self, value: Value) -> list[Value]:
        """Return the value."""
        return [value]

    def from_first(self, work: Callable[[], Value]) -> Value:
        """Return what ``work`` returns."""
        return work()

    def together(self, work: Callable[[], Value]) -> Value:
        """Return what ``work`` returns."""
        return work()

    def check_equal(self, state: Callable[[], Any]) -> None:
        """Do nothing: there is no other state."""


ONE_PROCESS = OneProcess()


def digest(state: Any) -> str:
    """Return the SHA-256 of a nested state: of its structure, and of the bits of every tensor."""
    found = hashlib.sha256()
    for piece in _pieces(state):
        found.update(piece)
    return found.hexdigest()


def _pieces(state: Any) -> Iterable[bytes]:
    if isinstance(state, Tensor):
        values = state.detach().cpu().contiguous()
        yield f"{values.dtype} {list(values.shape)}".encode()
        yield values.view(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(state, Mapping):
        for name in sorted(state, key=str):
            yield str(name).encode()
            yield from _pieces(state[name])
    elif isinstance(state, list | tuple):
        for value in state:
            yield from _pieces(value)
    else:
        yield repr(state).encode()
