"""Communication between the processes that train one learner; all other modules use it through ``Processes``.

Tasks are sharded over the processes and parameters are replicated. Each process computes on its own tasks, and the
processes exchange means: of gradients, curvature products, statistics and metrics. Every process receives the same
bits, so all take the same steps and branches, and their parameters stay equal.

Processes may have different numbers of tasks or steps. Means are always pooled, never means of means, in one of two
ways:

- the sum over a process's own values, divided by the *mean* count (``mean(valid.sum())``): the mean of these quotients
  over the processes is the pooled mean, even if a process has no values;
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
from metarl.numerics.noise import BatchGenerator, source

Value = TypeVar("Value")


@dataclass(frozen=True)
class Shard:
    """The rows of a batch that one process holds.

    Attributes:
        start: first row.
        stop: one past the last row.
        total: number of rows of the whole batch.
    """

    start: int
    stop: int
    total: int

    @property
    def rows(self) -> slice:
        """The rows, to index with."""
        return slice(self.start, self.stop)

    def generator(self, whole: torch.Generator, worlds: int = 1) -> torch.Generator:
        """Return a generator of this process's rows of the random numbers of the whole batch.

        Args:
            whole: generator of the whole batch, the same on every process.
            worlds: number of worlds of each row; each has its own random numbers.
        """
        whole = source(whole)
        if self.stop - self.start == self.total:
            return whole
        rows = torch.arange(self.start * worlds, self.stop * worlds, device=whole.device)
        return BatchGenerator(whole, rows, self.total * worlds)


class Processes(ABC):
    """The processes that train one learner, as one of them sees them.

    All processes must call the same methods in the same order. Results are on the device of the arguments and have no
    autograd graph.

    Attributes:
        rank: index of this process.
        size: number of processes.
    """

    rank: int
    size: int

    @abstractmethod
    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of the processes' tensors, which have the same shape; each process receives the same bits.

        Means of integers and booleans have torch's default dtype.
        """

    @abstractmethod
    def device(self, name: str) -> str:
        """Return this process's torch device in a run whose ``device`` is ``name``."""

    @abstractmethod
    def all(self, flag: bool) -> bool:
        """Return whether the flag is set on every process."""

    @abstractmethod
    def gather(self, value: Value) -> list[Value]:
        """Return the value of each process, by rank. Values must be picklable, with tensors on the CPU."""

    @abstractmethod
    def from_first(self, work: Callable[[], Value]) -> Value:
        """Call ``work`` on the first process only, and return its result on every process.

        This is how one process reads and writes for all.

        Raises:
            Exception: on every process, what ``work`` raised on the first.
        """

    def together(self, work: Callable[[], Value]) -> Value:
        """Return the result of ``work`` on this process, or fail on every process if it failed on one.

        So no process waits for one that has failed. ``work`` must not communicate.

        Raises:
            MetarlError: on every process, the error of the first process on which ``work`` failed.
        """
        try:
            done, failure = [work()], None
        except MetarlError as error:
            done, failure = [], error
        if self.all(failure is None):
            return done[0]
        raise next(error for error in self.gather(failure) if error is not None)

    def check_equal(self, state: Callable[[], Any]) -> None:
        """Check that a nested state of tensors, numbers and strings has the same bits on every process.

        Raises:
            RunError: on every process, when it differs.
        """
        digests = self.gather(digest(state()))
        if len(set(digests)) > 1:
            other = next(rank for rank, found in enumerate(digests) if found != digests[0])
            raise RunError(
                f"the parameters of process {other} differ from those of process 0; resume from the last checkpoint, "
                "and if it happens again, use fewer processes"
            )

    def means(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Return the mean of each of several tensors of the same dtype, in one exchange."""
        if not values:
            return []
        joined = self.mean(torch.cat([value.reshape(-1) for value in values]))
        pieces = torch.split(joined, [value.numel() for value in values])
        return [piece.view_as(value) for piece, value in zip(pieces, values, strict=True)]

    def counts(self, count: int) -> list[int]:
        """Return the count of each process, by rank."""
        own = torch.zeros(self.size, dtype=torch.float64)
        own[self.rank] = count
        return [round(number) for number in (self.size * self.mean(own)).tolist()]

    def weight(self, count: int) -> float:
        """Return the weight of a mean over this process's ``count`` values: the count over the mean count.

        The mean over processes of weight times mean is the mean of all values.
        """
        return count * self.size / sum(self.counts(count))

    def moments(self, values: Tensor) -> tuple[Tensor, Tensor, int]:
        """Return mean, variance (without Bessel's correction) and number of all processes' rows ``[n, ...]``.

        Moments are combined as in Chan, Golub and LeVeque (1979); each process must have at least one row.
        """
        counts = self.counts(len(values))
        weight = counts[self.rank] * self.size / sum(counts)
        own = values.mean(0)
        mean = self.mean(weight * own)
        # Squared deviations from the common mean: those from the process's own mean, plus that of its mean.
        squares = values.var(0, correction=0) + (own - mean).square()
        return mean, self.mean(weight * squares), sum(counts)

    def shard(self, total: int) -> Shard:
        """Return this process's share of ``total`` rows, distributed as evenly as possible."""
        return Shard(self.rank * total // self.size, (self.rank + 1) * total // self.size, total)

    def rows(self, count: int) -> tuple[slice, int]:
        """Return the slice of all processes' rows that are the ``count`` rows of this one, and the number of all rows.

        Rows are numbered by rank, so that random draws are the same on any number of processes.
        """
        counts = self.counts(count)
        first = sum(counts[: self.rank])
        return slice(first, first + count), sum(counts)

    def joined(self, values: Tensor) -> Tensor:
        """Return the rows ``[n, ...]`` of all processes, in the order of the ranks: ``[total, ...]``.

        Only this process's own rows have a graph. Each process may compute one and the same function of all rows: the
        mean over processes of its gradients is its gradient.
        """
        rows, total = self.rows(len(values))
        spread = values.new_zeros(total, *values.shape[1:])
        spread[rows] = values.detach()
        everything = self.size * self.mean(spread)
        everything[rows] = values.detach() + self.size * (values - values.detach())
        return everything

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace each parameter's gradient by its mean over processes; it must exist on all of them or none."""
        reached = [parameter for parameter in parameters if parameter.grad is not None]
        gradients = [parameter.grad for parameter in reached if parameter.grad is not None]
        for parameter, gradient in zip(reached, self.means(gradients), strict=True):
            parameter.grad = gradient


class OneProcess(Processes):
    """A single process: every mean is the tensor itself."""

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

    def joined(self, values: Tensor) -> Tensor:
        """Return the rows themselves."""
        return values

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
        """Do nothing: there is no other process."""


ONE_PROCESS = OneProcess()


def digest(state: Any) -> str:
    """Return the SHA-256 of a nested state: its structure and the bits of every tensor."""
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
