"""The report of a continual experiment: a page with the matrices, figures, and everything as JSON."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metarl.evaluation.recording import task_text
from metarl.experiments.compare.figures import COLORS, Picture
from metarl.experiments.compare.html import Cell, Image, Page, Row, Section, Table, embedded, write_page
from metarl.experiments.compare.page import number
from metarl.experiments.continual.figures import curve_figures, matrix_figures
from metarl.experiments.continual.measures import AVERAGE, BACKWARD, FORGETTING, FORWARD, measures
from metarl.experiments.continual.performance import Performance, read_from_scratch, read_stream
from metarl.experiments.continual.streams import Experiment
from metarl.families.references import Reference
from metarl.numerics.statistics import Interval
from metarl.storage.files import write_json

NUMBERS, PAGE = "continual.json", "index.html"
NAMES = (AVERAGE, FORGETTING, BACKWARD, FORWARD)
READING = (
    "Average performance: in all tasks, after the last one has been learned.",
    "Forgetting: what has been lost of each task between when it had just been learned and the end; less is better.",
    "Backward transfer: minus that, over all tasks but the last, which has none after it.",
)


class Report:
    """What an experiment has measured, in scores where the family has references.

    Args:
        experiment: whose runs are complete.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        reference = experiment.base.find_reference()
        self.reference = reference if reference is not None and reference.full_knowledge is not None else None
        self.unit = "return" if self.reference is None else "score"
        self.learned = {method: self._scored(read_stream(experiment, method)) for method in experiment.methods}
        self.from_scratch = self._scored(read_from_scratch(experiment))
        normalized = self.reference is not None
        self.measures = {method: measures(each, self.from_scratch, normalized) for method, each in self.learned.items()}

    def _scored(self, returns: Performance) -> Performance:
        if self.reference is None:
            return returns
        matrix = None if returns.matrix is None else _normalized(self.reference, returns.matrix)
        return Performance(matrix, _normalized(self.reference, returns.curves))

    def write(self, command: str) -> None:
        """Write the page, its figures and the numbers; an earlier report is replaced."""
        out = self.experiment.out
        images = {
            "matrix": self._images(matrix_figures(self.learned, self.unit)),
            "learning": self._images(curve_figures(self.learned, self.from_scratch, self.unit)),
        }
        write_json(out / NUMBERS, self.to_json(command))
        write_page(self._page(command, images), out / PAGE)

    def _images(self, pictures: Sequence[Picture]) -> list[Image]:
        out = self.experiment.out
        return [embedded(out / picture.save(out)[0], picture.alt, picture.caption) for picture in pictures]

    def table(self) -> list[str]:
        """Return the measures as lines of text."""
        lines = [f"{self.title}, in {self.unit}s; 95 % intervals over seeds and tasks", ""]
        lines += [f"{'':<14}" + "".join(f"{name:>26}" for name in NAMES)]
        for method, found in self.measures.items():
            lines.append(f"{method:<14}" + "".join(f"{text_of(found[name]):>26}" for name in NAMES))
        return lines

    @property
    def title(self) -> str:
        """Learner, family and number of tasks."""
        base = self.experiment.base
        return f"{base.learner_name} in {self.experiment.tasks} tasks of {base.family_name} ({base.preset})"

    def to_json(self, command: str) -> dict[str, Any]:
        """Return everything as plain lists; matrices are ``[seed][last task learned][task]``."""
        experiment, resolved = self.experiment, self.experiment.base.to_json()
        return {
            "command": command,
            **{name: resolved[name] for name in ("learner", "family", "preset", "settings", "family_settings", "run")},
            "versions": resolved["versions"],
            "tasks": [{key: value.tolist() for key, value in task.items()} for task in experiment.sequence],
            "seeds": list(experiment.seeds),
            "iterations_per_task": experiment.iterations,
            "unit": self.unit,
            "references": None if self.reference is None else dataclasses.asdict(self.reference),
            "from_scratch": {"curves": self.from_scratch.curves.tolist()},
            "methods": {method: self._method(method) for method in self.learned},
        }

    def _method(self, method: str) -> dict[str, Any]:
        found, each = self.measures[method], self.learned[method]
        assert each.matrix is not None
        values = {
            name: dict(zip(("estimate", "low", "high"), map(float, value), strict=True))
            for name, value in found.items()
        }
        return {"measures": values, "matrix": each.matrix.tolist(), "curves": each.curves.tolist()}

    def _page(self, command: str, images: Mapping[str, Sequence[Image]]) -> Page:
        sections = [
            Section("summary", "Summary", [*READING, self._forward_note()], (), [self._summary()]),
            Section("matrix", "Every task after every task", (), images["matrix"], [*self._matrices()]),
            Section("learning", "Learning", (), images["learning"]),
            Section("tasks", "Tasks", (), (), [self._tasks()]),
        ]
        return Page(self.title, self._protocol(), command, sections)

    def _protocol(self) -> str:
        experiment = self.experiment
        run = experiment.base.run
        seeds = ", ".join(map(str, experiment.seeds))
        scores = (
            "Performance is the mean return of an episode."
            if self.reference is None
            else "Performance is the mean return of an episode, normalised so that 0 is no adaptation and 1 is full "
            f"knowledge of the task, means over the family's tasks ({self.reference.source})."
        )
        return (
            f"Training tasks are met one after the other, each for {experiment.iterations} iterations of "
            f"{run.episodes_per_task} episodes; after each of them all tasks are measured with as many episodes, after "
            f"the learner's own adaptation. Seeds {seeds}; 95 % intervals over seeds and tasks. {scores}"
        )

    def _forward_note(self) -> str:
        ratio = "a - b" if self.reference is None else "(a - b) / (1 - b)"
        return (
            f"Forward transfer: {ratio}, where a is the mean performance in the present task while it is learned, and "
            "b that of learning it from scratch."
        )

    def _summary(self) -> Table:
        rows = [
            Row(
                method,
                [Cell(number(float(found[name].estimate)), [bounds(found[name])]) for name in NAMES],
                color,
            )
            for (method, found), color in zip(self.measures.items(), COLORS, strict=False)
        ]
        return Table("Measures", ["", *NAMES], rows)

    def _matrices(self) -> list[Table]:
        tables = []
        for method, each in self.learned.items():
            assert each.matrix is not None
            rows = [
                Row(f"after task {learned}", [Cell(number(float(value))) for value in values])
                for learned, values in enumerate(each.matrix.mean(0))
            ]
            columns = ["", *(f"task {task}" for task in range(self.experiment.tasks))]
            tables.append(Table(f"{method}: mean {self.unit} over seeds", columns, rows, folded=True))
        return tables

    def _tasks(self) -> Table:
        alone = self.from_scratch.curves[:, :, -1].mean(0)
        rows = [
            Row(f"task {index}", [Cell(task_text(task)), Cell(number(float(alone[index])))])
            for index, task in enumerate(self.experiment.sequence)
        ]
        return Table("Tasks", ["", "parameters", f"{self.unit} from scratch, last iteration"], rows)


def _normalized(reference: Reference, returns: np.ndarray) -> np.ndarray:
    scores: np.ndarray = reference.normalize(returns)
    return scores


def bounds(found: Interval) -> str:
    """Return the bounds of an interval as text."""
    return f"[{number(float(found.low))}, {number(float(found.high))}]"


def text_of(found: Interval) -> str:
    """Return a statistic with the bounds of its interval as text."""
    return f"{number(float(found.estimate))} {bounds(found)}"
