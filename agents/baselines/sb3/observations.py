"""Observations as the networks of Stable-Baselines3 read them."""

from typing import Any

import numpy as np
from gymnasium import spaces
from torch import Tensor

from metarl.families.spaces import feature_space, features


def readable_space(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """Return the space of observations as SB3's networks read them: the space itself, or its features."""
    return space if _is_readable(space) else feature_space(space)


def readable(space: spaces.Space[Any], observations: Tensor) -> Tensor:
    """Return observations ``[..., *shape]`` of a space as elements of its ``readable_space``."""
    return observations if _is_readable(space) else features(space, observations)


def _is_readable(space: spaces.Space[Any]) -> bool:
    if isinstance(space, spaces.Discrete):
        return bool(space.start == 0)
    return isinstance(space, spaces.Box) and space.dtype == np.float32 and len(space.shape) > 0
