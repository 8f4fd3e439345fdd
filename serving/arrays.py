"""Numbers of a request as arrays: their shape, type and range are checked, and refused in one line."""

from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from metarl.families.spaces import one_line, unit_range
from metarl.serving.problems import BadRequest

KINDS = {"b": "booleans", "iu": "integers", "biu": "integers", "iuf": "numbers"}


def observations(space: spaces.Space[Any], name: str, given: Any, lead: tuple[int, ...]) -> np.ndarray:
    """Return observations ``[*lead, *observation]``; floating-point ones in float32.

    Raises:
        BadRequest: when the shape or a value does not fit the space.
    """
    return _elements(space, name, given, lead)


def policy_actions(space: spaces.Space[Any], name: str, given: Any, lead: tuple[int, ...]) -> np.ndarray:
    """Return actions in the env's units ``[*lead, *action]`` in those of the policy, which have one axis or none.

    Raises:
        BadRequest: when the shape is wrong, or one is outside the action space.
    """
    values = _elements(space, name, given, lead)
    flat = values.astype(space.dtype).reshape(-1, *(space.shape or ()))
    if not all(space.contains(each) for each in (flat if space.shape else [space.dtype.type(each) for each in flat])):  # type: ignore[union-attr]
        raise BadRequest(f"{name}: an action is not in the action space, {one_line(space)}")
    if isinstance(space, spaces.Box):
        units = unit_range(space)(torch.as_tensor(values)).float().numpy()
    else:
        units = (values - getattr(space, "start", 0)).astype(np.int64)
    return units.reshape(*lead, -1) if space.shape else units


def numbers(name: str, given: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return finite numbers of a shape in float32.

    Raises:
        BadRequest: when they are anything else.
    """
    return _finite(name, _array(name, given, shape, "iuf"))


def flags(name: str, given: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return booleans of a shape.

    Raises:
        BadRequest: when they are anything else.
    """
    return _array(name, given, shape, "b")


def _elements(space: spaces.Space[Any], name: str, given: Any, lead: tuple[int, ...]) -> np.ndarray:
    """Return elements of a space: floating-point ones in float32 and not held to bounds, others in the space's type."""
    shape, dtype = (*lead, *(space.shape or ())), np.dtype(space.dtype)
    if dtype.kind == "f":
        return _finite(name, _array(name, given, shape, "iuf"))
    values = _array(name, given, shape, "iu" if dtype.kind in "iu" else "biu")
    low, high = _bounds(space)
    if not ((values >= low) & (values <= high)).all():
        raise BadRequest(f"{name}: a number is outside {one_line(space)}")
    return values.astype(dtype)


def _bounds(space: spaces.Space[Any]) -> tuple[Any, Any]:
    """Return the least and the largest element of a space of integers."""
    if isinstance(space, spaces.Box):
        return space.low, space.high
    if isinstance(space, spaces.Discrete):
        return space.start, space.start + space.n - 1
    if isinstance(space, spaces.MultiDiscrete):
        return space.start, space.start + space.nvec - 1
    return 0, 1


def _array(name: str, given: Any, shape: tuple[int, ...], kinds: str) -> np.ndarray:
    """Return JSON's numbers or booleans as an array of a shape."""
    try:
        values = np.asarray(given)
    except (ValueError, OverflowError):  # rows of unequal length, say
        values = np.asarray(None)
    if values.dtype.kind not in kinds or (values.shape and not shape):
        what = f"{KINDS[kinds]} of the shape {list(shape)}" if shape else f"a single {KINDS[kinds].removesuffix('s')}"
        raise BadRequest(f"{name} must be {what}")
    if values.shape != shape:
        raise BadRequest(f"{name} must have the shape {list(shape)}, not {list(values.shape)}")
    return values


def _finite(name: str, values: np.ndarray) -> np.ndarray:
    """Return numbers in float32."""
    with np.errstate(over="ignore"):
        kept = values.astype(np.float32)
    if not np.isfinite(kept).all():
        raise BadRequest(f"{name} has a number that is NaN, infinite or beyond float32")
    return kept
