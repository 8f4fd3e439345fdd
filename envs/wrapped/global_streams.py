"""The global random generators of a process, ``random`` and ``np.random``, which some environments use."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.random.mtrand import get_bit_generator, set_bit_generator

NUMPY_SEEDS = 2**32


def seed_global_streams(seed: int) -> None:
    """Seed the global generators of Python and NumPy."""
    random.seed(seed)
    np.random.seed(seed % NUMPY_SEEDS)  # noqa: NPY002 (the legacy stream is what such environments draw from)


class GlobalStreams:
    """Global random generators of some worlds, separate from those of the process in which they are stepped."""

    def __init__(self) -> None:
        self._python = random.Random(0).getstate()
        self._numpy = np.random.MT19937(0)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Replace the process's generators by these, and restore them at the end.

        For NumPy the generator is swapped and not its state, which would take several times as long as a world's step.
        A second Gaussian that ``np.random.randn`` caches for its next call is lost in the swap.
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
