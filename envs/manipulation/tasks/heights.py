"""How high the hand should be on its way to a thing, so that it comes from above."""

import torch
from torch import Tensor

from metarl.envs.manipulation.terms import near, norm


def floor(distance: Tensor, radius: float, slope: float, height: float) -> Tensor:
    """Return the height to keep at a distance ``[W]`` on the ground: none up to ``radius``, then a logarithm."""
    outside = (distance - radius).clamp_min(torch.finfo(distance.dtype).tiny)
    return torch.where(distance > radius, slope * torch.log(outside) + height, 0)


def over(hand: Tensor, thing: Tensor, radius: float) -> Tensor:
    """Return ``[W]`` in [0, 1]: 1 where the hand ``[W, 3]`` is high enough to come down on a thing ``[W, 3]``."""
    lowest = floor(norm((hand - thing)[:, :2]), radius, 0.04, 0.4)
    missing = lowest - hand[:, 2]
    return near(missing.clamp_min(0), 0.01, lowest / 2).masked_fill(missing <= 0, 1)
