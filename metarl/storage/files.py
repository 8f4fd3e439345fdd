"""Atomic writing of files: they are complete or absent, whatever happens to the process."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from metarl.errors import InputError


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write`` on a temporary file, and move it to ``path`` once it is on disk.

    Raises:
        OSError: with ``path`` as its file name, if writing fails.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        write(temporary)
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a mapping as indented JSON."""
    write_whole(path, lambda part: part.write_text(json.dumps(content, indent=2) + "\n"))


def make_folder(path: Path, content: str) -> bool:
    """Create a folder for ``content`` if needed; return whether it is empty.

    Raises:
        InputError: if it cannot be written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        empty = not any(path.iterdir())
        probe = path / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"cannot write {content} to {path}: {error.strerror}; choose another --out") from None
    return empty
