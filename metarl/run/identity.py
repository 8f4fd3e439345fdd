"""Which run a checkpoint belongs to, and whether a run directory is a copy of another."""

import socket
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metarl.errors import InputError
from metarl.run.config_file import config_hash
from metarl.run.directory import RunDirectory

COPY = "-copy-"


def run_id(tracking_id: str) -> str:
    """Return the id of a run, shared by its copies."""
    return tracking_id.partition(COPY)[0]


def check_belongs(directory: RunDirectory, file: Path, content: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Check that a checkpoint belongs to the run described by a config.json.

    Raises:
        InputError: if it belongs to another run, or a fixed setting has changed since.
    """
    try:
        same_run = run_id(content["tracking_id"]) == run_id(config["tracking_id"])
        same_settings = content["config_hash"] == config_hash(config)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} does not match the run's config.json: {error} is missing in one of them") from None
    if not same_run:
        raise InputError(f"{file} is a checkpoint of another run (tracking_id {content['tracking_id']}); remove it")
    if not same_settings:
        raise InputError(
            f"{file} does not match the run's config.json, whose settings are not those of training; restore "
            f"{directory.config}"
        )


def tracking_id_of(directory: RunDirectory, config: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    """Return the tracking id to resume a run with: a new one for a copy, so that two runs never log as one.

    A run directory that was moved on the same machine keeps its id. One from another machine may have been moved or
    copied, so it counts as a copy.
    """
    own: str = config["tracking_id"]
    before, here = content["place"], place_of(directory)
    moved = before["host"] == here["host"] and not (Path(before["path"]) / directory.config.name).exists()
    if own != content["tracking_id"] or before["path"] == here["path"] or moved:
        return own
    new = f"{run_id(own)}{COPY}{uuid.uuid4().hex[:6]}"
    if config["run"]["track"] != "disabled":
        print(f"metarl: this is a copy of {before['path']}; it is tracked as a run of its own, {new}", file=sys.stderr)
    return new


def place_of(directory: RunDirectory) -> dict[str, str]:
    """Return where a run directory is: the machine's name and the resolved path."""
    return {"host": socket.gethostname(), "path": str(directory.path.resolve())}
