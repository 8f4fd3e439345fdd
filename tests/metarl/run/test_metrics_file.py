from pathlib import Path

import pytest

from metarl.errors import InputError
from metarl.run.directory import RunDirectory, write_whole
from metarl.run.metrics_file import MetricsRow, append_row, column_names, digest, read_metrics, write_rows

GOOD = "iteration,env_steps,loss\n0,8,0.5\n1,16,\n"


def written(path: Path, content: str | bytes) -> Path:
    file = path / "metrics.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def test_rows_are_numbers_with_types(tmp_path: Path) -> None:
    rows = read_metrics(written(tmp_path, GOOD))
    assert rows == [{"iteration": 0, "env_steps": 8, "loss": 0.5}, {"iteration": 1, "env_steps": 16, "loss": None}]
    assert [type(rows[0][name]) for name in rows[0]] == [int, int, float]


def test_what_is_appended_is_read_back_to_the_last_digit(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    append_row(file, {"iteration": 0, "env_steps": 3, "loss": 0.1 + 0.2}, write_whole)
    append_row(file, {"iteration": 1, "env_steps": 6, "loss": float("inf"), "late": 1.0}, write_whole)
    assert read_metrics(file) == [
        {"iteration": 0, "env_steps": 3, "loss": 0.1 + 0.2, "late": None},
        {"iteration": 1, "env_steps": 6, "loss": float("inf"), "late": 1.0},
    ]


@pytest.mark.parametrize("cut", range(len(GOOD)))
def test_a_file_cut_anywhere_has_the_rows_that_are_whole(tmp_path: Path, cut: int) -> None:
    whole = max(GOOD[:cut].count("\n") - 1, 0)
    assert len(read_metrics(written(tmp_path, GOOD[:cut]))) == whole


def test_columns_of_a_torn_first_line_are_none(tmp_path: Path) -> None:
    assert column_names(written(tmp_path, "iteration,env_st")) == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x80\x81\xff\n", "not text"),
        ("iteration,loss\n0,0.5\n2,0.5\n", "line 3 is of iteration 2, where iteration 1 belongs"),
        ("iteration,loss\n1,0.5\n", "line 2 is of iteration 1, where iteration 0 belongs"),
        ("iteration,loss\n0,much\n", "line 2 has 'much' for loss, which is not a number"),
        ("iteration,loss\n0.5,1\n", "line 2 has '0.5' for iteration"),
        ("iteration,loss\n0\n", "line 2 has 1 values for 2 columns"),
        ("iteration,loss\n0,1,2\n", "line 2 has 3 values for 2 columns"),
        ("name,loss\nA,1\n", "its header lacks the column"),
        ("iteration,iteration\n0,0\n", "its header lacks the column"),
        ('iteration,loss\n0,"1\n', "not text in columns"),
        ("iteration,loss\n0,\x00\n", "."),
        ("\n\n\n", "."),
        (f"iteration,loss\n{'9' * 5000},1\n", "iteration"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_file_of_something_else_is_refused_in_one_line(tmp_path: Path, content: str | bytes, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        read_metrics(written(tmp_path, content))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_file_with_fewer_rows_than_the_checkpoint_has_iterations_is_refused(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    write_rows(directory.metrics, ["iteration"], [{"iteration": 0}])
    with pytest.raises(InputError, match="has 1 of the 2 iterations"):
        directory.keep_metrics(2)


def test_a_digest_knows_every_number_and_no_column_that_comes_later() -> None:
    rows: list[MetricsRow] = [{"iteration": 0, "loss": 0.5}, {"iteration": 1, "loss": 0.25, "validation/loss": 1.0}]
    assert digest(rows) != digest([rows[0], {**rows[1], "loss": 0.125}])
    assert digest(rows) == digest([{**rows[0], "validation/loss": None}, rows[1]])
    assert digest(rows, forget="validation/") == digest([rows[0], {"iteration": 1, "loss": 0.25}])
    assert digest([]) != digest(rows)
