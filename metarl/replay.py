"""The interface through which replay buffers are saved and restored."""

from typing import Protocol

from torch import Tensor


class Replay(Protocol):
    """A replay buffer of bounded size."""

    @property
    def added(self) -> int:
        """Total number of records added so far."""
        ...

    @property
    def kept(self) -> int:
        """Number of newest records that are kept."""
        ...

    def read(self, start: int, stop: int) -> dict[str, Tensor]:
        """Return records ``start`` to ``stop - 1``, which must be kept, as named tensors ``[stop - start, ...]``."""
        ...

    def restore(self, added: int, pieces: list[dict[str, Tensor]]) -> None:
        """Restore records returned by ``read``.

        Args:
            added: total number of records added so far.
            pieces: consecutive records up to the last one, including at least those that are kept.
        """
        ...
