"""The table of all metrics in docs/tracking.md, generated from their declarations in the code.

    python experiments/tools/metrics_table.py

rewrites it between its two markers.
"""

from pathlib import Path

from metarl.learning.learner import LEARNERS
from metarl.run.metrics import METRICS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tracking.md"
BEGIN, END = "<!-- metrics: made by experiments/tools/metrics_table.py -->", "<!-- end of metrics -->"


def metrics_table() -> str:
    """Return a table of the metrics of all runs and learners; learners with the same metric share a row."""
    lines = ["| metric | of | logged against | in metrics.csv | meaning |", "|---|---|---|---|---|"]
    for name, metric in METRICS.items():
        in_file = "yes" if metric.in_file else "no"
        lines.append(f"| `{name}` | every run | `{metric.axis}` | {in_file} | {metric.meaning} |")
    for (name, meaning), learners in _of_learners().items():
        whose = ", ".join(f"`{learner}`" for learner in learners)
        lines.append(f"| `{name}` | {whose} | `iteration` | yes | {meaning} |")
    return "\n".join(lines)


def with_table(page: str) -> str:
    """Return a page with the table between its markers."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{metrics_table()}\n\n{END}{rest.split(END)[1]}"


def _of_learners() -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = {}
    for learner, known in LEARNERS.items():
        for metric in known.metrics.items():
            found.setdefault(metric, []).append(learner)
    return found


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
