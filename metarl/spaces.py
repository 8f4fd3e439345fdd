"""Spaces: elements as numbers a network takes, and actions between a policy's units and an environment's."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor


def features(space: spaces.Space[Any], values: Tensor) -> Tensor:
    """Return elements ``[..., *shape]`` of a space as numbers ``[..., D]``: one-hot if it is Discrete, else flattened.

    D is ``gymnasium.spaces.flatdim(space)``. Floating-point numbers keep their precision, others become float32.
    """
    if isinstance(space, spaces.Discrete):
        return torch.nn.functional.one_hot(values.long() - int(space.start), int(space.n)).float()
    axes = len(space.shape or ())
    flat = values.flatten(values.ndim - axes) if axes else values.unsqueeze(-1)
    return flat if flat.is_floating_point() else flat.float()


def is_bounded_box(space: spaces.Space[Any]) -> bool:
    """Return whether a space is a Box with bounds on all sides, in which policies act in units of [-1, 1]."""
    return isinstance(space, spaces.Box) and space.is_bounded()


def unit_space(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """Return the space of a policy's actions: [-1, 1] for a bounded Box, the space itself for others."""
    return spaces.Box(-1.0, 1.0, space.shape, np.float32) if is_bounded_box(space) else space


def unit_scale(space: spaces.Space[Any], device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return the function that maps a policy's actions ``[..., *action]`` into ``space``.

    Policies act in units of [-1, 1] on a bounded Box: their actions are clipped to that and scaled to the bounds, as
    the normalised environments of MAML's own code do. Actions of other spaces pass through.
    """
    if not is_bounded_box(space):
        return lambda actions: actions
    assert isinstance(space, spaces.Box)
    low, high = (torch.as_tensor(bound, device=device) for bound in (space.low, space.high))
    middle, half = (low + high) / 2, (high - low) / 2
    return lambda actions: torch.addcmul(middle, actions.clamp(-1, 1), half)


def unit_range(space: spaces.Space[Any]) -> Callable[[Tensor], Tensor]:
    """Return the function that maps actions ``[..., *action]`` of ``space`` into a policy's units, on the CPU.

    It is the inverse of ``unit_scale`` for actions inside the bounds.
    """
    if not is_bounded_box(space):
        return lambda actions: actions
    assert isinstance(space, spaces.Box)
    low, high = torch.as_tensor(space.low), torch.as_tensor(space.high)
    middle, half = (low + high) / 2, (high - low) / 2
    return lambda actions: (actions - middle) / half
