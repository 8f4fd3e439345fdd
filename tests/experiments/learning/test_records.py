import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from metarl.errors import InputError
from metarl.experiments.learning.records import list_counts, read_comparison, read_record, read_run, rounded, write
from tests.experiments.records import point, record, seed_run

MEASURED = record(
    seed_run(1, [point(2, [-4, -3]), point(4, [-4, -2])]),
    seed_run(2, [point(4, [-4, -1], env_steps=3000, spent=20)]),
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write(tmp_path / "one.json", MEASURED)
    assert read_record(tmp_path / "one.json") == MEASURED
    write(tmp_path / "run.json", MEASURED.runs[0])
    assert read_run(tmp_path / "run.json") == MEASURED.runs[0]


def test_a_list_of_numbers_is_one_line(tmp_path: Path) -> None:
    write(tmp_path / "one.json", MEASURED)
    assert '"spent": [0.0, 10.0],\n' in (tmp_path / "one.json").read_text()


def test_a_file_says_which_tasks_and_which_actions(tmp_path: Path) -> None:
    write(tmp_path / "one.json", MEASURED)
    content = json.loads((tmp_path / "one.json").read_text())
    assert (content["part"], content["actions"], len(content["tasks"])) == ("test", "sampled", 2)


def test_runs_are_compared_at_the_iterations_that_they_share() -> None:
    assert [[each.iteration for each in points] for points in MEASURED.points()] == [[4, 4]]


def test_means_are_over_runs() -> None:
    assert MEASURED.spent.tolist() == [0, 15]
    assert MEASURED.curves.tolist() == [[-4, -2], [-4, -1]]


def test_returns_of_tasks_are_found_by_their_step() -> None:
    found = dataclasses.replace(MEASURED, columns=[0, 5])
    assert found.returns(5).tolist() == [[-2, -2], [-1, -1]]
    assert found.totals is None
    assert record(seed_run(1, [point(2, [1, 2])], of_trials=True)).totals == pytest.approx(np.full((1, 2), 3))


def test_learners_from_scratch_are_known_by_their_settings() -> None:
    run = seed_run(1, [point(2, [1, 2])])
    assert record(run, learner="dqn", variant="scratch").from_scratch
    assert not record(run, learner="dqn", variant="oracle").from_scratch
    assert not record(run, learner="maml-trpo").from_scratch


def test_a_comparison_has_the_order_of_its_variants(tmp_path: Path) -> None:
    for label in ("another", "dqn-oracle", "maml-trpo"):
        write(tmp_path / f"{label}.json", MEASURED)
    assert list(read_comparison(tmp_path, ["maml-trpo", "reptile", "dqn-oracle"])) == [
        "maml-trpo",
        "dqn-oracle",
        "another",
    ]
    assert read_comparison(tmp_path / "nowhere", ["maml-trpo"]) == {}


def test_missing_results_name_the_command(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"create them with python experiments/learning/curve.py tiny --variants one"):
        read_record(tmp_path / "tiny" / "one.json")


@pytest.mark.parametrize("text", ["", "{", '{"config": {}}', '{"seed": "many"}'])
def test_damaged_files_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(text)
    for read in (read_record, read_run):
        with pytest.raises(InputError, match=r"one.json is damaged"):
            read(tmp_path / "one.json")


def test_a_run_that_was_not_measured_is_none(tmp_path: Path) -> None:
    assert read_run(tmp_path / "run.json") is None


def test_numbers_keep_five_digits() -> None:
    assert rounded([[-38.437261, 123456.7], [0.000123456]]) == [[-38.437, 123460.0], [0.00012346]]
    assert rounded([3, None]) == [3, None]


def test_counts_are_listed_once_each_in_order() -> None:
    assert (list_counts([3, 3]), list_counts(iter([40, 6, 40]))) == ("3", "6 or 40")
