import numpy as np
import torch
from tensordict import TensorDict

from metarl.run.adaptation_curve import AdaptationCurve
from metarl.run.metrics import curve_rows, returns_row, task_table, tracked_row

RETURNS = np.array([[-4.0, -1.0], [-2.0, -3.0]])


def curve(success: np.ndarray | None = None, **parameters: torch.Tensor) -> AdaptationCurve:
    tasks = TensorDict(parameters, [2])
    return AdaptationCurve(tasks, RETURNS, np.array([0.0, 30.0]), 3, "test", success)


def test_a_row_of_returns_has_the_gain() -> None:
    assert returns_row([-3.0, -2.5, -1.0]) == {"return_before": -3.0, "return_after": -1.0, "gain": 2.0}


def test_it_has_success_where_it_is_reported_and_the_prefix_everywhere() -> None:
    assert returns_row([1.0, 2.0], [0.0, 0.5], "validation/") == {
        "validation/return_before": 1.0,
        "validation/return_after": 2.0,
        "validation/gain": 1.0,
        "validation/success_before": 0.0,
        "validation/success_after": 0.5,
    }


def test_a_tracked_row_leaves_out_what_was_not_measured_and_adds_other_names() -> None:
    row = {"env_steps": 60.0, "return_after": 2.0, "validation/return_after": None}
    assert tracked_row(row) == {
        "env_steps": 60.0,
        "return_after": 2.0,
        "charts/episodic_return": 2.0,
        "global_step": 60.0,
    }


def test_a_curve_has_a_row_for_each_step() -> None:
    assert curve_rows(curve(goal=torch.zeros(2))) == [
        {"adaptation_step": 0, "adaptation/return": -3.0, "adaptation/env_steps": 0.0},
        {"adaptation_step": 1, "adaptation/return": -2.0, "adaptation/env_steps": 30.0},
    ]


def test_a_curve_has_success_where_the_family_reports_it() -> None:
    rows = curve_rows(curve(np.array([[0.0, 1.0], [0.0, 0.5]]), goal=torch.zeros(2)))
    assert [row["adaptation/success"] for row in rows] == [0.0, 0.75]


def test_a_table_has_tasks_returns_and_gains() -> None:
    names, rows = task_table(curve(velocity=torch.tensor([0.5, 1.5])))
    assert names == ["task", "velocity", "return_0", "return_1", "gain"]
    assert rows == [[0, 0.5, -4.0, -1.0, 3.0], [1, 1.5, -2.0, -3.0, -1.0]]


def test_it_has_success_where_the_family_reports_it() -> None:
    names, rows = task_table(curve(np.array([[0.0, 1.0], [0.0, 0.5]]), velocity=torch.zeros(2)))
    assert names[-2:] == ["success_0", "success_1"]
    assert [row[-2:] for row in rows] == [[0.0, 1.0], [0.0, 0.5]]


def test_a_short_parameter_has_a_column_for_each_number_and_a_long_one_is_a_text() -> None:
    names, rows = task_table(curve(goal=torch.tensor([[1, 2], [3, 4]]), walls=torch.zeros(2, 3, 3, dtype=torch.int64)))
    assert names[:4] == ["task", "goal_0", "goal_1", "walls"]
    assert rows[1][:4] == [1, 3, 4, "[[0, 0, 0], [0, 0, 0], [0, 0, 0]]"]
