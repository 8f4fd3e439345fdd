"""What a replay buffer is to those that save it."""

from typing import Protocol

from torch import Tensor


class Replay(Protocol):
    """A bounded buffer of records that a learner trains on again and again."""

    @property
    def added(self) -> int:
        """Number of records that were ever added."""
        ...

    @property
    def kept(self) -> int:
        """Number of records that are kept, the newest."""
        ...

    def read(self, start: int, stop: int) -> dict[str, Tensor]:
        """Return the records ``start`` to ``stop - 1``, all of them kept, as named tensors ``[stop - start, ...]``."""
        ...

    def restore(self, added: int, pieces: list[dict[str, Tensor]]) -> None:
        """Take over what ``read`` returned.

        Args:
            added: number of records that were ever added.
            pieces: consecutive records up to the last one, at least those that are kept.
        """
        ...
