"""Random numbers drawn for a whole batch, of which each process keeps its own rows.

So they do not depend on how the batch is distributed: a task's row is the same on whichever process it is.
"""

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from metarl.errors import InputError


class BatchGenerator(torch.Generator):
    """A generator for a process that holds some rows of a batch; ``draw_rows`` draws from it.

    Attributes:
        whole: generator of the whole batch, the same on every process.
        rows: indices of this process's rows, int64 ``[B]``.
        size: number of rows of the whole batch.
    """

    def __new__(cls, whole: torch.Generator, rows: Tensor, size: int) -> Self:
        """Make a CPU generator, from which nothing must be drawn directly."""
        return super().__new__(cls)

    def __init__(self, whole: torch.Generator, rows: Tensor, size: int) -> None:
        self.whole, self.rows, self.size = whole, rows, size
        self._untouched = super().get_state()

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """The device of the generator of the whole batch."""
        return self.whole.device

    def manual_seed(self, seed: int) -> Self:
        """Seed the generator of the whole batch."""
        self.whole.manual_seed(seed)
        return self

    def get_state(self) -> Tensor:
        """Return the state of the generator of the whole batch."""
        return self.whole.get_state()

    def set_state(self, state: Tensor) -> Self:
        """Set the state of the generator of the whole batch."""
        self.whole.set_state(state)
        return self

    def check(self) -> None:
        """Check that nothing was drawn except by ``draw_rows``: such draws are the same on every process.

        Raises:
            InputError: when something was.
        """
        if not torch.equal(super().get_state(), self._untouched):
            raise InputError(
                "random numbers were drawn from a generator directly, which repeats them on every process; draw them "
                "with metarl.numerics.noise.draw_rows(torch.rand, shape, generator), or use one process"
            )


def draw_rows(kind: Callable[..., Tensor], shape: Sequence[int], generator: torch.Generator, **options: Any) -> Tensor:
    """Return ``kind(shape, generator=generator, **options)``; of a batch on several processes, this process's rows.

    Args:
        kind: ``torch.rand``, ``torch.randn``, or a function of your own that takes a shape and a generator.
        shape: ``[B, ...]``, where B is the number of this process's rows.
        generator: the one that was passed in.
        options: such as ``device`` and ``dtype``.

    Raises:
        InputError: on several processes, when the first axis is not that of the rows.
    """
    if not isinstance(generator, BatchGenerator):
        return kind(shape, generator=generator, **options)
    if not shape or shape[0] != len(generator.rows):
        raise InputError(
            f"on several processes random numbers must have one row for each world or task, {len(generator.rows)} "
            f"here, not the shape {list(shape)}"
        )
    return kind((generator.size, *shape[1:]), generator=generator.whole, **options)[generator.rows]


def source(generator: torch.Generator) -> torch.Generator:
    """Return the generator that ``draw_rows`` advances."""
    return generator.whole if isinstance(generator, BatchGenerator) else generator


def renewed(generator: torch.Generator, whole: torch.Generator) -> torch.Generator:
    """Return a generator of the same rows, on another generator of the whole batch."""
    if isinstance(generator, BatchGenerator):
        return BatchGenerator(whole, generator.rows, generator.size)
    return whole


def check_drawn(generator: torch.Generator) -> None:
    """Check that only ``draw_rows`` drew from a generator of some rows; see ``BatchGenerator.check``."""
    if isinstance(generator, BatchGenerator):
        generator.check()


def exponential(shape: Sequence[int], generator: torch.Generator, **options: Any) -> Tensor:
    """Draw numbers from the exponential distribution of mean 1."""
    return torch.empty(*shape, **options).exponential_(generator=generator)
