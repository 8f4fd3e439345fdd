"""The files that ``learning/curve.py`` writes, with the evaluations of every seed of a variant, and their reading."""

import dataclasses
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError

from metarl.errors import InputError
from metarl.files import write_whole
from metarl.learner import LEARNERS


@dataclass(frozen=True)
class Point:
    """One evaluation on the held-out tasks. Lists have an entry before adaptation and one after each step of it.

    Attributes:
        iteration: number of iterations before it.
        env_steps: of training before it.
        spent: env steps of a task before the entry's episodes.
        returns: mean over tasks.
        success: share of episodes that met the task's goal, where the family defines success.
        training_cpu_seconds: before it; None where the training was interrupted between two evaluations.
    """

    iteration: int
    env_steps: int
    spent: list[float]
    returns: list[float]
    success: list[float] | None
    training_cpu_seconds: float | None


@dataclass(frozen=True)
class SeedRun:
    """One training run: its evaluations, and the returns ``[task][column]`` of the last one.

    Attributes:
        versions: of the packages it ran with.
        final_totals: the return of a whole trial of each task, if the columns are the episodes of a trial.
    """

    seed: int
    versions: dict[str, str]
    points: list[Point]
    final_returns: list[list[float]]
    final_totals: list[float] | None = None


@dataclass(frozen=True)
class Record:
    """What was measured of a variant.

    Attributes:
        command: writes this file.
        config: of the runs; it has no seed and no place.
        steps: adaptation steps measured.
        inner_steps: those of training, as far as measured.
        columns: the steps whose returns of each task are kept from the last evaluation.
        tasks: the parameters of each held-out task, except long ones; the config's split hash covers them all.
        runs: by seed.
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

    @property
    def from_scratch(self) -> bool:
        """Whether the learner learns each task anew, so that training on other tasks changes nothing."""
        learner = LEARNERS.find(self.config["learner"])
        settings: Any = TypeAdapter(learner.config_class).validate_python(self.config["settings"])
        return learner.from_scratch(settings)

    def points(self) -> list[tuple[Point, ...]]:
        """Return the evaluations after the iterations that every run was evaluated after, each a point of every run."""
        by_iteration = [{point.iteration: point for point in run.points} for run in self.runs]
        common = sorted(set.intersection(*map(set, by_iteration)))
        return [tuple(found[iteration] for found in by_iteration) for iteration in common]

    @property
    def spent(self) -> np.ndarray:
        """Env steps of a task before each column's episodes at the end of training, mean over runs ``[steps + 1]``."""
        mean: np.ndarray = np.mean([run.points[-1].spent for run in self.runs], axis=0)
        return mean

    @property
    def curves(self) -> np.ndarray:
        """Returns at the end of training, mean over tasks, ``[runs, steps + 1]``."""
        return np.array([run.points[-1].returns for run in self.runs])

    def returns(self, step: int) -> np.ndarray:
        """Return the returns after a step, one of ``columns``, at the end of training: ``[runs, tasks]``."""
        return np.array([run.final_returns for run in self.runs])[..., self.columns.index(step)]

    @property
    def totals(self) -> np.ndarray | None:
        """Returns of whole trials at the end of training, ``[runs, tasks]``, of learners that remember trials."""
        totals = [run.final_totals for run in self.runs if run.final_totals is not None]
        return np.array(totals) if totals else None


def write(path: Path, content: Record | SeedRun) -> None:
    """Write JSON, with lists of numbers on one line."""
    text = json.dumps(dataclasses.asdict(content), indent=2)
    text = re.sub(r"\[\n([^\[\]{}]*)\n *\]", lambda found: f"[{' '.join(found[1].split())}]", text)
    write_whole(path, lambda part: part.write_text(text + "\n"))


def read_record(path: Path) -> Record:
    """Read what was measured of a variant.

    Raises:
        InputError: when the file is missing, damaged, or another program's.
    """
    try:
        return TypeAdapter(Record).validate_json(path.read_bytes())
    except FileNotFoundError:
        made = f"python experiments/learning/curve.py {path.parent.name} --variants {path.stem}"
        raise InputError(f"there are no results in {path}; {made} makes them") from None
    except ValidationError:
        raise InputError(f"{path} is damaged or was not written by this learning/curve.py; remove it") from None


def read_run(path: Path) -> SeedRun | None:
    """Read what was measured of a run, if it was.

    Raises:
        InputError: when the file is damaged.
    """
    if not path.exists():
        return None
    try:
        return TypeAdapter(SeedRun).validate_json(path.read_bytes())
    except ValidationError:
        raise InputError(f"{path} is damaged or was not written by this learning/curve.py; remove it") from None


def read_comparison(folder: Path, labels: Iterable[str]) -> dict[str, Record]:
    """Return what was measured of a comparison, by variant: first those of ``labels`` that were, then others."""
    order, found = list(labels), sorted(path.stem for path in folder.glob("*.json"))
    found.sort(key=lambda label: order.index(label) if label in order else len(order))
    return {label: read_record(folder / f"{label}.json") for label in found}


def list_counts(counts: Iterable[int]) -> str:
    """Return the different counts in words: ``3``, or ``1 or 3``."""
    return " or ".join(map(str, sorted(set(counts))))


def rounded(values: Any) -> Any:
    """Return a number, or nested lists of numbers, with 5 significant digits."""
    if isinstance(values, list):
        return [rounded(value) for value in values]
    return values if values is None or isinstance(values, int) else float(f"{values:.5g}")
