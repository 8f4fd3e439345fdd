"""Restoring a learner after an update that failed midway."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from metarl.errors import RunError


@contextmanager
def restored_on_error(
    owner: object, attributes: Sequence[str], values: Iterable[Tensor], optimizers: Sequence[torch.optim.Optimizer]
) -> Iterator[None]:
    """Run a block; if it raises a ``RunError``, restore everything given here to its previous value, and re-raise.

    Copies of the tensors are kept in memory, on their device.

    Args:
        owner: object whose ``attributes`` are restored: numbers, and objects that the block replaces instead of
            modifying.
        attributes: names of the attributes.
        values: parameters and buffers that the block modifies in place.
        optimizers: optimisers whose moments it modifies.
    """
    accounts: dict[str, Any] = {name: getattr(owner, name) for name in attributes}
    # An optimiser has no moments for a parameter before its first step.
    stepped = [set(optimizer.state) for optimizer in optimizers]
    moments = [entry for optimizer in optimizers for entry in optimizer.state.values()]
    live = [*values, *(each for entry in moments for each in entry.values() if isinstance(each, Tensor))]
    # Optimisers may also count in plain numbers, of a parameter or of all.
    counting = [*moments, *(group for optimizer in optimizers for group in optimizer.param_groups)]
    counts = [{name: each for name, each in entry.items() if isinstance(each, int | float)} for entry in counting]
    with torch.no_grad():
        kept = [torch.empty_like(tensor) for tensor in live]
        torch._foreach_copy_(kept, live)
    try:
        yield
    except RunError:
        with torch.no_grad():
            torch._foreach_copy_(live, kept)
        for entry, before in zip(counting, counts, strict=True):
            entry.update(before)
        for optimizer, known in zip(optimizers, stepped, strict=True):
            for parameter in [each for each in optimizer.state if each not in known]:
                del optimizer.state[parameter]
        for name, value in accounts.items():
            setattr(owner, name, value)
        raise
