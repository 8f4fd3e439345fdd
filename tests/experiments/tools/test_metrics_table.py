from pathlib import Path

import pytest

from metarl.experiments.tools.metrics_table import PAGE, metrics_table, with_table
from metarl.learning.learner import LEARNERS
from metarl.run.metrics import METRICS
from metarl.training.train import train
from tests.runs import SELF_CONTAINED, tiny


def test_the_manual_holds_the_table_that_the_code_makes() -> None:
    page = PAGE.read_text()
    assert with_table(page) == page, "python experiments/tools/metrics_table.py writes it anew"


@pytest.mark.parametrize("name", SELF_CONTAINED)
def test_a_run_has_the_metrics_that_its_learner_declares(name: str, tmp_path: Path) -> None:
    row = train(tiny(name, tmp_path / "run", iterations=1)).read_metrics()[0]
    known = {metric: about.meaning for metric, about in METRICS.items() if about.in_file} | {**LEARNERS[name].metrics}
    assert set(row) <= set(known)
    assert all(", if " in known[metric] for metric in set(known) - set(row))  # success, or what a setting asks for


def test_metrics_that_mean_the_same_share_a_row() -> None:
    (shared,) = (line for line in metrics_table().splitlines() if line.startswith("| `sb3_updates` |"))
    assert all(f"`{name}`" in shared for name in ("a2c", "dqn", "ppo", "sac"))
