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

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


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
    def all(self, flag: bool) -> bool:
        """Return whether the flag is set on every process."""

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

    def part(self, total: int) -> int:
        """Return how many of ``total`` rows this process takes when they are distributed as evenly as possible."""
        return (self.rank + 1) * total // self.size - self.rank * total // self.size

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


@dataclass(frozen=True)
class BatchNoise:
    """Random numbers of a whole batch, of which a process keeps those of its rows.

    So they do not depend on how the batch is distributed over processes.

    Attributes:
        stream: where they come from; the same on every process.
        rows: which rows of the batch are this process's, ``[B]``.
        size: rows of the whole batch.
    """

    stream: torch.Generator
    rows: Tensor
    size: int

    def uniform(self, *shape: int) -> Tensor:
        """Draw numbers ``[B, *shape]`` from [0, 1)."""
        return torch.rand(self.size, *shape, generator=self.stream, device=self.stream.device)[self.rows]

    def normal(self, *shape: int) -> Tensor:
        """Draw standard normal numbers ``[B, *shape]``."""
        return torch.randn(self.size, *shape, generator=self.stream, device=self.stream.device)[self.rows]


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

    def all(self, flag: bool) -> bool:
        """Return the flag."""
        return flag


ONE_PROCESS = OneProcess()
