"""``metarl continual``: train on tasks one after the other, and measure what is kept of the earlier ones."""

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path

from metarl.errors import InputError, RunStopped
from metarl.experiments.commands.parsing import take_option
from metarl.experiments.commands.train import config_of
from metarl.experiments.continual.performance import MeasureAllTasks
from metarl.experiments.continual.report import NUMBERS, PAGE, Report
from metarl.experiments.continual.streams import Experiment
from metarl.run.config import TrainConfig
from metarl.storage.files import make_folder
from metarl.training.loop_tools import StopRequest
from metarl.training.requeue import train_or_resume

RUNS = "runs"
USAGE = """usage: metarl continual LEARNER FAMILY --out FOLDER [options]

  --tasks K             number of training tasks, which are met one after the other (10)
  --methods A,B         how they are met: fine-tuning, replay, ewc; by default all that the learner can
  --seeds 1,2,3         a stream for each seed and method, and each task from scratch for each seed (1)
  --iterations N        iterations on each task (20)
  --out FOLDER          report and runs; the same command continues where it was stopped

All other options are those of metarl train LEARNER FAMILY --help; a batch is one task by default."""
# What differs from the defaults of ``metarl train``; options given later in a line win.
DEFAULTS = ("--iterations", "20", "--tasks-per-batch", "1", "--track", "disabled")


def run(words: Sequence[str]) -> None:
    """Train what is missing, write the report, and print the measures.

    Raises:
        InputError: for options that make no sense, and a folder with other content.
        RunStopped: if a signal stops the training.
    """
    if {"-h", "--help"} & set(words) or not words:
        print(USAGE)
        return
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
    options = {"--tasks": "10", "--methods": "", "--seeds": "1", "--out": ""}
    rest = list(words)
    for name, usual in options.items():
        given, rest = take_option(rest, name)
        options[name] = usual if given is None else given
    if not options["--out"]:
        raise InputError("metarl continual needs a folder for its runs and its report: --out FOLDER")
    if taken := sorted(
        {"--task-source", "--train-tasks", "--seed", "--continual"} & {each.split("=")[0] for each in rest}
    ):
        raise InputError(f"{taken[0]} is set by metarl continual itself; see metarl continual --help")
    base: TrainConfig = config_of([*rest[:2], *DEFAULTS, *rest[2:]])
    methods = options["--methods"].split(",") if options["--methods"] else base.learner_class.continual
    seeds = _numbers("--seeds", options["--seeds"].split(","))
    (tasks,) = _numbers("--tasks", [options["--tasks"]])
    base = dataclasses.replace(base, run=dataclasses.replace(base.run, out=None))
    return Experiment(base, tasks, methods, seeds, Path(options["--out"]))


def _numbers(option: str, texts: Sequence[str]) -> list[int]:
    if not all(text.strip().isdecimal() for text in texts) or len(set(texts)) < len(texts):
        raise InputError(f"{option} needs different whole numbers, not {','.join(texts)!r}")
    return [int(text) for text in texts]
