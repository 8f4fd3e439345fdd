"""Terms of Meta-World's first rewards."""

import torch
from torch import Tensor

from metarl.envs.manipulation.scene import Scene


def tcp(scene: Scene) -> Tensor:
    """Return the middle between the fingers ``[W, 3]``."""
    return scene.tcp


def left_finger(scene: Scene) -> Tensor:
    """Return the left finger ``[W, 3]``."""
    return scene.place("site", "leftEndEffector")


def earned(left: Tensor, most: Tensor, narrow: float = 0.01, bonus: float = 1000) -> Tensor:
    """Return 1000 for each metre ``[W]`` nearer than ``most``, and two bonuses about the goal.

    Args:
        left: the distance ``[W]``.
        most: where nothing is earned.
        narrow: width of the wider bonus, in m²; the narrower's is a tenth.
        bonus: height of each.
    """
    square = left.square()
    return 1000 * (most - left) + bonus * (torch.exp(-square / narrow) + torch.exp(-10 * square / narrow))
