"""A training run's configuration from a file that was written by hand, or from another run's config.json."""

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from metarl.errors import InputError
from metarl.learning.learner import LEARNERS
from metarl.run.config import RunConfig, TrainConfig
from metarl.run.config_file import ADDED, HASHED, checked_section, refuse_unknown

ENTRIES = ("learner", "family", "run", "settings", "family_overrides")
# Of a run's config.json, what belongs to that run only.
OF_ONE_RUN = ("out", "redraw")


def config_from_file(path: str | Path) -> TrainConfig:
    """Read a configuration from a YAML or JSON file, such as the config.json of a run.

    The entries are ``learner`` and ``family``, and, all optional, ``run`` (settings of ``RunConfig``), ``settings`` (of
    the learner) and ``family_overrides`` (fields of the family); what is left out has its default. The entries that a
    run's config.json has besides these are not read, and neither are its ``out`` and ``redraw``.

    Raises:
        InputError: if the file cannot be read, or an entry is missing, unknown or does not fit.
    """
    content = _read(Path(path).expanduser())
    recorded = "format" in content
    known = {*ENTRIES, *HASHED, *ADDED} if recorded else ENTRIES
    _refuse_misplaced(content, known, path)
    refuse_unknown(content, known, file=str(path))
    if missing := [name for name in ENTRIES[:2] if not isinstance(content.get(name), str)]:
        raise InputError(f"{path} has no {missing[0]}: it needs the names of a learner and a family")
    config_class = LEARNERS.find(content["learner"]).config_class
    run = {
        name: value for name, value in _section(content, "run", path).items() if not (recorded and name in OF_ONE_RUN)
    }
    return TrainConfig(
        content["learner"],
        content["family"],
        checked_section(RunConfig, run, "run", str(path)),
        checked_section(config_class, _section(content, "settings", path), "settings", str(path)),
        _section(content, "family_overrides", path),
    )


def _refuse_misplaced(content: Mapping[str, Any], known: Collection[str], path: str | Path) -> None:
    """Raise ``InputError`` for a setting of the run or of the learner that is not in its section."""
    kinds: dict[str, type] = {"run": RunConfig}
    if isinstance(learner := content.get("learner"), str) and learner in LEARNERS:
        kinds["settings"] = LEARNERS[learner].config_class
    fields = {section: {field.name for field in dataclasses.fields(kind)} for section, kind in kinds.items()}
    places = {
        "": [name for name in content if name not in known],
        **{each: _section(content, each, path) for each in fields},
    }
    for place, names in places.items():
        for name in names:
            right = [section for section, own in fields.items() if name in own]
            if right and place not in right:
                raise InputError(
                    f"{path}: {name} is a setting of {right[0]}: write it there, indented below {right[0]}:"
                )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))  # which reads JSON too
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not YAML or JSON ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold entries such as learner: maml-trpo, not {type(content).__name__}")
    return content


def _section(content: Mapping[str, Any], name: str, path: str | Path) -> dict[str, Any]:
    section = content.get(name) or {}
    if not isinstance(section, dict):
        raise InputError(f"{path}: {name} must hold settings, not {section!r}")
    return section
