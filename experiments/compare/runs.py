"""The runs of a comparison: checks that their tasks are the same, and grouping of seeds into learners."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from metarl.errors import InputError
from metarl.evaluation.evaluate import load_run
from metarl.families.family import TaskFamily
from metarl.learning.learner import Learner
from metarl.run.config import TrainConfig
from metarl.run.directory import CheckpointChoice, RunDirectory

# Settings of a run that affect the trained learner; the others affect where it ran and on which tasks.
TRAINING_SETTINGS = (
    *("iterations", "tasks_per_batch", "episodes_per_task"),
    *("task_source", "train_tasks", "plr", "stream", "changing"),
)
LONGEST_LABEL = 48


@dataclass(frozen=True)
class Run:
    """A trained run: directory, configuration, learner and number of iterations."""

    path: str
    config: TrainConfig
    learner: Learner
    iteration: int

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The settings that affect the trained learner, by name; nested ones as ``outer.inner``."""
        run = dataclasses.asdict(self.config.run)
        own = {name: run[name] for name in TRAINING_SETTINGS}
        # Seeds may have a data set each, and start from a run each.
        kinds = {
            "data": "sampled" if self.config.run.data is None else "recorded",
            "start_from": None if self.config.run.start_from is None else "a run",
        }
        return dict(_flat(own | kinds | dataclasses.asdict(self.config.settings)))

    @cached_property
    def family(self) -> TaskFamily:
        """The task family, as observed by the learner."""
        return self.config.make_family()


def read_runs(paths: Sequence[str], device: str | None = None, checkpoint: CheckpointChoice = "latest") -> list[Run]:
    """Read the run directories to compare.

    Raises:
        InputError: if there is none, one is missing, damaged or given twice, or two have different tasks.
    """
    if not paths:
        raise InputError("compare needs the directories of the runs, one or more")
    resolved = [RunDirectory(path).path.resolve() for path in paths]
    for number, path in enumerate(resolved):
        if path in resolved[:number]:
            raise InputError(f"{paths[number]} is given twice; give each run once")
    runs = [Run(path, *load_run(path, device, checkpoint)) for path in paths]
    for run in runs[1:]:
        _require_same_tasks(runs[0], run)
    return runs


def group_runs(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Group the runs into entries, sorted by seed, under labels of the learner and its distinguishing settings.

    Raises:
        InputError: for two runs of an entry with the same seed, which must be copies.
    """
    groups: list[list[Run]] = []
    for run in runs:
        alike = (group for group in groups if _same_learner(group[0], run))
        if (group := next(alike, None)) is None:
            groups.append([run])
            continue
        if twin := next((other for other in group if other.config.run.seed == run.config.run.seed), None):
            raise InputError(
                f"{twin.path} and {run.path} are both {run.config.learner_name} of seed {run.config.run.seed} with the "
                "same settings; intervals need runs of different seeds"
            )
        group.append(run)
    first = [group[0] for group in groups]
    return {_label(group[0], first): sorted(group, key=lambda run: run.config.run.seed) for group in groups}


def _require_same_tasks(one: Run, other: Run) -> None:
    """Check that two runs have the same tasks.

    Raises:
        InputError: naming the runs and the first difference.
    """
    first, second = (_task_settings(run) for run in (one, other))
    for name in first:
        if first[name] != second.get(name):
            raise InputError(
                f"{one.path} and {other.path} cannot be compared because their tasks differ: {name} is "
                f"{first[name]} in the first and {second.get(name)} in the second"
            )


def _task_settings(run: Run) -> dict[str, Any]:
    config = run.config
    chosen = {"family": config.family_name, "preset": config.preset}
    return chosen | dict(_flat(run.family.settings())) | {"split_seed": config.run.split_seed}


def _same_learner(one: Run, other: Run) -> bool:
    return one.config.learner_name == other.config.learner_name and one.settings == other.settings


def _label(run: Run, others: Sequence[Run]) -> str:
    """Return the learner's name with the settings that distinguish it from other entries of the same learner.

    Settings that the label always shows come first, only by value; if they suffice, no others are shown.
    """
    namesakes = [other for other in others if other.config.learner_name == run.config.learner_name]
    always = list(run.learner.label_settings)
    shown = [*always]
    if not always or not _are_distinct(namesakes, always):
        shown += [name for name in _differing_settings(namesakes) if name not in always]
    words = [str(run.settings[name]) if name in always else f"{name} {run.settings[name]}" for name in shown]
    if sum(map(len, words)) > LONGEST_LABEL:
        enough = (count for count in range(1, len(shown) + 1) if _are_distinct(namesakes, shown[:count]))
        kept = next(enough)
        words = [*words[:kept], "..."] if kept < len(words) else words
    return f"{run.config.learner_name} ({', '.join(words)})" if words else run.config.learner_name


def _differing_settings(runs: Sequence[Run]) -> list[str]:
    """Return the settings that differ between runs of a learner, those with the most values first."""
    values = {name: len({str(run.settings[name]) for run in runs}) for name in runs[0].settings}
    return sorted((name for name, count in values.items() if count > 1), key=lambda name: -values[name])


def _are_distinct(runs: Sequence[Run], names: Sequence[str]) -> bool:
    """Return whether no two runs have the same values of these settings."""
    return len({tuple(str(run.settings[name]) for name in names) for run in runs}) == len(runs)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
