"""The content of a comparison's page: sections, text and tables."""

from collections.abc import Iterator, Mapping, Sequence
from textwrap import shorten
from typing import Any

import numpy as np

from metarl.evaluation.recording import task_text
from metarl.experiments.compare.comparison import Comparison, Entry
from metarl.experiments.compare.figures import styles_of
from metarl.experiments.compare.html import Cell, Image, Page, Row, Section, Table
from metarl.experiments.compare.runs import Run
from metarl.experiments.compare.statistics import (
    BEATS,
    BEFORE,
    CVAR,
    GAIN,
    GAP,
    IQM,
    LAST,
    MEAN,
    SCORE,
    SCORE_IQM,
    SUCCESS,
    TRAINING,
    Measure,
    Summary,
)

STAGES = {BEFORE: "before adaptation", TRAINING: "after adaptation as in training", LAST: "after the last step"}
NONE = Cell("–")
LONGEST_VALUE = 40


def make_page(
    comparison: Comparison,
    summary: Summary,
    command: str,
    images: Mapping[str, Sequence[Image]],
    remark: str,
) -> Page:
    """Assemble the page.

    Args:
        comparison: the measurements.
        summary: their statistics.
        command: the command that makes the page.
        images: images by section id.
        remark: why there are no videos, if that is the case.
    """
    sections = [
        Section("summary", "Summary", list(_reading(comparison)), (), list(_summary_tables(comparison, summary))),
        Section("curves", "Adaptation", (), images["curves"]),
        Section("behaviour", "Learned behaviour", _behaviour(comparison, remark, images), images["behaviour"]),
        Section("paths", "Paths and beliefs over adaptation", (), images["paths"]),
        Section("tasks", "Return and task", (), images["tasks"], [_task_rows(comparison)]),
        Section("training", "Training", (), images["training"]),
        Section("configurations", "Configurations", _runs_note(comparison), (), list(_config_tables(comparison))),
    ]
    shown = [section for section in sections if section.notes or section.pictures or section.tables]
    return Page(title(comparison), _protocol_text(comparison), command, shown)


def title(comparison: Comparison) -> str:
    """Return the title: family and entries."""
    config = comparison.example.config
    labels = [entry.label for entry in comparison.entries]
    listed = f"{', '.join(labels[:-1])} and {labels[-1]}" if len(labels) > 1 else labels[0]
    return f"{config.family_name} ({config.preset}): {listed}"


def _protocol_text(comparison: Comparison) -> str:
    """Return the evaluation protocol as a paragraph."""
    protocol, run = comparison.protocol, comparison.example
    config, count = run.config, len(comparison.tasks)
    few = "" if count == protocol.tasks else ", all that there are"
    outside = ", outside the distribution of training" if protocol.part == "ood" else ""
    acting = "from the policy's mode, in episodes besides those adapted to" if protocol.deterministic else "sampled"
    seeds = {entry.label: ", ".join(str(run.config.run.seed) for run in entry.runs) for entry in comparison.entries}
    alike = len(set(seeds.values())) == 1
    trained = seeds[comparison.entries[0].label] if alike else "; ".join(map(" ".join, seeds.items()))
    versions = ", ".join(f"{name} {number}" for name, number in config.to_json()["versions"].items())
    return (
        f"All learners were evaluated on the same {count} {protocol.part} tasks{few}{outside} of {config.family_name}, "
        f"preset {config.preset}, horizon {run.family.horizon}, split hash {config.split_hash}. A return is "
        f"the mean undiscounted return of {_episodes(comparison)} per task, before adaptation and after each "
        f"adaptation step; actions {acting}; evaluation seed {protocol.seed}. Training seeds: {trained}. "
        f"{_intervals(comparison)} Versions: {versions}."
    )


def _with_interval(measure: Measure | None) -> str:
    """Format a measure with its interval, or a dash."""
    if measure is None:
        return NONE.text
    return f"{number(measure.estimate)} [{number(measure.low)}, {number(measure.high)}]"


def number(value: float) -> str:
    """Format a number with two decimals, or none if it is large."""
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:z.2f}"


def _cost(measure: Measure) -> str:
    """Format the adaptation steps and the env steps spent on a task by then."""
    steps = "step" if measure.step == 1 else "steps"
    return f"{measure.step} {steps}, {measure.env_steps:,.0f} env steps"


def _episodes(comparison: Comparison) -> str:
    counts = {entry.label: entry.curves[0].episodes for entry in comparison.entries}
    if len(set(counts.values())) == 1:
        return f"{next(iter(counts.values()))} episodes"
    return f"several episodes ({', '.join(f'{label} {count}' for label, count in counts.items())})"


def _intervals(comparison: Comparison) -> str:
    single = [entry.label for entry in comparison.entries if len(entry.runs) == 1]
    text = f"Brackets and bands are 95 % intervals for other {comparison.others}."
    some = 0 < len(single) < len(comparison.entries)
    return text + (f" With a single seed they are for other tasks alone: {', '.join(single)}." if some else "")


def _reading(comparison: Comparison) -> Iterator[str]:
    yield (
        "Mean return with its 95 % interval; below it the interquartile mean (IQM), the mean of the worst 5 % of "
        "tasks (CVaR), and the env steps used on a task. Gain: after the last step minus before."
    )
    if any(not entry.runs[0].learner.pools_episodes for entry in comparison.entries):
        yield "For a learner with a memory, the steps are the trial's episodes, one after the other."
    if reference := comparison.reference:
        full = "" if reference.full_knowledge is None else f", with full knowledge {reference.full_knowledge:g}"
        yield f"For reference: without adaptation {reference.no_adaptation:g}{full} ({reference.source})."


def _behaviour(comparison: Comparison, remark: str, images: Mapping[str, Sequence[Image]]) -> list[str]:
    shown = f"All on the first task, {task_text(comparison.tasks[0])}, and from the same random numbers."
    return [text for text in (shown if images["behaviour"] else "", remark) if text]


def _summary_tables(comparison: Comparison, summary: Summary) -> Iterator[Table]:
    styles = styles_of(comparison.entries)

    def row(entry: Entry, cells: Sequence[Cell]) -> Row:
        return Row(entry.label, cells, styles[entry.label][0])

    yield Table(
        "Return",
        ["learner", "seeds", *STAGES.values(), "gain"],
        [row(entry, _returns(summary, entry)) for entry in comparison.entries],
    )
    if any(measure.statistic == SCORE for measure in summary.measures):
        yield Table(
            "Normalised score: 0 is the return without adaptation, 1 with full knowledge",
            ["normalised score", *STAGES.values()],
            [row(entry, [_score(summary, entry, stage) for stage in STAGES]) for entry in comparison.entries],
        )
    if len(comparison.entries) > 1:
        yield Table(
            "Probability of improvement",
            ["better on a task, after the last step, than", *(entry.label for entry in comparison.entries)],
            [row(one, [_beats(summary, one, other) for other in comparison.entries]) for one in comparison.entries],
        )


def _returns(summary: Summary, entry: Entry) -> list[Cell]:
    cells = [Cell(str(len(entry.runs)))]
    for stage in STAGES:
        mean, success = (summary.find(entry, stage, statistic) for statistic in (MEAN, SUCCESS))
        if mean is None:
            cells.append(NONE)
            continue
        also = {"IQM": IQM, "CVaR": CVAR}
        below = [f"{name} {_with_interval(summary.find(entry, stage, which))}" for name, which in also.items()]
        below += [f"success {_with_interval(success)}"] if success else []
        cells.append(Cell(_with_interval(mean), [*below, _cost(mean)]))
    gain = summary.find(entry, GAIN, MEAN)
    return [*cells, Cell(_with_interval(gain), [f"IQM {_with_interval(summary.find(entry, GAIN, IQM))}"])]


def _score(summary: Summary, entry: Entry, stage: str) -> Cell:
    mean = summary.find(entry, stage, SCORE)
    if mean is None:
        return NONE
    others = {"IQM": SCORE_IQM, GAP: GAP}
    below = [f"{name} {_with_interval(summary.find(entry, stage, which))}" for name, which in others.items()]
    return Cell(_with_interval(mean), below)


def _beats(summary: Summary, one: Entry, other: Entry) -> Cell:
    return Cell(_with_interval(summary.find(one, LAST, BEATS, other.label)))


def _task_rows(comparison: Comparison) -> Table:
    """Return a row for each entry and task: the task's parameters, and its returns, mean over seeds."""
    names, parameters = comparison.parameters()
    success = [] if comparison.entries[0].success is None else ["success at last"]
    columns = ["learner", "task", *names, "before", "as in training", "last", "gain", *success]
    rows = []
    for entry in comparison.entries:
        color = styles_of(comparison.entries)[entry.label][0]
        for task, values in enumerate(parameters):
            cells = [Cell(str(task), value=task), *map(_parameter, values), *_task_cells(entry, task)]
            rows.append(Row(entry.label, cells, color))
    return Table("Every task, mean over seeds; a click on a column's name sorts by it", columns, rows, sortable=True)


def _task_cells(entry: Entry, task: int) -> list[Cell]:
    returns = entry.returns[:, task].mean(0)
    training = NONE if entry.training_step is None else _value(returns[entry.training_step])
    cells = [_value(returns[0]), training, _value(returns[-1]), _value(returns[-1] - returns[0])]
    return cells if entry.success is None else [*cells, _value(entry.success[:, task, -1].mean())]


def _value(value: float) -> Cell:
    return Cell(number(float(value)), value=float(value))


def _parameter(value: Any) -> Cell:
    if isinstance(value, int | float | np.number):
        return Cell(f"{value:.4g}", value=float(value))
    return Cell(shorten(str(value), LONGEST_VALUE, placeholder=" ..."))


def _config_tables(comparison: Comparison) -> Iterator[Table]:
    """Return tables of the settings that differ between entries, and, folded, of all others."""
    settings = {entry.label: entry.runs[0].settings for entry in comparison.entries}
    names = list(dict.fromkeys(name for values in settings.values() for name in values))
    differing = [name for name in names if len({str(own[name]) for own in settings.values() if name in own}) > 1]
    alike = [name for name in names if name not in differing]

    def table(title: str, chosen: Sequence[str], folded: bool) -> Table:
        rows = [
            Row(name, [Cell(str(own.get(name, NONE.text))) for own in settings.values()], marked=not folded)
            for name in chosen
        ]
        return Table(title, ["setting", *settings], rows, folded=folded, words=True)

    if differing:
        yield table("What differs", differing, folded=False)
    yield table("All other settings: the same for all learners that have them", alike, folded=True)


def _runs_note(comparison: Comparison) -> list[str]:
    """Return a line about the runs of each entry, with anything unusual."""
    return [f"{entry.label}: {', '.join(_run_words(run) for run in entry.runs)}." for entry in comparison.entries]


def _run_words(run: Run) -> str:
    wanted = run.config.run.iterations
    part = "" if run.iteration == wanted else f", {run.iteration} of {wanted} iterations"
    return f"{run.path} (seed {run.config.run.seed}{part})"
