"""Attributes of an environment or its wrappers, through which its task may be set."""

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np

from metarl.errors import InputError

Environment = gymnasium.Env[Any, Any]
NUMBERS = (bool, int, float, np.bool_, np.number)
# Where MuJoCo environments store parameters that users want to vary.
MUJOCO_PARTS = ("model", "model.opt")
GUIDE = "docs/your-own-environment.md"


def constructor_arguments(creator: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the named arguments of an environment's constructor.

    If the ``__init__`` of a class takes ``**kwargs``, it is assumed to pass them to its parent, whose named arguments
    are added.
    """
    found = dict(inspect.signature(creator).parameters)
    if isinstance(creator, type):
        for parent in creator.__mro__[1:]:
            if not takes_keywords(found) or parent is object:
                break
            if "__init__" in vars(parent):
                own = inspect.signature(vars(parent)["__init__"]).parameters
                found = {key: value for key, value in found.items() if value.kind is not value.VAR_KEYWORD}
                found |= {key: value for key, value in own.items() if key != "self" and key not in found}
    return found


def takes_keywords(arguments: Mapping[str, inspect.Parameter]) -> bool:
    """Return whether the arguments include ``**kwargs``."""
    return any(argument.kind is argument.VAR_KEYWORD for argument in arguments.values())


def names_of(arguments: Mapping[str, inspect.Parameter]) -> list[str]:
    """Return the names of the arguments, without ``*args`` and ``**kwargs``, in alphabetical order."""
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return sorted(name for name, argument in arguments.items() if argument.kind not in variable)


def owner_of(env: Environment, name: str) -> Any:
    """Return the owner of an attribute: the unwrapped environment, or else the outermost wrapper, or None.

    The environment comes first, because a wrapper that forwards attributes would not forward a new value.
    """
    if hasattr(env.unwrapped, name):
        return env.unwrapped
    return next((layer for layer in _layers(env) if hasattr(layer, name)), None)


def set_attribute(env: Environment, name: str, value: Any) -> None:
    """Set an attribute of the environment or of a wrapper.

    Raises:
        InputError: if it cannot be set.
    """
    try:
        setattr(owner_of(env, name), name, value)
    except AttributeError as error:
        raise InputError(
            f"{type(env.unwrapped).__name__}: {name} cannot be set ({error}); set what it is computed from in a "
            f"subclass's apply ({GUIDE})"
        ) from error


def number_at(env: Environment, name: str) -> Any:
    """Return an attribute's number, or a copy of its array; None if it is missing or not numeric."""
    owner = owner_of(env, name)
    if owner is None:
        return None
    try:
        found = getattr(owner, name)
        if isinstance(found, NUMBERS):
            return found
        value = np.array(found)
    except (TypeError, ValueError):
        return None
    return value if value.dtype.kind in "biuf" else None


def same_numbers(one: Any, other: Any) -> bool:
    """Return whether two values are numerically equal, whatever their shapes, up to float32 rounding."""
    if isinstance(one, NUMBERS) and isinstance(other, NUMBERS) and one == other:
        return True  # ten times as fast, and by far the most common case
    first, second = (np.asarray(value, dtype=np.float64).reshape(-1) for value in (one, other))
    return first.shape == second.shape and np.allclose(first, second, rtol=1e-5, atol=1e-7, equal_nan=True)


def unknown_parameter(env: Environment, name: str, key: str, arguments: Mapping[str, inspect.Parameter]) -> InputError:
    """Return the error that no argument or attribute is named like a task parameter, with suggestions."""
    part = next((part for part in MUJOCO_PARTS if _has(env.unwrapped, f"{part}.{key}")), None)
    text = f"{name} has neither a constructor argument nor an attribute {key!r}"
    if part is not None:
        return InputError(
            f"{text}, but a {part}.{key}: set env.unwrapped.{part}.{key}[...] in a subclass's apply, and call "
            f"mujoco.mj_setConst(env.unwrapped.model, env.unwrapped.data) after it ({GUIDE})"
        )
    given = names_of(arguments)
    attributes = [each for each in dir(env.unwrapped) if not each.startswith("_")]
    own = sorted(each for each in vars(env.unwrapped) if not each.startswith("_"))
    near = difflib.get_close_matches(key, sorted({*given, *attributes}), n=3)
    if near:
        return InputError(f"{text}; did you mean {' or '.join(near)}?")
    has = ", ".join([*given, *(each for each in own if each not in given)])
    has = f"it has {has}" if has else "it has no public ones"
    ways = f"{{{key!r}: 'reset option'}} or 'constructor'"
    return InputError(f"{text}; {has}; set it with delivery={ways}, or in a subclass's apply ({GUIDE})")


def _has(owner: Any, path: str) -> bool:
    for name in path.split("."):
        if not hasattr(owner, name):
            return False
        owner = getattr(owner, name)
    return True


def _layers(env: Environment) -> Iterator[Any]:
    """Yield the wrappers of an environment from the outermost inwards."""
    while isinstance(env, gymnasium.Wrapper):
        yield env
        env = env.env
