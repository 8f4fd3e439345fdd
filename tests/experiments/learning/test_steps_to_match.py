import dataclasses
from pathlib import Path

import numpy as np
import pytest

from metarl.experiments.commands.main import guarded
from metarl.experiments.learning.records import write
from metarl.experiments.learning.steps_to_match import Options, first_reached, run, steps_to_match
from tests.experiments.records import point, record, seed_run

FAST = record(seed_run(1, [point(4, [-4, -2])]), seed_run(2, [point(4, [-4, 2])]))
SLOW = record(seed_run(1, [point(1, [-6, -2, 2], spent=100)]), learner="dqn", variant="scratch")
LOW = record(seed_run(1, [point(1, [-6, -3], spent=500)]), learner="dqn", variant="scratch")


@pytest.mark.parametrize(
    ("target", "expected"), [(-9, 0), (-6, 0), (-4, 50), (-2, 100), (-1, 150), (0, 200), (0.5, None)]
)
def test_steps_are_interpolated(target: float, expected: float | None) -> None:
    found = first_reached(np.array([0.0, 100, 200, 300]), np.array([-6.0, -2, 0, -1]), target)
    assert found == expected


def test_the_first_time_counts() -> None:
    assert first_reached(np.array([0.0, 100, 200, 300]), np.array([0.0, 4, 1, 5]), 2) == 50


def test_every_column_of_the_others_is_matched() -> None:
    table = steps_to_match({"fast": FAST, "slow": SLOW, "low": LOW}, "slow")
    assert table.splitlines()[2:] == [
        "| fast | 0 | 0 | -4.00 | 50 |",
        "|  | 1 | 10 | 0.00 | 150 |",
    ]


def test_what_is_not_reached_is_said() -> None:
    assert steps_to_match({"fast": FAST, "low": LOW}, "low").splitlines()[-1] == "|  | 1 | 10 | 0.00 | not within 500 |"


def test_returns_are_of_the_baselines_tasks() -> None:
    of_two = seed_run(1, [point(4, [-4, -2])])
    other = dataclasses.replace(of_two, final_returns=[[-6.0, -2.0], [-2.0, -2.0]])
    of_one = record(seed_run(1, [point(1, [-6, -2, 2], spent=100)], tasks=1), learner="dqn", variant="scratch")
    table = steps_to_match({"fast": record(other), "slow": of_one}, "slow")
    assert table.splitlines()[2:] == ["| fast | 0 | 0 | -6.00 | 0 |", "|  | 1 | 10 | -2.00 | 100 |"]


def test_the_command_reads_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gridnavi").mkdir()
    write(tmp_path / "gridnavi" / "maml-trpo.json", FAST)
    write(tmp_path / "gridnavi" / "dqn-scratch.json", SLOW)
    run(Options("gridnavi", "dqn-scratch", str(tmp_path)))
    assert "| maml-trpo | 0 | 0 | -4.00 | 50 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "baseline", "message"),
    [
        ("gridnav", "dqn-scratch", "no comparison is called 'gridnav'; did you mean gridnavi"),
        ("gridnavi", "dqn-scrach", "no variant of gridnavi is called 'dqn-scrach'; did you mean dqn-scratch"),
        (
            "gridnavi",
            "dqn-scratch",
            "dqn-scratch.json; create them with python experiments/learning/curve.py gridnavi --variants",
        ),
    ],
)
def test_bad_input_is_one_line(
    name: str, baseline: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded(lambda: run(Options(name, baseline, str(tmp_path)))) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
