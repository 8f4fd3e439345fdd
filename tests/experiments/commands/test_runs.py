"""``metarl runs`` and ``metarl train --config``."""

from pathlib import Path

import pytest

from metarl.experiments.commands.main import main
from metarl.storage.lock import RunLock
from metarl.training.train import train
from tests.experiments.messages import complaint
from tests.runs import small


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, list[str]]:
    """Return the cells of each run."""
    assert main(["runs", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    return {line.split()[0]: line.split() for line in lines}


def test_runs_are_listed_with_state_progress_and_returns(capsys: pytest.CaptureFixture[str]) -> None:
    train(small("runs/done", iterations=2))
    train(small("runs/sweep/stopped", iterations=2))
    Path("runs/sweep/stopped/finished.json").unlink()
    train(small("runs/broken", iterations=1))
    Path("runs/broken/config.json").write_text("{")
    capsys.readouterr()
    table = listed(capsys)
    assert table["done"][1:5] == ["finished", "maml-trpo", "bandit", "2/2"]
    assert 0 <= float(table["done"][5]) <= 1
    assert table["done"][-3:-2] == ["ago"]
    assert table["sweep/stopped"][1] == "stopped"
    assert table["broken"][1] == "damaged"
    with RunLock(Path("runs/done")):
        assert listed(capsys, "runs")["done"][1] == "running"


def test_a_folder_without_runs_and_none_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no folder runs; name the one that holds your runs" in complaint(["runs"], capsys)
    Path("empty").mkdir()
    assert main(["runs", "empty"]) == 0
    assert capsys.readouterr().out == "no runs in empty\n"


def test_a_runs_config_trains_again_to_the_same_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    first = train(small("first", iterations=2))
    assert main(["train", "--config", "first/config.json", "--out", "second", "--track", "disabled"]) == 0
    assert "trained 2 iterations" in capsys.readouterr().out
    columns = ["return_before", "return_after"]
    second = type(first)("second")
    assert [[row[name] for name in columns] for row in second.read_metrics()] == [
        [row[name] for name in columns] for row in first.read_metrics()
    ]


def test_a_config_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ["train", "--seed", "1", "--config", "x.yaml"],
        ["train", "--config"],
        ["train", "rl2", "--config=x"],
    ):
        assert "put it first, as in metarl train --config FILE" in complaint(words, capsys)
