"""A replay buffer, as seen by the code that saves it.

Several processes share a buffer: each keeps the records of its own tasks, and all number them alike.
"""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from metarl.devices.processes import ONE_PROCESS, Processes


class Replay(Protocol):
    """A bounded buffer of records that a learner trains on again and again.

    Its records are those of all processes, numbered from 0 in the order in which they were added, and within one
    addition in the order of the ranks.
    """

    @property
    def added(self) -> int:
        """Total number of records added so far."""
        ...

    @property
    def kept(self) -> int:
        """Number of newest records that are kept."""
        ...

    def read(self, start: int, stop: int, processes: Processes = ONE_PROCESS) -> dict[str, Tensor]:
        """Return the records ``start`` to ``stop - 1``, all of them kept, as named tensors ``[stop - start, ...]``."""
        ...

    def restore(self, added: int, pieces: list[dict[str, Tensor]], processes: Processes = ONE_PROCESS) -> None:
        """Restore what ``read`` returned, of which this process keeps a part; see ``kept_by``.

        Args:
            added: number of records that were ever added.
            pieces: consecutive records up to the last one, at least those that are kept.
            processes: that share the buffer from now on.
        """
        ...


def kept_by(processes: Processes, numbers: Tensor) -> Tensor:
    """Return which of the restored records a process keeps, bool: every ``processes.size``-th one."""
    return numbers % processes.size == processes.rank


def gathered(numbers: Tensor, records: Mapping[str, Tensor], processes: Processes) -> dict[str, Tensor]:
    """Return the records of all processes in the order of their numbers.

    Args:
        numbers: of this process's records, int64 ``[n]`` on the CPU.
        records: named tensors ``[n, ...]``.
        processes: that share the buffer.
    """
    given = {"numbers": numbers, **{name: value.cpu() for name, value in records.items()}}
    found = processes.gather(given)
    order = torch.cat([each["numbers"] for each in found]).argsort()
    return {name: torch.cat([each[name] for each in found])[order] for name in records}
