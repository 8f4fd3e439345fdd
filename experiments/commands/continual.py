"""``metarl continual``: tasks one after the other, in training or inside a trial; what is kept, and what recovers."""

import dataclasses
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metarl.errors import InputError, RunStopped
from metarl.experiments.commands.parsing import parse, parse_seeds, take_option
from metarl.experiments.commands.train import config_of
from metarl.experiments.continual.changes import Changes
from metarl.experiments.continual.changes_report import ChangesReport
from metarl.experiments.continual.performance import MeasureAllTasks
from metarl.experiments.continual.report import NUMBERS, PAGE, Report
from metarl.experiments.continual.streams import RUNS, Experiment
from metarl.learning.learner import CHANGING, LEARNERS
from metarl.storage.files import make_folder
from metarl.training.loop_tools import StopRequest
from metarl.training.requeue import train_or_resume

COMMAND = "metarl continual LEARNER FAMILY"
# What differs from the defaults of ``metarl train``; options given later in a line win.
DEFAULTS = ("--track", "disabled")
OF_STREAMS = ("--tasks-per-batch", "1", "--iterations", "20")
# Number of tasks in a stream, and in a trial.
IN_STREAM, IN_TRIAL = 10, 2
TAKEN = (
    *("--task-source", "--train-tasks", "--iterations-per-task", "--first-task", "--change-probability"),
    *("--seed", "--continual", "--resume", "--published", "--config"),
)


@dataclass(frozen=True)
class ContinualOptions:
    """Train on tasks one after the other, and on each from scratch; measure performance, forgetting and transfer.

    An in-context learner meets them inside a trial: train on trials of one task and on trials whose task changes;
    measure how soon the return is back after a change.

    All other options are those of metarl train LEARNER FAMILY --help; by default nothing is tracked, and a batch of a
    stream is one task. The same command continues where it was stopped.
    """

    out: str
    """Folder of the report and of the runs: new, empty, or of the same experiment."""
    tasks: int | None = None
    """Number of tasks: the first training tasks of the split (10), or test tasks of a trial (2)."""
    methods: str = ""
    """How tasks are met, separated by commas: fine-tuning, replay, ewc, or in a trial constant, changing; by default
    all that the learner can."""
    seeds: str = "1"
    """Seeds, separated by commas."""
    iterations: int | None = None
    """Iterations on each task of a stream (20), or on trials (as in metarl train)."""


def run(words: Sequence[str]) -> None:
    """Train what is missing, write the report, and print the measures.

    Raises:
        InputError: for options that make no sense, and a folder with other content.
        RunStopped: if a signal stops the training.
    """
    experiment = experiment_of(words)
    empty = make_folder(experiment.out, "the experiment")
    if not empty and not (experiment.out / RUNS).is_dir():
        raise InputError(f"{experiment.out} contains files that are not of metarl continual; choose another --out")
    train_all(experiment)
    report = ChangesReport(experiment) if isinstance(experiment, Changes) else Report(experiment)
    report.write(shlex.join(["metarl", "continual", *words]))
    print("\n".join(report.table()))
    print(f"\nreport    {experiment.out / PAGE}\nnumbers   {experiment.out / NUMBERS}")


def train_all(experiment: Experiment | Changes) -> None:
    """Train all runs of an experiment that are not complete.

    Raises:
        RunStopped: if a signal stops one of them.
    """
    configs = list(experiment.runs())
    callbacks = [] if isinstance(experiment, Changes) else [MeasureAllTasks()]
    stop = StopRequest()
    for count, config in enumerate(configs, 1):
        directory = train_or_resume(config, stop, callbacks=callbacks)
        if stop.signal is not None:
            raise RunStopped("stopped; run the same command again to continue", stop.signal)
        print(f"{count} of {len(configs)}: {directory.path}")


def experiment_of(words: Sequence[str]) -> Experiment | Changes:
    """Return the experiment that the words name.

    Raises:
        InputError: for unknown names and options that make no sense.
    """
    if {"-h", "--help"} & set(words) or not words:
        parse(ContinualOptions, COMMAND, ["--help"])
    own, rest = _own_options(words)
    options = parse(ContinualOptions, COMMAND, own)
    if taken := [name for name in TAKEN if name in {each.split("=")[0] for each in rest}]:
        raise InputError(f"{taken[0]} is not an option of metarl continual; metarl continual --help lists them")
    named = bool(rest) and not rest[0].startswith("-")
    inside_trials = named and CHANGING in LEARNERS.find(rest[0]).continual
    defaults = DEFAULTS if inside_trials else (*DEFAULTS, *OF_STREAMS)
    iterations = () if options.iterations is None else ("--iterations", str(options.iterations))
    base = config_of([*rest[:2], *defaults, *iterations, *rest[2:]])
    base = dataclasses.replace(base, run=dataclasses.replace(base.run, out=None))
    methods = options.methods.split(",") if options.methods else base.learner_class.continual
    chosen = methods, parse_seeds(options.seeds), Path(options.out)
    if inside_trials:
        return Changes(base, IN_TRIAL if options.tasks is None else options.tasks, *chosen)
    return Experiment(base, IN_STREAM if options.tasks is None else options.tasks, *chosen)


def _own_options(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the options of ``ContinualOptions`` among the words, and the other words."""
    own, rest = list[str](), list(words)
    for field in dataclasses.fields(ContinualOptions):
        value, rest = take_option(rest, f"--{field.name}")
        own += [] if value is None else [f"--{field.name}", value]
    return own, rest
