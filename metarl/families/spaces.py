"""Spaces: conversion of observations to network inputs, and of actions between policy and environment.

An observation is a single tensor all the way from the environment to the network. Elements of Dict and Tuple spaces are
flattened to float32 when they leave the environment, as by ``gymnasium.spaces.flatten``; all others keep their shape
and type, so the pixels of an image stay uint8 until a network reads them.

Policies act in ``unit_space``: vectors in [-1, 1] for a bounded Box, integers from 0 for discrete spaces.
``unit_scale`` converts their actions to the environment's.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from metarl.devices.transfer import send
from metarl.errors import InputError

# An observation, or the parts of an observation in a Dict or Tuple space.
Values = Any
# Spaces whose elements are one tensor.
SINGLE = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


class Spaces(Protocol):
    """Anything with an observation and an action space: a task family, or a ``gymnasium.Env``."""

    @property
    def observation_space(self) -> spaces.Space[Any]:
        """Of one environment."""
        ...

    @property
    def action_space(self) -> spaces.Space[Any]:
        """Of one environment."""
        ...


def one_line(space: Any) -> str:
    """Return a description of a space in one line."""
    return " ".join(str(space).split())


def is_image(space: spaces.Space[Any]) -> bool:
    """Return whether elements of a space are images: a Box of uint8 with three axes."""
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3


def require_observations(space: spaces.Space[Any]) -> None:
    """Raise ``InputError`` for a space whose elements do not have a fixed size."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        for part in _parts(space):
            require_observations(part)
    elif not isinstance(space, SINGLE):
        raise InputError(
            f"no learner can observe {one_line(space)}; use a Box, Discrete, MultiDiscrete or MultiBinary space, or a "
            "Dict or Tuple of them"
        )


def require_actions(space: spaces.Space[Any]) -> None:
    """Raise ``InputError`` for an action space that no policy supports."""
    if not isinstance(space, SINGLE):
        raise InputError(
            f"no policy can act in {one_line(space)}; use a Box, Discrete, MultiDiscrete or MultiBinary space"
        )


def observed_space(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """Return the space of observation tensors: a flat float32 Box for Dict and Tuple, else the space itself.

    Raises:
        InputError: for a space whose elements do not have a fixed size.
    """
    require_observations(space)
    return flat_box(space) if isinstance(space, spaces.Dict | spaces.Tuple) else space


def observed(space: spaces.Space[Any], values: Values) -> Tensor:
    """Return observations as one tensor: flattened for Dict and Tuple spaces, otherwise unchanged.

    Raises:
        InputError: for an observation in parts in a space that has none.
    """
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return _flattened(space, values)
    if isinstance(values, Tensor):
        return values
    try:
        return torch.as_tensor(np.asarray(values))
    except (TypeError, ValueError):
        raise InputError(
            f"an observation in {one_line(space)} is an array of numbers, not a {type(values).__name__}; flatten it "
            "with gymnasium.spaces.flatten"
        ) from None


def features(space: spaces.Space[Any], values: Values) -> Tensor:
    """Convert observations ``[..., *shape]`` to network inputs ``[..., D]``, float32 unless given in float64.

    The order is that of ``gymnasium.spaces.flatten``, with Discrete and MultiDiscrete one-hot; D is
    ``gymnasium.spaces.flatdim(space)``. Pixels of an image are divided by 255.
    """
    flat = _flattened(space, values)
    return flat / 255 if is_image(space) else flat


def feature_space(space: spaces.Space[Any]) -> spaces.Box:
    """Return the float32 Box ``[D]`` of the ``features`` of a space."""
    box = flat_box(space)
    return spaces.Box(box.low / 255, box.high / 255, dtype=np.float32) if is_image(space) else box


def flat_box(space: spaces.Space[Any]) -> spaces.Box:
    """Return the float32 Box ``[D]`` into which Gymnasium flattens a space."""
    flat = spaces.flatten_space(space)
    assert isinstance(flat, spaces.Box)
    with np.errstate(over="ignore"):  # bounds beyond float32 become infinite
        return spaces.Box(flat.low.astype(np.float32), flat.high.astype(np.float32), dtype=np.float32)


def _parts(space: spaces.Space[Any]) -> list[spaces.Space[Any]]:
    assert isinstance(space, spaces.Dict | spaces.Tuple)
    return list(space.values()) if isinstance(space, spaces.Dict) else list(space)


def _flattened(space: spaces.Space[Any], values: Values) -> Tensor:
    """Flatten elements as Gymnasium does; a tensor or array given for a Dict or Tuple space is flat already."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        if isinstance(values, Tensor | np.ndarray):
            return torch.as_tensor(values).float()
        pieces = [values[key] for key in space] if isinstance(values, Mapping) else values
        pairs = zip(_parts(space), pieces, strict=True)
        return torch.cat([_flattened(part, piece) for part, piece in pairs], -1)
    values = torch.as_tensor(values)
    if isinstance(space, spaces.Discrete):
        return _one_hot(values.long() - int(space.start), int(space.n))
    axes = len(space.shape or ())
    flat: Tensor = values.flatten(values.ndim - axes) if axes else values.unsqueeze(-1)
    if isinstance(space, spaces.MultiDiscrete):
        starts, counts = space.start.reshape(-1).tolist(), space.nvec.reshape(-1).tolist()
        columns = zip(flat.long().unbind(-1), starts, counts, strict=True)
        return torch.cat([_one_hot(column - start, count) for column, start, count in columns], -1)
    # Values of a float32 space keep their dtype: tests of derivatives pass float64.
    return flat if space.dtype == np.float32 and flat.is_floating_point() else flat.float()


def _one_hot(numbers: Tensor, count: int) -> Tensor:
    return torch.nn.functional.embedding(numbers, _identity(count, numbers.device))


@lru_cache(maxsize=64)
def _identity(count: int, device: torch.device) -> Tensor:
    return torch.eye(count, device=device)


def packed(space: spaces.Space[Any], observations: Tensor) -> Tensor:
    """Pack the bits of observations ``[..., *shape]`` into float32 ``[..., P]``, for buffers of a single dtype.

    Four pixels of an image share the bits of one number, so packing takes no extra memory.
    """
    axes = len(space.shape or ())
    numbers = observations.to(_dtype(space)).unsqueeze(-1).flatten(observations.ndim - axes)
    octets = numbers.contiguous().view(torch.uint8)
    return torch.nn.functional.pad(octets, (0, -octets.shape[-1] % 4)).view(torch.float32)


def unpacked(space: spaces.Space[Any], rows: Tensor) -> Tensor:
    """Unpack observations ``[..., *shape]`` from rows ``[..., P]``; the inverse of ``packed``."""
    shape = space.shape or ()
    octets = rows.contiguous().view(torch.uint8)[..., : int(np.prod(shape)) * _dtype(space).itemsize]
    return octets.contiguous().view(_dtype(space)).view(*rows.shape[:-1], *shape)


def _dtype(space: spaces.Space[Any]) -> torch.dtype:
    return torch.as_tensor(np.zeros((), space.dtype)).dtype


def is_bounded_box(space: spaces.Space[Any]) -> bool:
    """Return whether a space is a bounded Box, in which policies act in [-1, 1]."""
    return isinstance(space, spaces.Box) and space.is_bounded()


def unit_space(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """Return the space of a policy's actions, which have one axis, or none in a Discrete space.

    It is [-1, 1] for a bounded Box and integers from 0 for Discrete and MultiDiscrete spaces.
    """
    size = int(np.prod(space.shape or (1,)))
    if is_bounded_box(space):
        return spaces.Box(-1.0, 1.0, (size,), np.float32)
    if isinstance(space, spaces.Discrete):
        return space if space.start == 0 else spaces.Discrete(space.n)
    if len(space.shape or ()) == 1 and not np.any(getattr(space, "start", 0)):
        return space
    if isinstance(space, spaces.MultiDiscrete):
        return spaces.MultiDiscrete(space.nvec.reshape(-1))
    if isinstance(space, spaces.MultiBinary):
        return spaces.MultiBinary(size)
    assert isinstance(space, spaces.Box)
    return spaces.Box(space.low.reshape(-1), space.high.reshape(-1), dtype=space.dtype)


def action_features(space: spaces.Space[Any]) -> Callable[[Tensor], Tensor]:
    """Return the function that converts a policy's actions ``[..., *action]`` to network inputs ``[..., A]``.

    Those of a Box are clipped to [-1, 1], those of other spaces one-hot.
    """
    units = unit_space(space)
    if isinstance(space, spaces.Box):
        return lambda actions: features(units, actions).clamp(-1, 1)
    return lambda actions: features(units, actions)


def unit_scale(space: spaces.Space[Any], device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return the function that maps a policy's actions, elements of ``unit_space``, into ``space``.

    Policies act in units of [-1, 1] on a bounded Box: their actions are clipped to that and scaled to the bounds, as
    the normalised environments of MAML's own code do. In a Box of integers each integer has an equal share of [-1, 1].
    Discrete and MultiDiscrete actions are shifted by the space's start.
    """
    convert = _to_box(space, device) if isinstance(space, spaces.Box) else _from_start(space, device)
    shape = space.shape or ()
    if len(shape) == 1 or isinstance(space, spaces.Discrete):
        return convert
    return lambda actions: convert(actions).view(*actions.shape[:-1], *shape)


def _to_box(space: spaces.Box, device: torch.device) -> Callable[[Tensor], Tensor]:
    low, high = (send(torch.as_tensor(bound.reshape(-1)), device) for bound in (space.low, space.high))
    whole = not low.is_floating_point()
    if not space.is_bounded():
        return torch.round if whole else lambda actions: actions
    if whole:
        first, count = low.double(), high.double() - low.double() + 1
        # The bin of an action; 1 itself belongs to the last bin.
        return lambda actions: first + ((actions.clamp(-1, 1) + 1) / 2 * count).floor().minimum(count - 1)
    middle, half = (low + high) / 2, (high - low) / 2
    return lambda actions: torch.addcmul(middle, actions.clamp(-1, 1).to(middle), half)


def _from_start(space: spaces.Space[Any], device: torch.device) -> Callable[[Tensor], Tensor]:
    first = np.reshape(getattr(space, "start", 0), -1 if space.shape else ())
    if not first.any():
        return lambda actions: actions
    start = send(torch.as_tensor(first), device)
    return lambda actions: actions + start


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
