"""Things by name: task families, learners, and whatever else a user names on the command line or in a configuration."""

import difflib
from collections.abc import Iterable, Mapping
from importlib import import_module
from pkgutil import walk_packages
from typing import Any, Generic, TypeVar

from metarl.errors import InputError

EntryT = TypeVar("EntryT")


class Registry(dict[str, EntryT], Generic[EntryT]):
    """A table of things by name, which also finds those of modules that have not been imported yet.

    Args:
        kind: what an entry is called in a message.
        listing: the command that lists all of them.
    """

    def __init__(self, kind: str, listing: str) -> None:
        super().__init__()
        self.kind, self.listing = kind, listing

    def find(self, name: str) -> EntryT:
        """Return the entry of that name.

        ``module:name`` imports a module first, as ``gymnasium.make("module:Env-v0")`` does, so that what is registered
        there is known.

        Raises:
            InputError: naming the nearest known names and the command that lists them all, or the module that cannot
                be imported.
        """
        module, colon, _ = name.rpartition(":")
        if colon:
            import_named(module, f"{self.kind} {name!r}")
        return find_by_name(self, own_name(name), self.kind, self.listing)


def own_name(name: str) -> str:
    """Return the name without the module of ``module:name``: what the thing itself is called."""
    return name.rpartition(":")[2]


def find_by_name(table: Mapping[str, EntryT], name: str, kind: str, listing: str) -> EntryT:
    """Look ``name`` up in a table.

    Raises:
        InputError: naming the nearest known names and the command that lists them all.
    """
    if name in table:
        return table[name]
    near = difflib.get_close_matches(name, table, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(table)}"
    raise InputError(f"no {kind} is called {name!r}; {hint} ({listing} lists them)")


def import_named(module: str, what: str) -> Any:
    """Import a module that a user named.

    Args:
        module: its dotted name.
        what: what it was named for, for the message.

    Raises:
        InputError: when there is no such module, or it fails while it is imported.
    """
    try:
        return import_module(module)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(
            f"cannot import {module!r} for the {what} ({reason}); install it or run in its folder"
        ) from error


def import_all(package: str, path: Iterable[str], skip: Iterable[str] = ()) -> None:
    """Import every module of a package and of the packages in it, so that what they register is known.

    Args:
        package: its dotted name.
        path: its ``__path__``.
        skip: modules and packages in it that are left out, by their dotted names in it.
    """
    left_out = [f"{package}.{name}" for name in skip]
    for found in walk_packages(path, f"{package}."):
        if not any(found.name == each or found.name.startswith(f"{each}.") for each in left_out):
            import_module(found.name)
