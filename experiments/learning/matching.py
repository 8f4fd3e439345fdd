"""Whether a recorded configuration is the one that a comparison has now."""

import json
from typing import Any

from metarl.run.config import TrainConfig

# Settings of a run that do not affect its numbers.
PLACE = ("out", "data", "track", "checkpoint_every", "validate_every", "group")


def plain_settings(config: TrainConfig) -> dict[str, Any]:
    """Return a run's configuration without its seed, its paths and the versions it is run with."""
    content: dict[str, Any] = json.loads(json.dumps(config.to_json()))
    del content["versions"]
    for name in ("seed", *PLACE):
        del content["run"][name]
    return content


def matches(content: dict[str, Any], config: TrainConfig, *but: str) -> bool:
    """Return whether a recorded configuration equals this one, except for its path and the given run settings."""
    now, plain = (
        json.loads(json.dumps(each.to_json())) for each in (config, TrainConfig(config.learner, config.family))
    )
    if any(content.get(name) != now[name] for name in ("learner", "family", "preset", "split_hash")):
        return False
    run = {name: value for name, value in content["run"].items() if name not in (*PLACE, *but)}
    own = {name: value for name, value in now["run"].items() if name not in (*PLACE, *but)}
    return _same(run, own, plain["run"]) and _same(content["settings"], now["settings"], plain["settings"])


def _same(recorded: dict[str, Any], now: dict[str, Any], defaults: dict[str, Any]) -> bool:
    """Return whether settings equal the recorded ones; settings newer than the record must have their defaults."""
    if set(recorded) - set(now):
        return False
    for name, value in now.items():
        before = recorded.get(name, defaults[name])
        if isinstance(value, dict) and isinstance(before, dict):
            if not _same(before, value, defaults[name]):
                return False
        elif before != value:
            return False
    return True
