"""To which part of the split a task of integers belongs, for families of too many tasks to list."""

import torch
from torch import Tensor

from metarl.seeding import derive_seed

# Of five equally likely remainders three are training, one validation, one test.
_SHARES = 5
_TRAINING = 3


def hashed_part(seed: int, *numbers: Tensor) -> Tensor:
    """Return the part of each task, int64 ``[count]`` into (train, validation, test), for about 60, 20 and 20 %.

    A task's part depends on ``seed`` and on its numbers alone: on no other task, device or stream.

    Args:
        seed: of the split.
        numbers: integers ``[count, ...]`` that make tasks the same or different.
    """
    columns = torch.cat([number.long().view(len(number), -1) for number in numbers], 1)
    digest = torch.full_like(columns[:, 0], derive_seed(seed, "parts"))
    for column in columns.unbind(1):
        digest = _mixed(digest ^ column)
    return (digest.remainder(_SHARES) - _TRAINING + 1).clamp(min=0)


def _mixed(numbers: Tensor) -> Tensor:
    """Scatter 64-bit integers one to one (the finaliser of SplitMix64: Steele, Lea and Flood 2014, figure 17)."""
    numbers = (numbers ^ _shifted(numbers, 30)) * -0x40A7B892E31B1A47
    numbers = (numbers ^ _shifted(numbers, 27)) * -0x6B2FB644ECCEEE15
    return numbers ^ _shifted(numbers, 31)


def _shifted(numbers: Tensor, by: int) -> Tensor:
    """Shift right as if unsigned; torch's own shift repeats the sign."""
    return (numbers >> by) & ((1 << (64 - by)) - 1)
