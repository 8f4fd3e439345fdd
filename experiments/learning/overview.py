"""All learning results in one table, beside what others published."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from metarl.experiments.learning.cells import each_seed, row, training, with_interval
from metarl.experiments.learning.comparisons import COMPARISONS
from metarl.experiments.learning.quoted import QUOTED, Quoted
from metarl.experiments.learning.records import Record, read_comparison

HEADER = [
    *("task and learner", "training of a seed", "env steps on the task", "before", "return"),
    *("each seed", "training tasks", "published", "source"),
]


def overview(results: Path) -> str:
    """Return a Markdown table with a row for each comparison that has results, and one for each of its variants.

    Args:
        results: folder of the results.
    """
    rows = [row(*HEADER), f"|{'---|' * len(HEADER)}"]
    for name, quoted in QUOTED.items():
        if records := read_comparison(results / name, COMPARISONS.get(name, ())):
            rows.extend(_rows(quoted, records))
    return "\n".join(rows)


def _rows(quoted: Quoted, records: Mapping[str, Record]) -> Iterator[str]:
    anchor = re.sub(r"[^a-z0-9]+", "-", quoted.section.lower())
    yield row(f"**[{quoted.section}](#{anchor})**, {quoted.measure}", *[""] * (len(HEADER) - 2), quoted.source)
    for label, record in records.items():
        before, scores, seen = _scores(record, quoted.of_trials)
        spent = f"{record.spent[record.columns[-1]]:,.0f}"
        after = with_interval(scores, shares=record.by_success)
        cells = [training(record), spent, before, after, each_seed(scores), seen]
        yield row(f"`{label}`", *cells, quoted.published.get(label, ""), "")


def _scores(record: Record, of_trials: bool) -> tuple[str, np.ndarray, str]:
    """Return the mean before adaptation, the scores ``[seeds, tasks]``, and the mean on training tasks, if known."""
    last, trained = record.columns[-1], record.trained
    if of_trials and record.totals is not None:
        return "", record.totals, "" if trained is None else f"{trained.sum():z.2f}"
    scores = record.success if record.by_success else record.returns
    return f"{scores(0).mean():z.2f}", scores(last), "" if trained is None else f"{trained[last]:z.2f}"
