"""How high the hand should be while it approaches an object from above."""

import torch
from torch import Tensor

from metarl.envs.manipulation.terms import near, norm


def required_height(distance: Tensor, radius: float, slope: float, height: float) -> Tensor:
    """Return the height to keep at a horizontal distance ``[W]``: zero up to ``radius``, logarithmic beyond it."""
    outside = (distance - radius).clamp_min(torch.finfo(distance.dtype).tiny)
    return torch.where(distance > radius, slope * torch.log(outside) + height, 0)


def high_enough(hand: Tensor, obj: Tensor, radius: float) -> Tensor:
    """Return 1 where the hand ``[W, 3]`` is high enough to descend on an object ``[W, 3]``, and less below: ``[W]``."""
    lowest = required_height(norm((hand - obj)[:, :2]), radius, 0.04, 0.4)
    missing = lowest - hand[:, 2]
    return near(missing.clamp_min(0), 0.01, lowest / 2).masked_fill(missing <= 0, 1)
