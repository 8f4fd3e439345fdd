"""What goes from the host to a device and back.

On a GPU the host only queues work, and to read a number is to wait until all work before it is done. So numbers are
read where a decision needs them, and then all that are wanted at once.
"""

from collections.abc import Mapping

import torch
from torch import Tensor


def reading_is_free(device: torch.device) -> bool:
    """Return whether numbers can be read without waiting for anything: on the CPU."""
    return device.type == "cpu"


def read(numbers: Mapping[str, Tensor | float]) -> dict[str, float]:
    """Read numbers ``[]`` all at once; those that are on the host already stay as they are."""
    waiting = [value.detach().double() for value in numbers.values() if isinstance(value, Tensor)]
    found = iter(torch.stack(waiting).tolist() if waiting else ())
    return {name: next(found) if isinstance(value, Tensor) else value for name, value in numbers.items()}


def send(values: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device without waiting for it."""
    return values.to(device, non_blocking=True)
