"""The tables of docs/learning-results.md, from the result files of ``learning/curve.py``.

    python experiments/learning/tables.py

Writes the text between ``<!-- results:NAME -->`` and ``<!-- /results -->``, and between ``<!-- overview -->`` and
``<!-- /overview -->``; a test compares the page with the files.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from metarl.errors import InputError
from metarl.experiments.commands.parsing import guarded, parse
from metarl.experiments.learning.cells import each_seed, row, training, with_interval
from metarl.experiments.learning.comparisons import COMPARISONS, find_comparison_reference
from metarl.experiments.learning.overview import overview
from metarl.experiments.learning.records import Record, list_counts, read_comparison
from metarl.experiments.learning.steps_to_match import steps_to_match
from metarl.numerics.statistics import interquartile_mean, mean, share_interval
from metarl.storage.files import write_whole

OVERVIEW = re.compile(r"(<!-- overview -->\n).*?(<!-- /overview -->)", re.DOTALL)
MARKERS = re.compile(r"(<!-- results:(\S+) -->\n).*?(<!-- /results -->)", re.DOTALL)
HEADER = [
    *("variant", "training of a seed", "adaptation steps", "env steps on the task"),
    *("return", "gain", "return of each seed"),
]
TRAINING = "training tasks"
MOST_TASKS = 8  # each of which has a column of its own
SUCCESS_HEADER = """\
| variant | training of a seed | steps | env steps on the task | success | IQM | each seed | training tasks | return |
|---|---|---|---|---|---|---|---|---|"""


@dataclass(frozen=True)
class Options:
    """Write the tables of the page of learning results."""

    page: str = "docs/learning-results.md"
    """Path of the page."""
    results: str = "experiments/results"
    """Folder of the results."""


def fill_page(page: str, results: Path) -> str:
    """Return a page with the text between its markers replaced."""
    page = OVERVIEW.sub(lambda found: f"{found[1]}\n{overview(results)}\n\n{found[2]}", page)
    return MARKERS.sub(lambda found: f"{found[1]}\n{results_of(found[2], results)}\n\n{found[3]}", page)


def results_of(name: str, results: Path) -> str:
    """Return the results of a comparison: the figure, the table, and a table for each baseline from scratch."""
    records = read_comparison(results / name, COMPARISONS.get(name, ()))
    if not records:
        return f"No runs of this comparison are committed; `python experiments/learning/curve.py {name}` makes them."
    tasks = list_counts(len(record.tasks) for record in records.values())
    parts = [f"![{name}: {_measure(records)} against training and against adaptation](results/{name}.png)"]
    parts.append(f"{tasks} test tasks. {_references(name)}".strip())
    parts.append(results_table(records))
    if by_task := task_table(records):
        parts.append(by_task)
    if protocol := protocol_table(records):
        parts.append(protocol)
    for label, record in records.items():
        if record.from_scratch:
            count = len(record.tasks)
            parts.append(
                f"Env steps that `{label}` needs on a new task to reach the others' return on its {count} tasks:"
            )
            parts.append(steps_to_match(records, label))
    return "\n\n".join(parts)


def results_table(records: Mapping[str, Record]) -> str:
    """Return a Markdown table with rows before adaptation, after as many steps as in training, and after all steps."""
    if all(record.by_success for record in records.values()):
        return "\n".join(
            [SUCCESS_HEADER, *(line for label, record in records.items() for line in _success(label, record))]
        )
    trained = any(record.trained is not None for record in records.values())
    header = [*HEADER, TRAINING] if trained else HEADER
    rows = (line for label, record in records.items() for line in _rows(label, record, trained))
    return "\n".join([row(*header), f"|{'---|' * len(header)}", *rows])


def task_table(records: Mapping[str, Record]) -> str:
    """Return a Markdown table of the last returns on each test task, if all records have the same few; else nothing."""
    tasks = next(iter(records.values())).tasks
    if not tasks or len(tasks) > MOST_TASKS or any(record.tasks != tasks for record in records.values()):
        return ""
    names = (", ".join(f"{key} {value}" for key, value in task.items()) for task in tasks)
    head = ["Return after the last step on each test task, mean over seeds (of each seed):\n", row("variant", *names)]
    rows = []
    for label, record in records.items():
        returns = record.returns(record.columns[-1])
        cells = (f"{task.mean():z.2f} ({', '.join(f'{seed:z.1f}' for seed in task)})" for task in returns.T)
        rows.append(row(label, *cells))
    return "\n".join([*head, f"|{'---|' * (len(tasks) + 1)}", *rows])


def protocol_table(records: Mapping[str, Record]) -> str:
    """Return a Markdown table of success by the field's own protocol, seed by seed; empty where there is none."""
    rows = [
        (label, str(run.seed), *(f"{rate:.1%}" for rate in run.protocol.values()))
        for label, record in records.items()
        for run in record.runs
        if run.protocol is not None
    ]
    names = next((list(run.protocol) for record in records.values() for run in record.runs if run.protocol), None)
    if names is None:
        return ""
    head = ["By the package's own protocol:\n", row("variant", "seed", *names), f"|{'---|' * (len(names) + 2)}"]
    return "\n".join([*head, *(row(*cells) for cells in rows)])


def _steps(record: Record) -> list[int]:
    return sorted({0, record.inner_steps, record.steps})


def _success(label: str, record: Record) -> Iterator[str]:
    first = [label, training(record)]
    for step in _steps(record):
        rates = record.success(step)
        estimate, low, high = (value.item() for value in share_interval(mean, rates))
        middle = interquartile_mean(rates.mean(1)[:, None]).item()
        seeds = ", ".join(f"{seed:.1%}" for seed in rates.mean(1))
        trained = np.nan if record.trained is None else record.trained[step]
        cells = [f"{estimate:.1%} [{low:.1%}, {high:.1%}]", f"{middle:.1%}", seeds, f"{trained:.1%}"]
        yield row(*first, str(step), f"{record.spent[step]:,.0f}", *cells, with_interval(record.returns(step)))
        first = ["", ""]


def _rows(label: str, record: Record, trained: bool) -> Iterator[str]:
    first = [label, training(record)]
    for step in _steps(record):
        returns = record.returns(step)
        gain = with_interval(returns - record.returns(0), "+") if step else ""
        seen = ["" if record.trained is None else f"{record.trained[step]:z.2f}"] * trained
        cells = [f"{record.spent[step]:,.0f}", with_interval(returns), gain, each_seed(returns), *seen]
        yield row(*first, str(step), *cells)
        first = ["", ""]
    if (totals := record.totals) is not None:
        yield row("", "", "whole trial", "", with_interval(totals), "", each_seed(totals), *[""] * trained)


def _measure(records: Mapping[str, Record]) -> str:
    return "success" if all(record.by_success for record in records.values()) else "return"


def _references(name: str) -> str:
    reference = find_comparison_reference(name)
    if reference is None:
        return ""
    return f"For comparison: {', '.join(f'{label} {value:.4g}' for label, value in reference.lines.items())}."


def run(options: Options) -> None:
    """Write the page."""
    page = Path(options.page)
    if not page.is_file():
        raise InputError(f"there is no page {page}; --page names a Markdown file with the markers of comparisons")
    text = fill_page(page.read_text(), Path(options.results))
    write_whole(page, lambda part: part.write_text(text))


if __name__ == "__main__":
    sys.exit(guarded(lambda: run(parse(Options, "python experiments/learning/tables.py", sys.argv[1:]))))
