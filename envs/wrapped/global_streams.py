"""The global random streams of a process, ``random`` and ``np.random``, from which some environments draw."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.random.mtrand import get_bit_generator, set_bit_generator

NUMPY_SEEDS = 2**32


def seed_global_streams(seed: int) -> None:
    """Seed the global streams of Python and of NumPy."""
    random.seed(seed)
    np.random.seed(seed % NUMPY_SEEDS)  # noqa: NPY002 (the legacy stream is what such environments draw from)


class GlobalStreams:
    """Global random streams that belong to some worlds, apart from those of the process in which they are stepped."""

    def __init__(self) -> None:
        self._python = random.Random(0).getstate()
        self._numpy = np.random.MT19937(0)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Put these streams in the place of the process's, and those back at the end.

        NumPy swaps its generator and not the state, which would take several times as long as a world's step. A
        second Gaussian that ``np.random.randn`` has kept for its next call is lost in the swap.
        """
        python, numpy = random.getstate(), get_bit_generator()
        random.setstate(self._python)
        set_bit_generator(self._numpy)
        try:
            yield
        finally:
            self._python = random.getstate()
            random.setstate(python)
            set_bit_generator(numpy)
