"""C++ that is compiled where it can be, and done without where it cannot."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from metarl.devices import native

pytestmark = pytest.mark.skipif(native.instructions() is None, reason="nothing is compiled on this machine")


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file to compile, with an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "seven.cpp"
    file.write_text('extern "C" int seven() { return 7; }')
    native.library.cache_clear()
    yield file
    native.library.cache_clear()


def seven(source: Path) -> int:
    """Return what the compiled function does."""
    found = native.library(source)
    assert found is not None
    value: int = found.seven()
    return value


def test_a_library_is_compiled_once(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert seven(source) == 7
    native.library.cache_clear()
    monkeypatch.setattr(subprocess, "run", None)
    assert seven(source) == 7


def test_another_source_is_another_library(source: Path) -> None:
    assert seven(source) == 7
    source.write_text('extern "C" int seven() { return 8; }')
    native.library.cache_clear()
    assert seven(source) == 8


def test_without_a_cache_it_is_compiled_anew(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert seven(source) == 7


@pytest.mark.parametrize(("name", "value"), [("CXX", "no-such-compiler"), ("METARL_COMPILE", "0")])
def test_without_a_compiler_there_is_none(source: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert native.instructions() is None
    assert native.library(source) is None


def test_a_compiler_that_fails_is_said_and_leaves_nothing(source: Path, tmp_path: Path) -> None:
    source.write_text("no C++")
    with pytest.warns(UserWarning, match=r"could not compile seven\.cpp \(.*error.*METARL_COMPILE=0"):
        assert native.library(source) is None
    assert not list((tmp_path / "cache" / "metarl").iterdir())


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_parts_are_all_of_it_in_order(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    parts = native.in_threads(lambda first, last: list(range(first, last)), 7)
    assert len(parts) == threads
    assert [number for part in parts for number in part] == list(range(7))
