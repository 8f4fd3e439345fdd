"""Reporting and comparison functions of the checks."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from metarl.errors import InputError, MetarlError


def require(holds: bool, name: str, problem: str, advice: str) -> None:
    """Raise ``InputError`` with a problem of the family or learner ``name``, and advice, unless ``holds`` is true."""
    if not holds:
        raise InputError(f"{name}: {problem}; {advice}")


@contextmanager
def attempt(name: str, what: str) -> Iterator[None]:
    """Turn an exception in the checked code into an error of one line, with the exception as its cause.

    Args:
        name: name of the family or learner.
        what: what is attempted.
    """
    try:
        yield
    except MetarlError as error:
        raise InputError(f"{name}: {what} failed: {_first_line(error)}") from error
    except Exception as error:
        reason = f"{type(error).__name__}: {_first_line(error)}"
        raise InputError(f"{name}: {what} failed ({reason}); see the traceback") from error


def first_difference(one: Any, other: Any, path: str = "") -> str | None:
    """Return where two nested states differ, such as ``['params']['weight']``; None where every bit is the same."""
    if isinstance(one, Mapping) and isinstance(other, Mapping) and one.keys() == other.keys():
        found = (first_difference(one[key], other[key], f"{path}[{key!r}]") for key in one)
        return next((place for place in found if place is not None), None)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        found = (first_difference(*pair, f"{path}[{index}]") for index, pair in enumerate(zip(one, other, strict=True)))
        return next((place for place in found if place is not None), None)
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        # NaN equals NaN here: a copy of it is no change.
        same = one.shape == other.shape and one.dtype == other.dtype and torch.equal(one.isnan(), other.isnan())
        return None if same and torch.equal(one.nan_to_num(), other.nan_to_num()) else path or "the tensor"
    same = type(one) is type(other) and bool(one == other)
    return None if same else path or "the value"


def is_frozen_dataclass(kind: Any) -> bool:
    """Return whether something is the class of a frozen dataclass."""
    parameters = getattr(kind, "__dataclass_params__", None) if isinstance(kind, type) else None
    return parameters is not None and bool(parameters.frozen)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]
