"""Terms that Meta-World's v1 rewards share."""

import torch
from torch import Tensor

from metarl.envs.manipulation.scene import Scene


def tcp(scene: Scene) -> Tensor:
    """Return the midpoint between the fingers ``[W, 3]``."""
    return scene.tcp


def left_finger(scene: Scene) -> Tensor:
    """Return the position of the left finger ``[W, 3]``."""
    return scene.position("site", "leftEndEffector")


def progress_reward(remaining: Tensor, limit: Tensor, width: float = 0.01, bonus: float = 1000) -> Tensor:
    """Return 1000 per metre by which ``remaining`` is below ``limit``, plus two bonuses near the goal ``[W]``.

    Args:
        remaining: distance to the goal ``[W]``, in m.
        limit: distance at which the linear term is zero ``[W]``, in m.
        width: width of the wider bonus, in m²; the narrower one has a tenth of it.
        bonus: height of each bonus.
    """
    square = remaining.square()
    return 1000 * (limit - remaining) + bonus * (torch.exp(-square / width) + torch.exp(-10 * square / width))
