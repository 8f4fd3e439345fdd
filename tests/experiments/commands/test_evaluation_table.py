import dataclasses
import re
from pathlib import Path

import numpy as np
import torch
from tensordict import TensorDict

from metarl.experiments.commands.evaluation_table import adaptation_table, describe_training
from metarl.families.references import Reference
from metarl.run.adaptation_curve import AdaptationCurve
from metarl.run.config import RunConfig, TrainConfig
from metarl.run.directory import RunDirectory


def curve(returns: list[list[float]]) -> AdaptationCurve:
    matrix = np.array(returns)
    tasks = TensorDict({"goal": torch.zeros(len(matrix), 2)}, [len(matrix)])
    return AdaptationCurve(tasks, matrix, 2000.0 * np.arange(matrix.shape[1]), 20, "test")


def rows(returns: list[list[float]]) -> list[list[str]]:
    """Return the words of each row of a table."""
    lines = adaptation_table(curve(returns)).splitlines()[1:]
    return [re.sub(r"[\[\],]", " ", line).split() for line in lines]


# Two equal tasks: the mean is theirs, and the interval is that one point.
EQUAL = [[-38.4, -17.0, -12.5], [-38.4, -17.0, -12.5]]


def test_a_table_holds_the_return_before_and_after_each_step_and_the_difference() -> None:
    assert rows(EQUAL) == [
        ["before", "adaptation", "0", "-38.40", "-38.40", "-38.40", "-38.40"],
        ["after", "step", "1", "2", "000", "-17.00", "-17.00", "-17.00", "-17.00"],
        ["after", "step", "2", "4", "000", "-12.50", "-12.50", "-12.50", "-12.50"],
        ["difference", "4", "000", "+25.90", "25.90", "25.90", "25.90"],
    ]


def test_a_loss_by_adaptation_has_its_sign() -> None:
    assert rows([[1.0, 0.5], [1.0, 0.5]])[-1] == ["difference", "2", "000", "-0.50", "-0.50", "-0.50", "-0.50"]


def test_without_adaptation_there_is_no_difference() -> None:
    assert [row[0] for row in rows([[1.0], [2.0]])] == ["before"]


def test_the_difference_has_an_interval_of_its_own() -> None:
    # Tasks differ by 100, their gains by nothing: paired, the gain is certain.
    assert rows([[0.0, 1.0], [100.0, 101.0]])[-1][-3:-1] == ["1.00", "1.00"]


def test_the_last_column_is_the_mean_of_the_worst_twentieth_of_the_tasks() -> None:
    (row,) = rows([[float(task)] for task in range(40)])
    assert row[-1] == "0.50"  # of tasks 0 and 1


def test_columns_are_under_each_other() -> None:
    lines = adaptation_table(curve([[-1234.5, 3.0], [-1230.0, 12345.0]])).splitlines()
    assert len({line.index("[") for line in lines[1:]}) == 1


def test_success_has_a_column_where_it_is_known() -> None:
    known = dataclasses.replace(curve(EQUAL), success=np.array([[0.0, 0.5, 1.0], [0.0, 1.0, 1.0]]))
    lines = adaptation_table(known).splitlines()
    assert lines[0].endswith("success")
    assert [line.split("]")[1].split()[1:] for line in lines[1:]] == [["0.0", "%"], ["75.0", "%"], ["100.0", "%"], []]
    assert "success" not in adaptation_table(curve(EQUAL))


def test_of_many_steps_the_first_the_last_and_some_between_have_rows() -> None:
    steps = [row for row in rows([list(range(100))] * 2) if row[0] == "after"]
    assert [int(row[2]) for row in steps] == [9, 18, 27, 36, 45, 54, 63, 72, 81, 90, 99]


def test_a_trial_has_the_sum_of_its_episodes() -> None:
    of_trials = dataclasses.replace(curve([[1.0, 2.0, 4.0], [3.0, 2.0, 4.0]]), of_trials=True)
    assert adaptation_table(of_trials).splitlines()[-1].split()[:3] == ["whole", "trial", "8.00"]
    assert "whole trial" not in adaptation_table(curve(EQUAL))


def test_what_the_return_is_compared_with_is_in_its_column() -> None:
    lines = adaptation_table(curve(EQUAL), Reference(100, -38.4, -0.51, "known")).splitlines()
    assert [line.split() for line in lines[-2:]] == [["no", "adaptation", "-38.40"], ["full", "knowledge", "-0.51"]]
    assert len({len(line.split("[")[0].rstrip()) for line in lines[1:]}) == 1


def test_the_training_is_described_up_to_the_checkpoint(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    directory.metrics.write_text("iteration,env_steps,time_iteration\n0,6000,30\n1,12000,60\n2,18000,900\n")
    config = TrainConfig("random", "bandit", RunConfig(seed=7))
    described = "random on bandit (k5), seed 7, trained for 2 iterations, 12,000 env steps, 1.5 min"
    assert describe_training(directory, config, 2) == described
    assert describe_training(directory, config, 0).endswith(", trained for 0 iterations")
    assert describe_training(RunDirectory(tmp_path / "no-metrics"), config, 2) == described.split(", 12", maxsplit=1)[0]
