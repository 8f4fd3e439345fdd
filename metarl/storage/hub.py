"""Trained runs by name: ``hub:NAME`` comes with metarl, ``hub:OWNER/NAME`` from the Hugging Face Hub.

A run named like this is copied to runs/hub/NAME, once, and is then a run directory like any other. A published run is
config.json, metrics.csv, one checkpoint and what belongs to them, with contents.json, the SHA-256 of each of its files.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

from metarl.errors import InputError, RunError
from metarl.registry import find_by_name
from metarl.storage.files import make_folder

PREFIX = "hub:"
SHIPPED = Path(__file__).parents[1] / "shipped"
FOLDER = Path("runs") / "hub"
CONTENTS = "contents.json"
WORD = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
NAMES = re.compile(f"{WORD}(/{WORD}(@{WORD})?)?")  # no part can lead out of FOLDER
# What a published run may consist of; nothing else is downloaded.
FILES = (
    *("config.json", "metrics.csv", "finished.json", "evaluation.json", "adaptation_curve.png", "README.md"),
    *("checkpoints/iteration-*", CONTENTS),
)


def local_path(path: Path | str) -> Path:
    """Return the path of a run directory, which is fetched first if it is named ``hub:NAME`` or ``hub:OWNER/NAME``.

    Raises:
        InputError: if the name is invalid, or there is no run of that name.
        RunError: if it cannot be downloaded, or is damaged.
    """
    text = str(path)
    if not text.startswith(PREFIX):
        return Path(path).expanduser()
    name = text.removeprefix(PREFIX)
    if not NAMES.fullmatch(name):
        raise InputError(
            f"{text!r} is not {PREFIX}NAME, {PREFIX}OWNER/NAME or {PREFIX}OWNER/NAME@REVISION; "
            "metarl hub lists the NAMEs"
        )
    place = FOLDER / name
    return place if (place / "config.json").exists() else fetch(name, place)


def shipped_runs() -> dict[str, Path]:
    """Return the folders of the runs that come with metarl, by name."""
    return {path.parent.name: path.parent for path in sorted(SHIPPED.glob(f"*/{CONTENTS}"))}


def fetch(name: str, place: Path) -> Path:
    """Copy a published run to ``place``, a new folder, and return it.

    Args:
        name: a shipped run's name, or OWNER/NAME on the Hugging Face Hub, with ``@REVISION`` unless it is main.
        place: where the run directory is made, whole or not at all.

    Raises:
        InputError: if there is no run of that name.
        RunError: if it cannot be downloaded, or is damaged.
    """
    if "/" in name:
        return _place(lambda folder: _download(name, folder), name, place)
    source = find_by_name(shipped_runs(), name, "shipped run", "metarl hub")
    return _place(lambda folder: shutil.copytree(source, folder, dirs_exist_ok=True), name, place)


def write_contents(folder: Path) -> None:
    """Write contents.json: the SHA-256 of each of a published run's files."""
    (folder / CONTENTS).write_text(json.dumps(_hashes(folder), indent=2) + "\n")


def _place(fill: Callable[[Path], object], name: str, place: Path) -> Path:
    make_folder(place.parent, f"{PREFIX}{name}")
    with TemporaryDirectory(prefix=".fetching-", dir=place.parent) as temporary:
        folder = Path(temporary) / place.name
        folder.mkdir()
        fill(folder)
        _verify(folder, name)
        try:
            os.replace(folder, place)
        except OSError:
            if not (place / "config.json").exists():  # it is there if another process has just fetched it
                raise
    return place


def _verify(folder: Path, name: str) -> None:
    try:
        expected = json.loads((folder / CONTENTS).read_text())
    except (OSError, ValueError):
        raise InputError(f"{PREFIX}{name} is not a run that metarl push has written: it has no {CONTENTS}") from None
    found = _hashes(folder)
    if wrong := sorted(file for file in {*expected, *found} if expected.get(file) != found.get(file)):
        raise RunError(f"{PREFIX}{name} is damaged: {', '.join(wrong)} differ from {CONTENTS}; nothing was kept")


def _hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of the files of a published run; what a download adds to the folder is left out."""
    files = sorted({path for pattern in FILES for path in folder.glob(pattern)} - {folder / CONTENTS})
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _download(name: str, folder: Path) -> None:
    hub = require_hub()
    hub.utils.disable_progress_bars()
    repository, _, revision = name.partition("@")
    try:
        hub.snapshot_download(repository, revision=revision or None, local_dir=folder, allow_patterns=list(FILES))
    except (hub.errors.RepositoryNotFoundError, hub.errors.RevisionNotFoundError):
        raise InputError(
            f"the Hugging Face Hub has no {name}, or it is private; if so, log in with hf auth login"
        ) from None
    except (hub.errors.HTTPError, hub.errors.LocalEntryNotFoundError) as error:
        raise RunError(f"{PREFIX}{name} cannot be downloaded: {str(error).splitlines()[0]}") from None
    shutil.rmtree(folder / ".cache", ignore_errors=True)


def require_hub() -> ModuleType:
    """Return the module huggingface_hub.

    Raises:
        InputError: if it is not installed.
    """
    try:
        import huggingface_hub
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ImportError:
        raise InputError("the Hugging Face Hub needs the extra hub: pip install 'metarl-gym[hub]'") from None
    return huggingface_hub
