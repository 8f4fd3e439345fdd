"""The training loop that the few-shot methods share."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def fit(parameters: Iterable[Tensor], step_size: float, iterations: int, loss: Callable[[], Tensor]) -> None:
    """Minimise a loss by Adam, whose step size decays to 0 along a cosine.

    Args:
        parameters: trained in place.
        step_size: of the first step.
        iterations: number of steps.
        loss: draws tasks and returns their loss; called once per step.
    """
    optimizer = torch.optim.Adam(list(parameters), step_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    for _ in range(iterations):
        value = loss()
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
