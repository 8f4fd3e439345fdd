"""The measurements of ``metarl compare``: all runs with the same protocol on the same tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from tensordict import TensorDict
from tqdm import tqdm

from metarl.errors import InputError
from metarl.evaluation.evaluate import evaluate_learner
from metarl.experiments.compare.runs import Run
from metarl.families.family import Source
from metarl.families.references import Reference
from metarl.numerics.statistics import Over
from metarl.run.adaptation_curve import AdaptationCurve
from metarl.run.directory import CheckpointChoice
from metarl.run.metrics import task_table


@dataclass(frozen=True)
class Protocol:
    """The protocol of the evaluation of every run.

    Attributes:
        tasks: number of tasks; a finite family may have fewer.
        steps: adaptation steps by learner, with the default under ""; otherwise each learner's own.
        episodes: episodes per task and step; by default as in each run's training.
        part: part of the split.
        deterministic: evaluate the policy's mode instead of sampled actions.
        seed: seed of environments and actions.
        checkpoint: which checkpoint of each run.
    """

    tasks: int
    steps: Mapping[str, int]
    episodes: int | None
    part: Source
    deterministic: bool
    seed: int
    checkpoint: CheckpointChoice = "latest"

    def measure(self, run: Run) -> AdaptationCurve:
        """Evaluate a run as ``metarl.evaluate`` does; neither the learner nor its directory is changed."""
        steps = self.steps.get(run.config.learner_name, self.steps.get(""))
        return evaluate_learner(
            run.config, run.learner, self.tasks, steps, self.episodes, self.seed, self.part, self.deterministic
        )


@dataclass(frozen=True)
class Entry:
    """A learner with its settings: S seeds, evaluated on N tasks before and after K adaptation steps."""

    label: str
    runs: Sequence[Run]
    curves: Sequence[AdaptationCurve]

    @property
    def returns(self) -> np.ndarray:
        """Returns ``[S, N, K + 1]``."""
        return np.stack([curve.returns for curve in self.curves])

    @property
    def success(self) -> np.ndarray | None:
        """Success rates ``[S, N, K + 1]``, if the family defines success."""
        shares = [curve.success for curve in self.curves if curve.success is not None]
        return np.stack(shares) if shares else None

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
        """The number of adaptation steps in training, if the learner adapts there and the step was measured."""
        steps = self.runs[0].learner.inner_steps
        return steps if 0 < steps <= self.last else None


@dataclass(frozen=True)
class Comparison:
    """Entries evaluated on the same tasks."""

    entries: Sequence[Entry]
    protocol: Protocol

    @property
    def example(self) -> Run:
        """Any of the runs, for the properties common to all."""
        return self.entries[0].runs[0]

    @property
    def tasks(self) -> TensorDict:
        """The tasks ``[N]``."""
        return self.entries[0].curves[0].tasks

    @cached_property
    def reference(self) -> Reference | None:
        """The reference returns, if they are known and the tasks are from the distribution."""
        return None if self.protocol.part == "ood" else self.example.config.find_reference()

    @cached_property
    def over(self) -> Over:
        """What intervals generalise to: only other seeds, if the tasks are all that the family has."""
        every = self.example.family.all_tasks()
        several = all(len(entry.runs) > 1 for entry in self.entries)
        return "seeds" if several and every is not None and len(every) == len(self.tasks) else "both"

    @property
    def others(self) -> str:
        """What intervals generalise to, as text."""
        if self.over == "seeds":
            return "seeds, the tasks being all that there are"
        if len(self.tasks) == 1:
            return "seeds, on this one task"
        several = any(len(entry.runs) > 1 for entry in self.entries)
        return "seeds and tasks" if several else "tasks, each learner having one seed"

    def parameters(self) -> tuple[list[str], list[list[Any]]]:
        """Return the names of the task parameters, and a row of values for each task."""
        names, rows = task_table(self.entries[0].curves[0])
        end = names.index("return_0")
        return names[1:end], [row[1:end] for row in rows]


def measure(groups: Mapping[str, Sequence[Run]], protocol: Protocol) -> Comparison:
    """Evaluate every run once; progress is shown if standard error is a terminal.

    Raises:
        RunError: if sampling fails.
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
    """Check, before any evaluation, that the protocol applies to the runs.

    Raises:
        InputError: for invalid counts, a part that the family lacks, or too few tasks for an interval.
    """
    runs = [run for group in groups.values() for run in group]
    learners = {run.config.learner_name for run in runs}
    if unknown := sorted(set(protocol.steps) - learners - {""}):
        compared = ", ".join(sorted(learners))
        raise InputError(f"--steps names {unknown[0]}, which is not compared; the learners are {compared}")
    if protocol.episodes is not None and protocol.episodes < 1:
        raise InputError(f"a comparison needs episodes >= 1, not {protocol.episodes}")
    counts = {run.path: len(run.config.split().tasks(protocol.part, protocol.tasks)) for run in runs}
    found, other = counts[runs[0].path], max(counts, key=lambda path: counts[path] != counts[runs[0].path])
    if counts[other] != found:
        raise InputError(
            f"runs must be compared on the same tasks, but {runs[0].path} has {found} {protocol.part} tasks, and "
            f"{other} has {counts[other]}; use --tasks {min(counts.values())}"
        )
    if found < 2 and min(map(len, groups.values())) < 2:
        raise InputError("an interval needs 2 tasks, or 2 seeds of every learner; there is 1 task, and a single seed")
