"""Reading and writing the result files of ``learning/curve.py``, with the evaluations of all seeds of a variant."""

import dataclasses
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from metarl.errors import InputError
from metarl.learning.learner import LEARNERS
from metarl.run.config_file import adapter
from metarl.storage.files import write_whole


@dataclass(frozen=True)
class Point:
    """One evaluation on the held-out tasks. Lists have an entry before adaptation and one after each adaptation step.

    Attributes:
        iteration: number of iterations before it.
        env_steps: training env steps before it.
        spent: env steps spent on a task before the entry's episodes.
        returns: mean returns over tasks.
        success: success rates, if the family defines success.
        training_cpu_seconds: CPU seconds of training before it; None if training was interrupted between two
            evaluations.
        training_success: success rates on training tasks, if the comparison is about success.
        training_returns: mean returns over training tasks, if they were measured.
    """

    iteration: int
    env_steps: int
    spent: list[float]
    returns: list[float]
    success: list[float] | None
    training_cpu_seconds: float | None
    training_success: list[float] | None = None
    training_returns: list[float] | None = None


@dataclass(frozen=True)
class SeedRun:
    """One training run: its evaluations, and the returns ``[task][column]`` of the last one.

    Attributes:
        versions: versions of the packages.
        final_totals: the return of a whole trial on each task, if the columns are the episodes of a trial.
        final_success: success rates ``[task][column]`` of the last evaluation, if the comparison is about success.
        protocol: success rates of the trained learner by the field's own protocol: ``all``, and by environment.
        episodes: episodes of each measured adaptation step, if they are not those of training.
    """

    seed: int
    versions: dict[str, str]
    points: list[Point]
    final_returns: list[list[float]]
    final_totals: list[float] | None = None
    final_success: list[list[float]] | None = None
    protocol: dict[str, float] | None = None
    episodes: int | None = None


@dataclass(frozen=True)
class Record:
    """The results of a variant.

    Attributes:
        command: the command that writes this file.
        config: configuration of the runs, without seed and path.
        steps: number of measured adaptation steps.
        inner_steps: number of adaptation steps in training, if measured.
        columns: the steps whose returns on each task are kept from the last evaluation.
        tasks: parameters of each held-out task, except long ones; the config's split hash covers them all.
        runs: the runs, by seed.
        recording: recorded data that replaced sampling: the acting run, tasks and episodes; or None.
    """

    command: str
    config: dict[str, Any]
    steps: int
    inner_steps: int
    columns: list[int]
    tasks: list[dict[str, Any]]
    runs: list[SeedRun]
    part: Literal["test"] = "test"
    actions: Literal["sampled"] = "sampled"
    recording: dict[str, Any] | None = None

    @property
    def from_scratch(self) -> bool:
        """Whether the learner learns each task from scratch, unaffected by training on other tasks."""
        learner = LEARNERS.find(self.config["learner"])
        settings: Any = adapter(learner.config_class).validate_python(self.config["settings"])
        return learner.from_scratch(settings)

    def points(self) -> list[tuple[Point, ...]]:
        """Return the evaluations at the iterations that all runs have in common: for each of these, a point per run."""
        by_iteration = [{point.iteration: point for point in run.points} for run in self.runs]
        common = sorted(set.intersection(*map(set, by_iteration)))
        return [tuple(found[iteration] for found in by_iteration) for iteration in common]

    @property
    def spent(self) -> np.ndarray:
        """Env steps per task before each column's episodes at the end of training, mean over runs ``[steps + 1]``."""
        mean: np.ndarray = np.mean([run.points[-1].spent for run in self.runs], axis=0)
        return mean

    @property
    def curves(self) -> np.ndarray:
        """Returns at the end of training, mean over tasks, ``[runs, steps + 1]``."""
        return np.array([run.points[-1].returns for run in self.runs])

    @property
    def by_success(self) -> bool:
        """Whether the comparison is about success."""
        return all(run.final_success is not None for run in self.runs)

    @property
    def trained(self) -> np.ndarray | None:
        """Scores on training tasks at the end of training, mean over the runs that measured them ``[steps + 1]``."""
        name = "training_success" if self.by_success else "training_returns"
        known = [scores for run in self.runs if (scores := getattr(run.points[-1], name)) is not None]
        if not known:
            return None
        mean: np.ndarray = np.mean(known, axis=0)
        return mean

    def success(self, step: int) -> np.ndarray:
        """Return the success after a step, one of ``columns``, at the end of training: ``[runs, tasks]``."""
        return np.array([run.final_success for run in self.runs])[..., self.columns.index(step)]

    def returns(self, step: int) -> np.ndarray:
        """Return the returns after a step, one of ``columns``, at the end of training: ``[runs, tasks]``."""
        return np.array([run.final_returns for run in self.runs])[..., self.columns.index(step)]

    @property
    def totals(self) -> np.ndarray | None:
        """Returns of whole trials at the end of training, ``[runs, tasks]``, for in-context learners."""
        totals = [run.final_totals for run in self.runs if run.final_totals is not None]
        return np.array(totals) if totals else None


def write(path: Path, content: Record | SeedRun) -> None:
    """Write JSON, with lists of numbers on one line."""
    text = json.dumps(dataclasses.asdict(content), indent=2)
    text = re.sub(r"\[\n([^\[\]{}]*)\n *\]", lambda found: f"[{' '.join(found[1].split())}]", text)
    write_whole(path, lambda part: part.write_text(text + "\n"))


def read_record(path: Path) -> Record:
    """Read the results of a variant.

    Raises:
        InputError: if the file is missing, damaged or not a result file.
    """
    try:
        record: Record = adapter(Record).validate_json(path.read_bytes())
    except FileNotFoundError:
        made = f"python experiments/learning/curve.py {path.parent.name} --variants {path.stem}"
        raise InputError(f"there are no results in {path}; create them with {made}") from None
    except ValidationError:
        raise InputError(f"{path} is damaged or was not written by this learning/curve.py; remove it") from None
    return record


def read_run(path: Path) -> SeedRun | None:
    """Read the evaluations of a run, if there are any.

    Raises:
        InputError: if the file is damaged.
    """
    if not path.exists():
        return None
    try:
        run: SeedRun = adapter(SeedRun).validate_json(path.read_bytes())
    except ValidationError:
        raise InputError(f"{path} is damaged or was not written by this learning/curve.py; remove it") from None
    return run


def read_comparison(folder: Path, labels: Iterable[str]) -> dict[str, Record]:
    """Return the results of a comparison by variant: first those in ``labels``, then others."""
    order, found = list(labels), sorted(path.stem for path in folder.glob("*.json"))
    found.sort(key=lambda label: order.index(label) if label in order else len(order))
    return {label: read_record(folder / f"{label}.json") for label in found}


def list_counts(counts: Iterable[int]) -> str:
    """Return the distinct counts as text: ``3``, or ``1 or 3``."""
    return " or ".join(map(str, sorted(set(counts))))


def rounded(values: Any) -> Any:
    """Return a number, or nested lists or dicts of numbers, with 5 significant digits."""
    if isinstance(values, list):
        return [rounded(value) for value in values]
    if isinstance(values, dict):
        return {name: rounded(value) for name, value in values.items()}
    return values if values is None or isinstance(values, int) else float(f"{values:.5g}")
