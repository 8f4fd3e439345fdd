"""What ``metarl compare`` compares: runs that differ in their seed alone are one entry, and all meet the same tasks."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tensordict import TensorDict
from tqdm import tqdm

from metarl.config import TrainConfig
from metarl.errors import InputError
from metarl.evaluation import AdaptationCurve, evaluate_learner, load_run
from metarl.family import Source, TaskFamily
from metarl.learner import Learner
from metarl.metrics import task_table
from metarl.references import Reference
from metarl.run_directory import CheckpointChoice
from metarl.statistics import Over

# What of a run's own settings makes another learner of it; the others say where it ran and on which tasks.
TRAINING_SETTINGS = ("iterations", "tasks_per_batch", "episodes_per_task")
VARIANT = "variant"
LONGEST_LABEL = 48


@dataclass(frozen=True)
class Run:
    """A trained run: its directory, its configuration, its learner, and the iterations that it was trained for."""

    path: str
    config: TrainConfig
    learner: Learner
    iteration: int

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What makes its learner what it is, by name; of nested settings ``outer.inner``."""
        own = {name: getattr(self.config.run, name) for name in TRAINING_SETTINGS}
        return own | dict(_flat(dataclasses.asdict(self.config.settings)))

    @cached_property
    def family(self) -> TaskFamily:
        """The task family, as it is for a learner without a view of its own."""
        return self.config.make_family().base


@dataclass(frozen=True)
class Protocol:
    """How every run is measured.

    Attributes:
        tasks: how many; a finite family may have fewer to give.
        steps: adaptation steps by the learner's name, and under "" those of all others; by default each learner's own.
        episodes: per task and step; by default those of each run's training.
        part: which tasks.
        deterministic: measure the policy's mode instead of sampled actions.
        seed: of environments and actions.
        checkpoint: which of each run.
    """

    tasks: int
    steps: Mapping[str, int]
    episodes: int | None
    part: Source
    deterministic: bool
    seed: int
    checkpoint: CheckpointChoice = "latest"

    def measure(self, run: Run) -> AdaptationCurve:
        """Return the numbers of ``metarl.evaluate``; neither the learner nor its directory is changed."""
        steps = self.steps.get(run.config.learner, self.steps.get(""))
        return evaluate_learner(
            run.config, run.learner, self.tasks, steps, self.episodes, self.seed, self.part, self.deterministic
        )


@dataclass(frozen=True)
class Entry:
    """A learner with its settings, trained with S seeds and measured on N tasks before and after K adaptation steps."""

    label: str
    runs: Sequence[Run]
    curves: Sequence[AdaptationCurve]

    @property
    def returns(self) -> np.ndarray:
        """Returns ``[S, N, K + 1]``."""
        return np.stack([curve.returns for curve in self.curves])

    @property
    def success(self) -> np.ndarray | None:
        """Shares of successful episodes ``[S, N, K + 1]``, where the family tells."""
        told = [curve.success for curve in self.curves if curve.success is not None]
        return np.stack(told) if told else None

    @property
    def env_steps(self) -> np.ndarray:
        """Env steps spent on a task before each column's episodes ``[K + 1]``, mean over seeds."""
        spent: np.ndarray = np.stack([curve.env_steps for curve in self.curves]).mean(0)
        return spent

    @property
    def last(self) -> int:
        """The last step K."""
        return len(self.curves[0].env_steps) - 1

    @property
    def training_step(self) -> int | None:
        """The step after which the learner has adapted as in training, if it does so there and it was measured."""
        steps = self.runs[0].learner.inner_steps
        return steps if 0 < steps <= self.last else None


@dataclass(frozen=True)
class Comparison:
    """Entries that were measured on the same tasks."""

    entries: Sequence[Entry]
    protocol: Protocol

    @property
    def example(self) -> Run:
        """A run, for what all of them share."""
        return self.entries[0].runs[0]

    @property
    def tasks(self) -> TensorDict:
        """The tasks ``[N]``."""
        return self.entries[0].curves[0].tasks

    @cached_property
    def reference(self) -> Reference | None:
        """What learners earn that cannot adapt or know the task, if that is known; of tasks of the distribution."""
        return None if self.protocol.part == "ood" else self.example.config.find_reference()

    @cached_property
    def over(self) -> Over:
        """What intervals speak of: of other seeds alone, where the tasks are all that the family has."""
        every = self.example.family.all_tasks()
        several = all(len(entry.runs) > 1 for entry in self.entries)
        return "seeds" if several and every is not None and len(every) == len(self.tasks) else "both"

    @property
    def others(self) -> str:
        """What intervals speak of, in words."""
        if self.over == "seeds":
            return "seeds, the tasks being all that there are"
        several = any(len(entry.runs) > 1 for entry in self.entries)
        return "seeds and tasks" if several else "tasks, each learner having one seed"

    def parameters(self) -> tuple[list[str], list[list[Any]]]:
        """Return the names of the task parameters, and a row of values for each task."""
        names, rows = task_table(self.entries[0].curves[0])
        end = names.index("return_0")
        return names[1:end], [row[1:end] for row in rows]


def read_runs(paths: Sequence[str], device: str | None = None, checkpoint: CheckpointChoice = "latest") -> list[Run]:
    """Read run directories that can be compared.

    Raises:
        InputError: when there is none; when one is missing, damaged or there twice; when two are of different tasks.
    """
    if not paths:
        raise InputError("compare needs the directories of the runs, one or more")
    places = [Path(path).resolve() for path in paths]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise InputError(f"{paths[number]} is given twice; a run counts once")
    runs = [Run(path, *load_run(path, device, checkpoint)) for path in paths]
    for run in runs[1:]:
        _require_same_tasks(runs[0], run)
    return runs


def grouped(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return the runs of each entry, by seed, under its label: the learner, and how it differs from others of its name.

    Raises:
        InputError: for two runs of an entry with the same seed, which are one run and its copy.
    """
    groups: list[list[Run]] = []
    for run in runs:
        alike = (group for group in groups if _same_learner(group[0], run))
        if (group := next(alike, None)) is None:
            groups.append([run])
            continue
        if twin := next((other for other in group if other.config.run.seed == run.config.run.seed), None):
            raise InputError(
                f"{twin.path} and {run.path} are both {run.config.learner} of seed {run.config.run.seed} with the "
                "same settings; intervals need runs of different seeds"
            )
        group.append(run)
    first = [group[0] for group in groups]
    return {_label(group[0], first): sorted(group, key=lambda run: run.config.run.seed) for group in groups}


def measure(groups: Mapping[str, Sequence[Run]], protocol: Protocol) -> Comparison:
    """Evaluate every run, once; progress is shown when standard error is a terminal.

    Raises:
        RunError: when sampling fails.
    """
    entries = []
    with tqdm(total=sum(map(len, groups.values())), disable=None, unit="run") as bar:
        for label, runs in groups.items():
            curves = []
            for run in runs:
                bar.set_description(run.path)
                curves.append(protocol.measure(run))
                bar.update()
            entries.append(Entry(label, runs, curves))
    return Comparison(entries, protocol)


def check_protocol(groups: Mapping[str, Sequence[Run]], protocol: Protocol) -> None:
    """Make sure, before anything is measured, that the runs can be measured so.

    Raises:
        InputError: for counts that make no sense, a part that the family lacks, and tasks too few for an interval.
    """
    runs = [run for group in groups.values() for run in group]
    learners = {run.config.learner for run in runs}
    if unknown := sorted(set(protocol.steps) - learners - {""}):
        compared = ", ".join(sorted(learners))
        raise InputError(f"--steps names {unknown[0]}, which is not compared; the learners are {compared}")
    if protocol.episodes is not None and protocol.episodes < 1:
        raise InputError(f"a comparison needs episodes >= 1, not {protocol.episodes}")
    found = len(runs[0].config.split().tasks(protocol.part, protocol.tasks))
    if found < 2 and min(map(len, groups.values())) < 2:
        raise InputError("an interval needs 2 tasks, or 2 seeds of every learner; there is 1 task and a single run")


def _require_same_tasks(one: Run, other: Run) -> None:
    """Refuse runs of different tasks.

    Raises:
        InputError: naming the two and the first thing in which they differ.
    """
    first, second = (_task_settings(run) for run in (one, other))
    for name in first:
        if first[name] != second.get(name):
            raise InputError(
                f"{one.path} and {other.path} cannot be compared, their tasks are not the same: {name} is "
                f"{first[name]} in the first and {second.get(name)} in the second"
            )


def _task_settings(run: Run) -> dict[str, Any]:
    config = run.config
    chosen = {"family": config.family, "preset": config.preset}
    return chosen | dict(_flat(run.family.settings())) | {"split_seed": config.run.split_seed}


def _same_learner(one: Run, other: Run) -> bool:
    return one.config.learner == other.config.learner and one.settings == other.settings


def _label(run: Run, others: Sequence[Run]) -> str:
    """Return the learner's name, and the settings in which its namesakes differ: all, or enough to tell them apart.

    The variant of a baseline always stands there, alone if it is enough.
    """
    namesakes = [other for other in others if other.config.learner == run.config.learner]
    values = {name: len({str(other.settings[name]) for other in namesakes}) for name in run.settings}
    differing = sorted((name for name, count in values.items() if count > 1), key=lambda name: -values[name])
    telling = [VARIANT] * (VARIANT in run.settings)
    if not telling or not _are_told_apart(namesakes, telling):
        telling += [name for name in differing if name != VARIANT]
    words = [str(run.settings[name]) if name == VARIANT else f"{name} {run.settings[name]}" for name in telling]
    if sum(map(len, words)) > LONGEST_LABEL:
        enough = range(1, len(telling) + 1)
        kept = next(count for count in enough if _are_told_apart(namesakes, telling[:count]))
        words = [*words[:kept], "..."] if kept < len(words) else words
    return f"{run.config.learner} ({', '.join(words)})" if words else run.config.learner


def _are_told_apart(runs: Sequence[Run], names: Sequence[str]) -> bool:
    return len({tuple(str(run.settings[name]) for name in names) for run in runs}) == len(runs)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
