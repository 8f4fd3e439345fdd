"""Registries: task families, learners, and everything else that users refer to by name."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from importlib import import_module
from pkgutil import walk_packages
from typing import Any, TypeVar

from metarl.errors import InputError

EntryT = TypeVar("EntryT")


class Registry(MutableMapping[str, EntryT]):
    """A table of entries by name, which also finds entries of modules that have not been imported yet.

    Args:
        kind: what an entry is called in messages.
        listing: the command that lists all entries.
        package: the package whose modules register entries, imported when the table is first read.
    """

    def __init__(self, kind: str, listing: str, package: str | None = None) -> None:
        self.kind, self.listing = kind, listing
        self._entries: dict[str, EntryT] = {}
        self._package = package

    @property
    def entries(self) -> dict[str, EntryT]:
        """All entries, after importing the package."""
        if self._package is not None:
            package, self._package = self._package, None  # before importing it: its modules may read the table
            import_module(package)
        return self._entries

    def __getitem__(self, name: str) -> EntryT:
        """Return an entry."""
        return self.entries[name]

    def __setitem__(self, name: str, entry: EntryT) -> None:
        """Register an entry, without importing the package."""
        self._entries[name] = entry

    def __delitem__(self, name: str) -> None:
        """Remove an entry."""
        del self.entries[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self.entries)

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self.entries)

    def find(self, name: str) -> EntryT:
        """Return the entry of that name.

        ``module:name`` imports a module first, which registers its entries, as ``gymnasium.make("module:Env-v0")``
        does.

        Raises:
            InputError: naming the closest known names and the command that lists them all, or the module that cannot be
                imported.
        """
        module, colon, _ = name.rpartition(":")
        if colon:
            import_named(module, f"{self.kind} {name!r}")
            self._require_registered(module, own_name(name))
        return find_by_name(self, own_name(name), self.kind, self.listing)

    def _require_registered(self, module: str, name: str) -> None:
        if name in self:
            return
        homes = {known: getattr(entry, "__module__", "") for known, entry in self.entries.items()}
        there = [known for known, home in homes.items() if home == module or home.startswith(f"{module}.")]
        found = f"only {', '.join(there)}" if there else "none: decorate its class (docs/how-do-i/use-my-own.md)"
        raise InputError(f"{module} registers no {self.kind} called {name!r}, {found}")


def own_name(name: str) -> str:
    """Return the name without the module of ``module:name``."""
    return name.rpartition(":")[2]


def find_by_name(table: Mapping[str, EntryT], name: str, kind: str, listing: str) -> EntryT:
    """Look ``name`` up in a table.

    Raises:
        InputError: naming the closest known names and the command that lists them all.
    """
    if name in table:
        return table[name]
    near = difflib.get_close_matches(name, table, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(table)}"
    raise InputError(f"no {kind} is called {name!r}; {hint} ({listing} lists them)")


def import_named(module: str, what: str) -> Any:
    """Import a module named by the user.

    Args:
        module: its dotted name.
        what: what the module is needed for, for the message.

    Raises:
        InputError: if there is no such module, or importing it fails.
    """
    try:
        return import_module(module)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        advice = "install it or run in its folder" if isinstance(error, ModuleNotFoundError) else "correct it"
        raise InputError(f"cannot import {module!r} for the {what} ({reason}); {advice}") from error


def import_all(package: str, path: Iterable[str], skip: Iterable[str] = ()) -> None:
    """Import every module of a package and its subpackages, which registers their entries.

    Args:
        package: its dotted name.
        path: its ``__path__``.
        skip: modules and subpackages to leave out, by their dotted names relative to the package.
    """
    left_out = [f"{package}.{name}" for name in skip]
    for found in walk_packages(path, f"{package}."):
        if not any(found.name == each or found.name.startswith(f"{each}.") for each in left_out):
            import_module(found.name)
