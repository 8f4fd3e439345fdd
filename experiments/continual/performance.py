"""What a learner can do in every task of its stream, measured whenever it has learned one of them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from metarl.errors import InputError
from metarl.evaluation.evaluate import adaptation_curve
from metarl.experiments.continual.streams import Experiment
from metarl.numerics.statistics import Scores
from metarl.run.directory import RunDirectory
from metarl.sampling.sampler import Sampler
from metarl.storage.files import write_json
from metarl.training.callbacks import Callback, Training

FILE = "performance.json"


class MeasureAllTasks(Callback):
    """Measures the mean return in every task, after the learner's own adaptation, whenever a task has been learned.

    It has no effect on training, and random numbers of its own, which are the same each time. A resumed run writes the
    same numbers again.
    """

    def on_iteration(self, training: Training) -> None:
        """Measure at the end of a task, and add the row to the run's file."""
        run = training.config.run
        learned, rest = divmod(training.iteration, run.stream.iterations_per_task)
        if rest:
            return
        tasks = training.config.split().held_out_tasks("train", run.train_tasks or 1)
        sampler = Sampler(training.config.make_family(), run.device)
        steps = training.learner.inner_steps
        curve = adaptation_curve(training.learner, sampler, tasks, steps, run.episodes_per_task, "train")
        file = training.directory.path / FILE
        rows = json.loads(file.read_text()) if file.exists() else {}
        write_json(file, {**rows, str(learned): curve.returns[:, -1].tolist()})


@dataclass(frozen=True)
class Performance:
    """The returns of one method, or of learning from scratch, or their normalised scores.

    Shapes:
        matrix: ``[S, K, K]``: of seed s in task j after learning tasks 0 to i; from scratch there is none.
        curves: ``[S, K, n]``: while task i is learned, in its n iterations before each update.
    """

    matrix: Scores | None
    curves: Scores

    @property
    def areas(self) -> Scores:
        """Mean ``[S, K]`` of each curve: the normalised area under it."""
        areas: Scores = self.curves.mean(-1)
        return areas


def read_stream(experiment: Experiment, method: str) -> Performance:
    """Return what the runs of a method measured.

    Raises:
        InputError: if a run is not complete.
    """
    configs = [experiment.stream(method, seed) for seed in experiment.seeds]
    directories = [RunDirectory(str(config.run.out)) for config in configs]
    matrix = np.array([_rows(directory, experiment.tasks) for directory in directories])
    curves = np.array([_curve(directory).reshape(experiment.tasks, -1) for directory in directories])
    return Performance(matrix, curves)


def read_from_scratch(experiment: Experiment) -> Performance:
    """Return what the runs from scratch measured."""
    seeds, tasks = experiment.seeds, range(experiment.tasks)
    places = [[str(experiment.from_scratch(task, seed).run.out) for task in tasks] for seed in seeds]
    return Performance(None, np.array([[_curve(RunDirectory(place)) for place in row] for row in places]))


def _rows(directory: RunDirectory, tasks: int) -> Sequence[Sequence[float]]:
    rows = json.loads((directory.path / FILE).read_text())
    if len(rows) != tasks:
        raise InputError(
            f"{directory.path / FILE} has {len(rows)} rows, not {tasks}; remove the run and train it again"
        )
    return [rows[str(learned)] for learned in range(1, tasks + 1)]


def _curve(directory: RunDirectory) -> Scores:
    """Return the return on the present task, after the learner's own adaptation, in each iteration."""
    return np.array([row["return_after"] for row in directory.read_metrics()], np.float64)
