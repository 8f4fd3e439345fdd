"""The fields of a family as settings of a run: names, types and help texts."""

import dataclasses
import re
from collections.abc import Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from metarl.errors import InputError
from metarl.families.family import FAMILIES, TaskFamily, make_family

PLAIN = (bool, int, float, str, NoneType)
HORIZON = "use --horizon"
NO_TEXT = "it is not a number, a string or a list of them; set it in Python, in a family of your own"


def settable(family: type[TaskFamily]) -> dict[str, Any]:
    """Return the types of the fields that a run can set, by name."""
    return {name: kind for name, kind in _fields(family).items() if _obstacle(name, kind) is None}


def not_settable(family: type[TaskFamily]) -> dict[str, str]:
    """Return why a run cannot set the other fields, by name."""
    obstacles = {name: _obstacle(name, kind) for name, kind in _fields(family).items()}
    return {name: reason for name, reason in obstacles.items() if reason is not None}


def checked_settings(family: type[TaskFamily], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings converted to the types of their fields, such as lists from a JSON file to tuples.

    Raises:
        InputError: for a field that does not exist or cannot be set, and a value of the wrong type.
    """
    known, others = settable(family), not_settable(family)
    checked = {}
    for name, value in settings.items():
        if name in others:
            raise InputError(f"{family.name}: a run cannot set {name}; {others[name]}")
        if name not in known:
            raise InputError(f"{family.name} has no setting {name!r}; it has {sorted(known)}")
        try:
            checked[name] = TypeAdapter(known[name]).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise InputError(f"{family.name}: {name} = {value!r} is invalid ({reason})") from None
    return checked


def preset_and_settings(family: TaskFamily, preset: str | None = None) -> tuple[str, str, dict[str, Any]]:
    """Return the name and the preset that make a family, and the fields in which it differs from the preset.

    Args:
        family: of a registered class.
        preset: name of the preset; by default the one from which the fewest fields differ.

    Raises:
        InputError: if it is not a family, or its class is not registered or has no such preset.
    """
    kind = type(family)
    if not isinstance(family, TaskFamily):
        raise InputError(f"a run needs a family or its name, not {family!r}; metarl.make_family makes one")
    if FAMILIES.get(family.name) is not kind:
        raise InputError(
            f"a run needs a family that it can make again from its name; {kind.__name__} is not registered as "
            f"{family.name!r}: decorate it, or a subclass with a name, an env_id and presets of its own, with "
            "metarl.families.family.register_family"
        )
    chosen = min(family.presets, key=lambda each: len(_differences(family, each))) if preset is None else preset
    # metarl imports its own families by itself, and no other process can import __main__.
    plain = kind.__module__ == "__main__" or kind.__module__.startswith("metarl.")
    name = family.name if plain else f"{kind.__module__}:{family.name}"
    return name, chosen, _differences(family, chosen)


def _differences(family: TaskFamily, preset: str) -> dict[str, Any]:
    base = make_family(family.name, preset)
    return {
        name: getattr(family, name) for name in _fields(type(family)) if getattr(family, name) != getattr(base, name)
    }


@cache
def explanations(family: type[TaskFamily]) -> dict[str, str]:
    """Return the descriptions of the fields in the ``Attributes`` sections of a family and its parents."""
    found: dict[str, str] = {}
    for kind in reversed(family.__mro__):
        section = re.search(r"^    Attributes:\n((?:        .*\n|\n)*)", f"{kind.__doc__ or ''}\n", re.MULTILINE)
        entries = re.findall(r"^        (\w+): (.*(?:\n            .*)*)", section[1] if section else "", re.MULTILINE)
        found |= {name: " ".join(text.split()) for name, text in entries}
    return found


def _fields(family: type[TaskFamily]) -> dict[str, Any]:
    try:
        hints = get_type_hints(family)
    except NameError:  # annotations imported only for type checking stay strings
        hints = {}
    fields = dataclasses.fields(family)  # type: ignore[arg-type]
    return {field.name: hints.get(field.name, field.type) for field in fields}


def _obstacle(name: str, kind: Any) -> str | None:
    if name == "horizon":
        return HORIZON
    return None if _is_plain(kind) else NO_TEXT


def _is_plain(kind: Any) -> bool:
    """Return whether values of a type can be written on the command line: numbers, strings, and tuples of them."""
    origin = get_origin(kind)
    if origin is Literal:
        return True
    if origin in (Union, UnionType, tuple):
        return all(_is_plain(part) for part in get_args(kind) if part is not Ellipsis)
    return kind in PLAIN
