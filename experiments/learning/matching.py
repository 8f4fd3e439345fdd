"""Whether a recorded configuration is the one that a comparison has now."""

import json
from typing import Any

from metarl.experiments.learning.variant import Recording
from metarl.run.config import TrainConfig

# Settings of a run that do not affect its numbers.
PLACE = ("out", "data", "track", "checkpoint_every", "validate_every", "group")


def describe_recording(recording: Recording | None) -> dict[str, Any] | None:
    """Return a description of the recorded data that a variant is trained on, for its results file."""
    if recording is None:
        return None
    settings = {"config": plain_settings(recording.config), "tasks": recording.tasks, "episodes": recording.episodes}
    if recording.steps is not None:
        settings["steps"] = recording.steps
    return settings | ({"best_actions": True} if recording.best_actions else {})


def matches_recording(content: dict[str, Any] | None, recording: Recording | None) -> bool:
    """Return whether a results file comes from training on data recorded in this way."""
    now = describe_recording(recording)
    if content is None or recording is None or now is None:
        return content is now
    counted, count = ({name: value for name, value in each.items() if name != "config"} for each in (content, now))
    return counted == count and matches(content["config"], recording.config, "seed")


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
