"""Things by name, also those of modules that nobody has imported yet."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from metarl.errors import InputError
from metarl.registry import Registry, find_by_name, own_name

PLUGIN = """
import tests.metarl.test_registry as here
here.FRUITS["quince"] = 4
"""
FRUITS: Registry[int] = Registry("fruit", "ls fruits")


@pytest.fixture
def fruits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry[int]]:
    """Return a table of two entries, next to a module that registers a third."""
    (tmp_path / "orchard.py").write_text(PLUGIN)
    (tmp_path / "grove.py").write_text(f"{PLUGIN}\nclass Plum: pass\nhere.FRUITS['plum'] = Plum")
    (tmp_path / "broken.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    FRUITS.update(apple=1, pear=2)
    yield FRUITS
    FRUITS.clear()
    sys.modules.pop("orchard", None)


def test_find_by_name_returns_the_entry() -> None:
    assert find_by_name({"a": 1, "b": 2}, "b", "thing", "metarl things") == 2


def test_a_known_name_is_found(fruits: Registry[int]) -> None:
    assert fruits.find("pear") == 2


def test_the_module_of_a_name_is_imported_first(fruits: Registry[int]) -> None:
    assert fruits.find("orchard:quince") == 4


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("peer", r"no fruit is called 'peer'; did you mean pear\? \(ls fruits lists them\)"),
        ("xyz", r"no fruit is called 'xyz'; known: apple, pear \(ls fruits lists them\)"),
        ("orchard:quinze", r"orchard registers no fruit called 'quinze', none: decorate its class \(docs/how-do-i"),
        ("grove:Plum", "grove registers no fruit called 'Plum', only plum$"),
        (
            "nowhere:quince",
            "cannot import 'nowhere' for the fruit 'nowhere:quince' .*No module named 'nowhere'.; install",
        ),
        ("broken:quince", "cannot import 'broken' for the fruit 'broken:quince' .*division by zero.*; correct it"),
        (":quince", "cannot import ''"),
    ],
)
def test_what_is_not_there_is_refused(fruits: Registry[int], name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fruits.find(name)


def test_a_name_is_its_own_without_the_module() -> None:
    assert (own_name("orchard.old:quince"), own_name("pear")) == ("quince", "pear")
