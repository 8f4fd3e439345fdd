"""Runs to compare, trained in milliseconds."""

import dataclasses
from pathlib import Path
from typing import Any

import metarl
from metarl.learning.learner import LEARNERS
from metarl.run.config import RunConfig, TrainConfig


def trained(path: Path, learner: str, family: str, seed: int, **settings: Any) -> str:
    """Train for an iteration; return the directory. Settings are the run's or, by name, the learner's."""
    names = {field.name for field in dataclasses.fields(RunConfig)}
    small = {"iterations": 1, "tasks_per_batch": 2, "episodes_per_task": 3, "track": "disabled"}
    run = RunConfig(**{**small, **{name: value for name, value in settings.items() if name in names}}, seed=seed)
    own = {name: value for name, value in settings.items() if name not in names}
    config = TrainConfig(learner, family, dataclasses.replace(run, out=str(path)), _small(learner, own))
    return str(metarl.train(config).path)


def _small(learner: str, own: dict[str, Any]) -> Any:
    config_class = LEARNERS.find(learner).config_class
    sizes = {"hidden_sizes": (4,)} if "hidden_sizes" in {f.name for f in dataclasses.fields(config_class)} else {}
    return config_class(**{**sizes, **own})
