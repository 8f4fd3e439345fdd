"""Random numbers of a whole batch, of which a process takes those of its rows.

So they do not depend on how the batch is distributed over processes: the row of a task is the same, whoever holds it.
"""

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from metarl.errors import InputError


class BatchGenerator(torch.Generator):
    """A generator of the numbers of a whole batch, for a process that holds some of its rows; read by ``draw_rows``.

    Attributes:
        whole: the generator of all rows; the same on every process.
        rows: which rows this process holds, int64 ``[B]``.
        size: rows of the whole batch.
    """

    def __new__(cls, whole: torch.Generator, rows: Tensor, size: int) -> Self:
        """Make a generator of the CPU, from which nothing is to be drawn."""
        return super().__new__(cls)

    def __init__(self, whole: torch.Generator, rows: Tensor, size: int) -> None:
        self.whole, self.rows, self.size = whole, rows, size
        self._untouched = super().get_state()

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """The device of the generator of all rows."""
        return self.whole.device

    def manual_seed(self, seed: int) -> Self:
        """Seed the generator of all rows."""
        self.whole.manual_seed(seed)
        return self

    def get_state(self) -> Tensor:
        """Return the state of the generator of all rows."""
        return self.whole.get_state()

    def set_state(self, state: Tensor) -> Self:
        """Set the state of the generator of all rows."""
        self.whole.set_state(state)
        return self

    def check(self) -> None:
        """Make sure that nothing was drawn past ``draw_rows``, which would give every process the same numbers.

        Raises:
            InputError: when something was.
        """
        if not torch.equal(super().get_state(), self._untouched):
            raise InputError(
                "something draws from its generator directly, which on several processes repeats numbers; draw by "
                "metarl.noise.draw_rows(torch.rand, shape, generator), or use one process"
            )


def draw_rows(kind: Callable[..., Tensor], shape: Sequence[int], generator: torch.Generator, **options: Any) -> Tensor:
    """Return ``kind(shape, generator=generator, **options)``; of a batch on several processes, this process's rows.

    Args:
        kind: ``torch.rand``, ``torch.randn``, or a function of your own that takes a shape and a generator.
        shape: ``[B, ...]``, B being the rows of the batch that this process holds.
        generator: as it was handed in.
        options: ``device`` and ``dtype``, say.

    Raises:
        InputError: on several processes, when the first axis is not that of the rows.
    """
    if not isinstance(generator, BatchGenerator):
        return kind(shape, generator=generator, **options)
    if not shape or shape[0] != len(generator.rows):
        raise InputError(
            f"on several processes random numbers have one row for each world or task, {len(generator.rows)} here, not "
            f"the shape {list(shape)}"
        )
    return kind((generator.size, *shape[1:]), generator=generator.whole, **options)[generator.rows]


def source(generator: torch.Generator) -> torch.Generator:
    """Return the generator that ``draw_rows`` advances."""
    return generator.whole if isinstance(generator, BatchGenerator) else generator


def renewed(generator: torch.Generator, whole: torch.Generator) -> torch.Generator:
    """Return a generator of the same rows that draws from another generator of all rows."""
    if isinstance(generator, BatchGenerator):
        return BatchGenerator(whole, generator.rows, generator.size)
    return whole


def check_drawn(generator: torch.Generator) -> None:
    """Make sure that only ``draw_rows`` drew from a generator, where it matters; see ``BatchGenerator.check``."""
    if isinstance(generator, BatchGenerator):
        generator.check()


def exponential(shape: Sequence[int], generator: torch.Generator, **options: Any) -> Tensor:
    """Draw numbers from the exponential distribution of mean 1."""
    return torch.empty(*shape, **options).exponential_(generator=generator)
