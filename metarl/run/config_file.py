"""Checks of config.json: no unknown entries, and no changes since the run was started."""

import dataclasses
import difflib
import hashlib
import json
import warnings
from collections.abc import Collection, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError

from metarl.devices.native import instructions
from metarl.errors import InputError

# Settings of a run that may change when it is resumed.
CHANGEABLE = (
    *("iterations", "device", "out", "data", "track", "group", "labels", "histogram_every"),
    *("checkpoint_every", "checkpoint_minutes", "redraw"),
)
# What determines a run's results: its settings; the machine and the recorded episodes they were used with.
HASHED = (
    *("learner", "family", "preset", "split_hash", "run", "settings"),
    *("family_overrides", "family_settings", "numbers"),
)
RECORDED_VERSIONS = ("metarl-gym", "torch", "mujoco", "gymnasium", "numpy")
CONDITIONS = ("versions", "torch_threads", "data_hash")
# What training and the run directory add to the configuration.
ADDED = ("format", "tracking_id", "config_hash", *CONDITIONS)


def hashed_settings(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings in a config.json that may not change on resume, as JSON values."""
    run = {name: value for name, value in content["run"].items() if name not in CHANGEABLE}
    settings = {**{name: content.get(name) for name in HASHED}, "run": run}
    kept: dict[str, Any] = json.loads(json.dumps(settings))
    return kept


def config_hash(content: Mapping[str, Any]) -> str:
    """Return the hash of ``HASHED`` and ``CONDITIONS``, stored in config.json and in every checkpoint of the run."""
    hashed = {**hashed_settings(content), **{name: content.get(name) for name in CONDITIONS}}
    return hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()[:16]


def refuse_unknown(
    content: Mapping[str, Any], known: Collection[str], where: str = "", file: str = "config.json"
) -> None:
    """Raise ``InputError`` for the first unknown key, naming the closest known one."""
    for name in dict(content):
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1, 0.5)
            hint = f"; did you mean {where}{near[0]}?" if near else ""
            raise InputError(f"{file} has an unknown entry {where + str(name)!r}{hint}")


def refuse_unknown_settings(kind: type, content: Mapping[str, Any], where: str, file: str = "config.json") -> None:
    """Raise ``InputError`` for an entry that is not a field of a dataclass or of the dataclasses nested in it."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    refuse_unknown(content, fields, where, file)
    for name, value in content.items():
        default = fields[name].default_factory
        if isinstance(value, dict) and isinstance(default, type) and dataclasses.is_dataclass(default):
            refuse_unknown_settings(default, value, f"{where}{name}.", file)


@cache
def adapter(kind: Any) -> TypeAdapter[Any]:
    """Return pydantic's adapter of a type, which takes milliseconds to make."""
    return TypeAdapter(kind)


def plain(value: Any) -> Any:
    """Return a path, a torch device or a number of NumPy as JSON has it, and anything else as it is."""
    if isinstance(value, Path | torch.device):
        return str(value)
    return value.item() if isinstance(value, np.generic) else value


def checked_section(config_class: type, given: Mapping[str, Any], section: str, file: str) -> Any:
    """Return settings as their dataclass, with values of its types; those left out have their defaults.

    Raises:
        InputError: for an unknown setting, naming the closest known one, and for a value of the wrong type.
    """
    refuse_unknown_settings(config_class, given, f"{section}.", file)
    try:
        return adapter(config_class).validate_python({name: plain(value) for name, value in given.items()})
    except ValidationError as error:
        raise InputError(f"{file}: {fault_in(error, section)}") from None


def fault_in(error: Exception, section: str = "") -> str:
    """Return in one line what is wrong; for a value of a wrong type its name, in ``section`` or its dataclass."""
    if not isinstance(error, ValidationError):
        return str(error).splitlines()[0]
    first = error.errors()[0]
    where = ".".join([section or error.title, *map(str, first["loc"])])
    return f"{where} = {first['input']!r} is invalid ({first['msg']})"


def refuse_changes(content: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse a config.json that was edited, or whose family's settings have changed.

    Args:
        content: content of the file.
        now: what this version of metarl writes for the same configuration.

    Raises:
        InputError: naming the entry that differs, if it is known.
    """
    fresh = json.loads(json.dumps(now))
    for name in ("preset", "family_settings"):
        if content[name] != fresh[name]:
            was, found = _difference(content[name], fresh[name])
            raise InputError(f"config.json has {name} {was}, but the run was started with {found}; restore it")
    expected, found = content["config_hash"], config_hash(content)
    if expected != found:
        raise InputError(
            f"config.json has been changed since the run was started (hash {expected}, now {found}); restore it: only "
            f"{', '.join(CHANGEABLE)} may be changed (metarl train --resume RUN --iterations N --device D)"
        )


def refuse_old_numbers(content: Mapping[str, Any], numbers: int) -> None:
    """Refuse to resume a run of an older version of the learner's arithmetic.

    Raises:
        InputError: if the run was started with another version.
    """
    if not isinstance(content.get("tracking_id"), str):
        raise InputError("config.json has no tracking_id, which identifies the tracked run; restore the file")
    if content["numbers"] != numbers:
        raise InputError(
            f"{content['learner']} has computed different numbers since its version {numbers}, and the run was started "
            f"with version {content['numbers']}; it can be evaluated but not continued: start a new run"
        )


# Reading a version parses the whole description of a package.
_version = cache(version)


def recorded_versions() -> dict[str, str]:
    """Return the versions of the libraries that results depend on, and what this package is compiled for, if it is."""
    return {**{name: _version(name) for name in RECORDED_VERSIONS}, "compiled": instructions() or "no"}


def warn_of_other_versions(content: Mapping[str, Any]) -> None:
    """Warn in one line about libraries whose versions differ from those at the start of the run."""
    pairs = [(name, content["versions"].get(name), now) for name, now in recorded_versions().items()]
    changed = [f"{name} {before} -> {now}" for name, before, now in pairs if before != now]
    if changed:
        warnings.warn(
            f"the run was started with other versions, so numbers may differ: {', '.join(changed)}", stacklevel=2
        )


def _difference(was: Any, now: Any) -> tuple[Any, Any]:
    """Return the first differing entries of two values, as text."""
    if not (isinstance(was, dict) and isinstance(now, dict)):
        return repr(was), repr(now)
    name = next(key for key in [*was, *now] if was.get(key) != now.get(key))
    return f"{name}={was.get(name)!r}", f"{name}={now.get(name)!r}"
