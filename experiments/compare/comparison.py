"""What ``metarl compare`` measures: every run by the same protocol on the same tasks; an entry is a learner's seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from tensordict import TensorDict
from tqdm import tqdm

from metarl.errors import InputError
from metarl.evaluation import AdaptationCurve, evaluate_learner
from metarl.experiments.compare.runs import Run
from metarl.family import Source
from metarl.metrics import task_table
from metarl.references import Reference
from metarl.run_directory import CheckpointChoice
from metarl.statistics import Over


@dataclass(frozen=True)
class Protocol:
    """How every run is measured.

    Attributes:
        tasks: how many; a finite family may have fewer.
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
        """Shares of successful episodes ``[S, N, K + 1]``, where the family defines success."""
        shares = [curve.success for curve in self.curves if curve.success is not None]
        return np.stack(shares) if shares else None

    @property
    def env_steps(self) -> np.ndarray:
        """Env steps used of a task before each column's episodes ``[K + 1]``, mean over seeds."""
        spent: np.ndarray = np.stack([curve.env_steps for curve in self.curves]).mean(0)
        return spent

    @property
    def last(self) -> int:
        """The last step K."""
        return len(self.curves[0].env_steps) - 1

    @property
    def training_step(self) -> int | None:
        """The step after which the learner has adapted as in training, if it adapts there and the step was measured."""
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
        """The returns without adaptation and with the task known, if they are known; of tasks of the distribution."""
        return None if self.protocol.part == "ood" else self.example.config.find_reference()

    @cached_property
    def over(self) -> Over:
        """What intervals generalise to: other seeds alone, where the tasks are all that the family has."""
        every = self.example.family.all_tasks()
        several = all(len(entry.runs) > 1 for entry in self.entries)
        return "seeds" if several and every is not None and len(every) == len(self.tasks) else "both"

    @property
    def others(self) -> str:
        """What intervals generalise to, in words."""
        if self.over == "seeds":
            return "seeds, the tasks being all that there are"
        several = any(len(entry.runs) > 1 for entry in self.entries)
        return "seeds and tasks" if several else "tasks, each learner having one seed"

    def parameters(self) -> tuple[list[str], list[list[Any]]]:
        """Return the names of the task parameters, and a row of values for each task."""
        names, rows = task_table(self.entries[0].curves[0])
        end = names.index("return_0")
        return names[1:end], [row[1:end] for row in rows]


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
    """Make sure, before anything is measured, that the runs can be measured by the protocol.

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
