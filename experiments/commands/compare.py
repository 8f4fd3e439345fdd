"""``metarl compare``: a report on runs of several learners, evaluated with the same protocol."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from metarl.devices.runtime import keep_freed_memory
from metarl.errors import InputError
from metarl.experiments.commands.parsing import parse
from metarl.experiments.compare.comparison import Comparison, Entry, Protocol, check_protocol, measure
from metarl.experiments.compare.page import number, title
from metarl.experiments.compare.report import ReportFolder
from metarl.experiments.compare.runs import group_runs, read_runs
from metarl.experiments.compare.statistics import (
    GAIN,
    LAST,
    MEAN,
    SCORE,
    SUCCESS,
    TRAINING,
    Summary,
    stages,
    summarize,
)
from metarl.families.family import Source
from metarl.run.directory import CheckpointChoice


@dataclass(frozen=True)
class CompareOptions:
    """Adapt the learners of several runs to the same held-out tasks, and write a report that compares them."""

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUN RUN ...")]
    """Directories of the runs; those that differ only in the seed count as one learner."""
    out: str = "report"
    """Folder of the report: new, empty, or with an earlier report, which is replaced."""
    tasks: int = 40
    """Number of tasks; a finite family may have fewer."""
    part: Source = "test"
    """Which tasks: test, validation, train, or ood, outside the distribution."""
    steps: str | None = None
    """Adaptation steps: a number, or numbers for individual learners, such as 3,dqn=50; by default as in metarl
    evaluate."""
    episodes: int | None = None
    """Episodes per task before each step and after the last one; by default as in each run's training."""
    deterministic: bool = False
    """Evaluate the policy's mode, in additional episodes, instead of sampled actions."""
    seed: int = 0
    """Seed of environments and actions; the tasks do not depend on it."""
    device: str | None = None
    """Torch device; by default each run's own."""
    checkpoint: CheckpointChoice = "latest"
    """Which checkpoint of each run: the latest, or the best on validation tasks."""
    videos: bool = True
    """Record videos of the first run of each learner on the first task, before and after adaptation."""


def run(words: Sequence[str]) -> None:
    """Compare the runs, and print a summary of the report."""
    keep_freed_memory()
    command = shlex.join(["metarl", "compare", *words])
    print(compare(parse(CompareOptions, "metarl compare", words), command))


def compare(options: CompareOptions, command: str) -> str:
    """Evaluate every run, write the report, and return a summary of it.

    Run directories are only read.

    Args:
        options: options of the command.
        command: the command line, for the report.

    Raises:
        InputError: if runs cannot be compared, the folder has other content, or options are invalid; nothing is then
            written.
        RunError: if sampling fails.
    """
    steps = parse_steps(options.steps)
    protocol = Protocol(
        options.tasks, steps, options.episodes, options.part, options.deterministic, options.seed, options.checkpoint
    )
    groups = group_runs(read_runs(options.runs, options.device, options.checkpoint))
    check_protocol(groups, protocol)
    folder = ReportFolder(Path(options.out))
    folder.prepare(options.runs)
    comparison = measure(groups, protocol)
    summary = summarize(comparison)
    folder.write(comparison, summary, command, options.videos)
    return "\n".join([*terminal_summary(comparison, summary), "", *folder.list_files()])


def terminal_summary(comparison: Comparison, summary: Summary) -> Iterator[str]:
    """Return the lines of a table: each learner at each stage, its gain, and the family's references."""
    protocol = comparison.protocol
    acting = "the policy's mode" if protocol.deterministic else "actions sampled"
    yield title(comparison)
    yield f"{len(comparison.tasks)} {protocol.part} tasks, {acting}; 95 % intervals for other {comparison.others}"
    extras = [name for name in (SUCCESS, SCORE) if any(each.statistic == name for each in summary.measures)]
    for entry in comparison.entries:
        seeds = f"{len(entry.runs)} seed" + ("s" if len(entry.runs) > 1 else "")
        yield ""
        columns = "".join(f"{name:>12}" for name in extras)
        name = f"{entry.label}, {seeds}"
        yield f"{name:<33} {'env steps per task':>18}{'mean return':>14}   {'95 % interval':<22}{columns}".rstrip()
        for stage, label in _labels(entry).items():
            yield _line(summary, entry, stage, label, extras)
    if (reference := comparison.reference) is not None:
        yield ""
        yield f"{'  without adaptation, at most':<52}{number(reference.no_adaptation):>14}"
        if reference.full_knowledge is not None:
            yield f"{'  with full knowledge':<52}{number(reference.full_knowledge):>14}"


def _labels(entry: Entry) -> dict[str, str]:
    """Return the label of each stage's line, in order."""
    steps = stages(entry)
    labels = {stage: f"after step {step}" if step else "before adaptation" for stage, step in steps.items()}
    if TRAINING in labels:
        labels[TRAINING] += ", as in training"
    repeated = entry.last in (0, entry.training_step)  # the last line would repeat the one before it
    shown = {stage: label for stage, label in labels.items() if not (repeated and stage == LAST)}
    return shown | ({GAIN: "difference"} if entry.last else {})


def _line(summary: Summary, entry: Entry, stage: str, label: str, extras: list[str]) -> str:
    mean = summary.find(entry, stage, MEAN)
    assert mean is not None, "every stage has a mean return"
    sign = "+" if stage == GAIN and mean.estimate > 0 else ""
    found = [summary.find(entry, stage, name) for name in extras]
    columns = "".join(f"{number(each.estimate) if each else '':>12}" for each in found)
    interval = f"[{number(mean.low)}, {number(mean.high)}]"
    return (
        f"  {label:<32}{mean.env_steps:>18,.0f}{sign + number(mean.estimate):>14}   {interval:<22}{columns}"
    ).rstrip()


def parse_steps(text: str | None) -> dict[str, int]:
    """Parse ``3``, ``dqn=50`` or ``3,dqn=50`` into adaptation steps by learner, with the default under "".

    Raises:
        InputError: for anything else.
    """
    found: dict[str, int] = {}
    for word in [] if text is None else text.split(","):
        learner, _, count = word.rpartition("=")
        if not count.strip().isdecimal() or learner in found:
            raise InputError(
                "--steps takes a number, LEARNER=NUMBER, or several of these for different learners, separated by "
                f"commas, not {text}"
            )
        found[learner.strip()] = int(count)
    return found
