import dataclasses
import re
from pathlib import Path

import pytest

from metarl.experiments.learning import overview
from metarl.experiments.learning.comparisons import COMPARISONS
from metarl.experiments.learning.quoted import QUOTED, Quoted
from metarl.experiments.learning.records import Record, write
from tests.experiments.records import point, record, seed_run

PAGE = Path(__file__).parents[3] / "docs" / "learning-results.md"
ONE = ["`one`", "4,000 env steps, 4.0 CPU min", "20"]


def rows(records: dict[str, Record], quoted: Quoted, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return the rows below the header of an overview of one comparison."""
    (folder / "tiny").mkdir()
    for label, found in records.items():
        write(folder / "tiny" / f"{label}.json", found)
    monkeypatch.setattr(overview, "QUOTED", {"tiny": quoted})
    lines = overview.overview(folder).splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_comparison_has_an_entry_which_names_a_section_with_its_results() -> None:
    sections = dict(re.findall(r"\n##+ (.+?)\n(.*?)(?=\n##|\Z)", PAGE.read_text(), re.DOTALL))
    assert set(COMPARISONS) <= set(QUOTED)
    for name in COMPARISONS:
        assert f"<!-- results:{name} -->" in sections[QUOTED[name].section]


def test_a_variant_has_its_returns_and_what_others_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [seed_run(seed, [point(4, [-4, -2, last])]) for seed, last in ((1, -2), (2, -1))]
    seen = dataclasses.replace(point(4, [-4, -2, -1]), training_returns=[-3.0, -1.0, 0.5])
    found = rows(
        {"one": record(*runs), "other": record(seed_run(3, [seen]))},
        Quoted("Two Steps", "after the last step", {"one": "-1.2"}, "a paper"),
        tmp_path,
        monkeypatch,
    )
    assert found == [
        ["**[Two Steps](#two-steps)**, after the last step", *[""] * 7, "a paper"],
        [*ONE, "-4.00", "-1.50 [-7.85, 4.85]", "-2.00, -1.00", "", "-1.2", ""],
        ["`other`", *ONE[1:], "-4.00", "-1.00 [-1.00, -1.00]", "-1.00", "0.50", "", ""],
    ]


def test_a_comparison_of_trials_has_the_return_of_a_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = dataclasses.replace(point(4, [1, 2, 3]), training_returns=[2.0, 2.0, 3.0])
    trials = record(seed_run(1, [seen], of_trials=True))
    found = rows({"one": trials}, Quoted("Trials", "trial of three episodes", of_trials=True), tmp_path, monkeypatch)
    assert found[1] == [*ONE, "", "6.00 [6.00, 6.00]", "6.00", "7.00", "", ""]


def test_a_comparison_about_success_has_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = record(seed_run(1, [point(4, [1, 2, 3], success=[0.0, 0.1, 0.25])]))
    found = rows({"one": about}, Quoted("Success", "success"), tmp_path, monkeypatch)
    assert found[1] == [*ONE, "0.00", "0.25 [0.00, 1.00]", "0.25", "0.50", "", ""]
