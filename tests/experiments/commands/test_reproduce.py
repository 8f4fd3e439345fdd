import dataclasses
import json
from pathlib import Path

import pytest

from metarl.experiments.commands.main import main
from metarl.experiments.published import COSTS, MODULES, find_published
from metarl.training.train import train
from tests.experiments.messages import complaint


def test_every_published_experiment_has_a_cost() -> None:
    costs = json.loads(COSTS.read_text())
    assert sorted(costs) == sorted(MODULES)
    assert all(steps > 0 and minutes > 0 for steps, minutes in costs.values())


def test_runs_of_an_experiment_are_listed_under_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = find_published("reptile-navigation-2d").config
    changes = {"iterations": 1, "track": "disabled", "seed": 7}
    for out, more in (("runs/own", {}), ("runs/other", {"horizon": 2})):
        run = dataclasses.replace(config.run, out=out, **changes, **more)
        train(dataclasses.replace(config, run=run))
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "config.json").write_text("{}")
    assert main(["reproduce"]) == 0
    shown = capsys.readouterr().out
    before, _, after = shown.partition("reptile-navigation-2d")
    assert after.splitlines()[1] == "  runs/own: seed 7, 1 of 1 iterations"
    assert shown.count("seed 7") == 1
    assert [line.split()[0] for line in before.splitlines()] == sorted(MODULES)[: len(before.splitlines())]


def test_a_folder_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    line = complaint(["reproduce", "nowhere"], capsys)
    assert line == "metarl: there is no folder nowhere; name the one that holds your runs: metarl reproduce FOLDER\n"
