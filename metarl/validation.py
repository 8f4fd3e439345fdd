"""Checks of settings: each raises one line that names the setting, what it must be, and what it was."""

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any, get_args

from metarl.errors import InputError

# Upper limits: larger counts overflow 32 bits, and a larger layer needs a terabyte.
MAX_COUNT, MAX_UNITS = 2**31 - 1, 2**18
# What torch reports for a tensor that is too large.
SIZE_FAILURES = re.compile("[Oo]verflow|allocate memory|out of memory|invalid size")


def require_positive(config: Any, *fields: str) -> None:
    """Raise ``InputError`` for the first of the fields that is not positive, or infinite."""
    for name in fields:
        _require_number(name, getattr(config, name), Real)
        if not 0 < getattr(config, name) < math.inf:
            raise InputError(f"{name} must be {_finite(config, name)}positive, not {getattr(config, name)}")


def require_not_negative(config: Any, *fields: str) -> None:
    """Raise ``InputError`` for the first of the fields that is below 0, or infinite."""
    for name in fields:
        _require_number(name, getattr(config, name), Real)
        if not 0 <= getattr(config, name) < math.inf:
            raise InputError(f"{name} must be {_finite(config, name)}0 or more, not {getattr(config, name)}")


def _require_number(what: str, value: object, kind: type) -> None:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(f"{what} must be {'an integer' if kind is Integral else 'a number'}, not {value!r}")


def _finite(config: Any, name: str) -> str:
    return "finite and " if getattr(config, name) == math.inf else ""


def require_counts(config: Any, *fields: str) -> None:
    """Raise ``InputError`` for the first of the fields that is below 1, or above ``MAX_COUNT``."""
    for name in fields:
        require_count(name, getattr(config, name))


def require_unit(config: Any, *fields: str) -> None:
    """Raise ``InputError`` for the first of the fields that is outside [0, 1]."""
    for name in fields:
        _require_number(name, getattr(config, name), Real)
        if not 0 <= getattr(config, name) <= 1:
            raise InputError(f"{name} must lie in [0, 1], not {getattr(config, name)}")


def require_layers(config: Any, *fields: str) -> None:
    """Raise ``InputError`` for the first of the fields with an empty hidden layer."""
    for name in fields:
        require_sizes(name, getattr(config, name))


def require_choice(config: Any, field: str, literal: Any) -> None:
    """Raise ``InputError`` if a field is not one of the values of a ``Literal``."""
    known = get_args(literal)
    if getattr(config, field) not in known:
        raise InputError(f"{field} must be one of {', '.join(known)}, not {getattr(config, field)!r}")


def require_sizes(what: str, sizes: Sequence[int]) -> None:
    """Raise ``InputError`` if the sizes of hidden layers, called ``what``, are no integers, or one is below 1."""
    if not isinstance(sizes, Sequence) or not all(isinstance(size, Integral) for size in sizes):
        raise InputError(f"{what} must be integers, one for each hidden layer, not {sizes!r}")
    if any(size < 1 for size in sizes):
        raise InputError(f"{what}: every hidden layer needs at least one unit, not {list(sizes)}")
    if any(size > MAX_UNITS for size in sizes):
        raise InputError(f"{what}: a hidden layer may have at most {MAX_UNITS:,} units")


def require_count(what: str, value: int) -> None:
    """Raise ``InputError`` if a count, called ``what``, is no integer, below 1 or above ``MAX_COUNT``."""
    _require_number(what, value, Integral)
    if value < 1:
        raise InputError(f"{what} must be at least 1, not {value}")
    if value > MAX_COUNT:
        raise InputError(f"{what} must be at most {MAX_COUNT:,}")


@contextmanager
def sizes_that_fit(what: str) -> Iterator[None]:
    """Turn torch's allocation failures into errors of one line.

    Raises:
        InputError: if a tensor in the block does not fit into memory, or its size does not fit into 64 bits.
    """
    try:
        yield
    except (RuntimeError, TypeError, ValueError, OverflowError, MemoryError) as error:
        if isinstance(error, OverflowError | MemoryError) or SIZE_FAILURES.search(str(error)):
            raise InputError(f"{what} with these settings does not fit in memory; choose smaller sizes") from None
        raise
