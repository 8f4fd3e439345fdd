import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from metarl.experiments.commands.parsing import parse
from metarl.experiments.tools import few_shot
from metarl.experiments.tools.few_shot import PAGE, RESULTS, Options, committed, fill_page, measured, run, table


def test_the_manual_has_the_numbers_of_the_committed_file() -> None:
    assert fill_page(PAGE.read_text(), committed(RESULTS)) == PAGE.read_text()


def test_the_command_prints_and_writes_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    little = {key: replace(settings, iterations=2) for key, settings in few_shot.SETTINGS.items()}
    monkeypatch.setattr(few_shot, "SETTINGS", little)
    monkeypatch.setattr(few_shot, "METRIC_ITERATIONS", {"sinusoids": 2, "characters": 2})
    monkeypatch.setattr(few_shot, "RESULTS", tmp_path / "few-shot.json")
    monkeypatch.setattr(few_shot, "PAGE", tmp_path / "page.md")
    (tmp_path / "page.md").write_text("before\n<!-- few-shot -->\nold\n<!-- /few-shot -->\nafter\n")
    run(parse(Options, "few_shot.py", ["--seeds", "1", "--write"]))
    printed = capsys.readouterr().out.strip()
    assert printed in (tmp_path / "page.md").read_text()
    scores: Any = json.loads((tmp_path / "few-shot.json").read_text())
    assert printed == table(scores)
    assert list(scores) == ["maml", "reptile", "siamese", "prototypical", "matching", "relation", "contrastive"]
    assert all(len(scores[name][problem]["1"]) == 200 for name in scores for problem in ("sinusoids", "characters"))
    # The same seed gives the same numbers.
    assert measured("relation", "characters", 1) == scores["relation"]["characters"]["1"]


def test_a_table_has_the_mean_and_each_seed() -> None:
    row = table({"maml": {"sinusoids": {"1": [1.0, 3.0], "2": [2.0, 4.0]}}}).splitlines()[-1]
    assert row.startswith("| maml | 2.500 [")
    assert row.endswith("] | 2.000, 3.000 |")
