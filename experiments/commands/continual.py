"""``metarl continual``: train on tasks one after the other, and measure what is kept of the earlier ones."""

import dataclasses
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metarl.errors import InputError, RunStopped
from metarl.experiments.commands.parsing import parse, parse_seeds, take_option
from metarl.experiments.commands.train import config_of
from metarl.experiments.continual.performance import MeasureAllTasks
from metarl.experiments.continual.report import NUMBERS, PAGE, Report
from metarl.experiments.continual.streams import RUNS, Experiment
from metarl.storage.files import make_folder
from metarl.training.loop_tools import StopRequest
from metarl.training.requeue import train_or_resume

COMMAND = "metarl continual LEARNER FAMILY"
# What differs from the defaults of ``metarl train``; options given later in a line win.
DEFAULTS = ("--tasks-per-batch", "1", "--track", "disabled")
TAKEN = ("--task-source", "--train-tasks", "--seed", "--continual", "--resume", "--published", "--config")


@dataclass(frozen=True)
class ContinualOptions:
    """Train on tasks one after the other, and on each from scratch; measure performance, forgetting and transfer.

    All other options are those of metarl train LEARNER FAMILY --help; by default a batch is one task, and nothing is
    tracked. The same command continues where it was stopped.
    """

    out: str
    """Folder of the report and of the runs: new, empty, or of the same experiment."""
    tasks: int = 10
    """Number of tasks: the first training tasks of the split."""
    methods: str = ""
    """How tasks are met, separated by commas: fine-tuning, replay, ewc; by default all that the learner can."""
    seeds: str = "1"
    """Seeds, separated by commas."""
    iterations: int = 20
    """Iterations on each task."""


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
    report = Report(experiment)
    report.write(shlex.join(["metarl", "continual", *words]))
    print("\n".join(report.table()))
    print(f"\nreport    {experiment.out / PAGE}\nnumbers   {experiment.out / NUMBERS}")


def train_all(experiment: Experiment) -> None:
    """Train all runs of an experiment that are not complete.

    Raises:
        RunStopped: if a signal stops one of them.
    """
    configs = list(experiment.runs())
    stop = StopRequest()
    for count, config in enumerate(configs, 1):
        directory = train_or_resume(config, stop, callbacks=[MeasureAllTasks()])
        if stop.signal is not None:
            raise RunStopped("stopped; the same command continues", stop.signal)
        print(f"{count} of {len(configs)}: {directory.path}")


def experiment_of(words: Sequence[str]) -> Experiment:
    """Return the experiment that the words name.

    Raises:
        InputError: for unknown names and options that make no sense.
    """
    if {"-h", "--help"} & set(words) or not words:
        parse(ContinualOptions, COMMAND, ["--help"])
    own, rest = _own_options(words)
    options = parse(ContinualOptions, COMMAND, own)
    if taken := [name for name in TAKEN if name in {each.split("=")[0] for each in rest}]:
        raise InputError(f"{taken[0]} is no option of metarl continual; --help lists them")
    base = config_of([*rest[:2], *DEFAULTS, "--iterations", str(options.iterations), *rest[2:]])
    base = dataclasses.replace(base, run=dataclasses.replace(base.run, out=None))
    methods = options.methods.split(",") if options.methods else base.learner_class.continual
    return Experiment(base, options.tasks, methods, parse_seeds(options.seeds), Path(options.out))


def _own_options(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the options of ``ContinualOptions`` among the words, and the other words."""
    own, rest = list[str](), list(words)
    for field in dataclasses.fields(ContinualOptions):
        value, rest = take_option(rest, f"--{field.name}")
        own += [] if value is None else [f"--{field.name}", value]
    return own, rest
