import dataclasses
import re
from pathlib import Path

import pytest

from metarl.errors import InputError
from metarl.experiments.learning.comparisons import COMPARISONS
from metarl.experiments.learning.records import write
from metarl.experiments.learning.tables import (
    MOST_TASKS,
    Options,
    fill_page,
    results_of,
    results_table,
    run,
    task_table,
)
from tests.experiments.records import point, record, seed_run

ROOT = Path(__file__).parents[3]
PAGE, RESULTS = ROOT / "docs" / "learning-results.md", ROOT / "experiments" / "results"
CURVE = record(
    seed_run(1, [point(4, [-4, -2, -1], env_steps=250_000)]), seed_run(2, [point(4, [-4, -1, -1], env_steps=250_000)])
)


ONE = ["one", "4,000 env steps, 4.0 CPU min"]


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_the_manual_has_the_numbers_of_the_committed_files() -> None:
    assert PAGE.read_text() == fill_page(PAGE.read_text(), RESULTS), "python experiments/learning/tables.py"


def test_every_comparison_and_every_result_is_in_the_manual() -> None:
    marked = set(re.findall("<!-- results:(.*) -->", PAGE.read_text()))
    assert marked == set(COMPARISONS)
    assert {path.name for path in RESULTS.iterdir() if path.is_dir()} <= marked


def test_a_table_has_rows_before_after_training_length_and_after_all_steps() -> None:
    assert cells(results_table({"one": CURVE})) == [
        ["one", "1,000,000 env steps, 4.0 CPU min", "0", "0", "-4.00 [-4.00, -4.00]", "", "-4.00, -4.00"],
        # Two seeds of -2 and -1: their mean, and Student's 12.7 times its standard error of a half.
        ["", "", "1", "10", "-1.50 [-7.85, 4.85]", "+2.50 [-3.85, +8.85]", "-2.00, -1.00"],
        ["", "", "2", "20", "-1.00 [-1.00, -1.00]", "+3.00 [+3.00, +3.00]", "-1.00, -1.00"],
    ]


def test_a_learner_of_trials_has_the_return_of_a_trial() -> None:
    trials = record(seed_run(1, [point(4, [1, 2, 3])], of_trials=True), inner_steps=2)
    assert cells(results_table({"one": trials}))[-1] == ["", "", "whole trial", "", "6.00 [6.00, 6.00]", "", "6.00"]


def test_returns_on_training_tasks_have_a_column_where_they_are_known() -> None:
    trained = dataclasses.replace(point(4, [-4, -2, -1]), training_returns=[-3.0, -1.0, 0.5])
    found = cells(results_table({"one": CURVE, "other": record(seed_run(1, [trained]))}))
    assert [row[-1] for row in found] == ["", "", "", "-3.00", "-1.00", "0.50"]
    assert all(len(row) == 8 for row in found)


def test_few_test_tasks_have_a_column_each() -> None:
    runs = [seed_run(seed, [point(4, [-4, last])]) for seed, last in ((1, -2), (2, -1))]
    assert cells(task_table({"one": record(*runs)}).split("\n\n")[1]) == [["one", *["-1.50 (-2.0, -1.0)"] * 2]]
    many = seed_run(1, [point(4, [-4, -2])], tasks=MOST_TASKS + 1)
    assert task_table({"one": record(many)}) == ""
    assert task_table({"one": record(*runs), "other": record(seed_run(1, [point(4, [-4, -2])], tasks=3))}) == ""


def test_a_comparison_about_success_has_it_on_test_and_training_tasks_and_by_the_protocol(tmp_path: Path) -> None:
    runs = [seed_run(seed, [point(4, [1, 2], success=[0.0, share])]) for seed, share in ((1, 0.25), (2, 0.25))]
    about = record(*runs)
    assert cells(results_table({"one": about})) == [
        [*ONE, "0", "0", "0.0% [0.0%, 92.5%]", "0.0%", "0.0%, 0.0%", "0.0%", "1.00 [1.00, 1.00]"],
        ["", "", "1", "10", "25.0% [0.5%, 95.8%]", "25.0%", "25.0%, 25.0%", "50.0%", "2.00 [2.00, 2.00]"],
    ]
    (tmp_path / "tiny").mkdir()
    write(tmp_path / "tiny" / "one.json", about)
    text = results_of("tiny", tmp_path)
    assert "tiny: success against training" in text
    assert "| variant | seed | all | door-close-v3 |\n|---|---|---|---|\n| one | 1 | 25.0% | 25.0% |\n" in text


def test_unknown_times_are_left_out() -> None:
    whole = seed_run(1, [point(4, [1, 2])])
    object.__setattr__(whole.points[0], "training_cpu_seconds", None)
    assert cells(results_table({"one": record(whole)}))[0][1] == "4,000 env steps"


def test_training_on_recorded_episodes_is_marked() -> None:
    whole = dataclasses.replace(record(seed_run(1, [point(4, [1, 2], env_steps=0)])), recording={"tasks": 3})
    assert cells(results_table({"one": whole}))[0][1] == "0 env steps, recorded episodes, 4.0 CPU min"


def test_only_what_is_between_the_markers_is_written(tmp_path: Path) -> None:
    (tmp_path / "results" / "gridnavi").mkdir(parents=True)
    write(tmp_path / "results" / "gridnavi" / "maml-trpo.json", CURVE)
    page = "before\n<!-- results:gridnavi -->\nold -1.00\n<!-- /results -->\nafter\n"
    (tmp_path / "page.md").write_text(page)
    run(Options(str(tmp_path / "page.md"), str(tmp_path / "results")))
    text = (tmp_path / "page.md").read_text()
    assert text == page.replace("old -1.00", f"\n{results_of('gridnavi', tmp_path / 'results')}\n")
    assert "(results/gridnavi.png)" in text
    assert "2 test tasks. For comparison: no adaptation -0.77, full knowledge 11.07." in text


def test_a_comparison_without_results_says_so(tmp_path: Path) -> None:
    assert "`python experiments/learning/curve.py gridnavi` makes them" in results_of("gridnavi", tmp_path)


def test_baselines_from_scratch_have_a_table_of_steps_to_match(tmp_path: Path) -> None:
    (tmp_path / "gridnavi").mkdir()
    write(tmp_path / "gridnavi" / "maml-trpo.json", CURVE)
    write(
        tmp_path / "gridnavi" / "dqn-scratch.json",
        record(seed_run(1, [point(1, [-9, 0])]), learner="dqn", variant="scratch"),
    )
    shown = results_of("gridnavi", tmp_path)
    assert shown.count("| env steps of dqn-scratch to match |") == 1
    assert "`dqn-scratch` needs on a new task to reach the others' return on its 2 tasks" in shown
    assert "| dqn-scratch | none | 0 |" in shown


def test_a_page_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no page .*missing.md; --page names"):
        run(Options(page=str(tmp_path / "missing.md")))
    assert not list(tmp_path.iterdir())
