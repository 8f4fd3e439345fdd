import json
from pathlib import Path

import pytest

from metarl.agents.maml_trpo import MamlTrpoConfig
from metarl.config import RunConfig, TrainConfig
from metarl.errors import InputError
from metarl.experiments import learning_curve
from metarl.experiments.learning_curve import Options, run

TINY = TrainConfig(
    "maml-trpo",
    "navigation-2d",
    RunConfig(tasks_per_batch=2, episodes_per_task=3, horizon=5),
    MamlTrpoConfig(hidden_sizes=(8,)),
)


def test_every_seed_and_evaluation_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning_curve, "VARIANTS", {"tiny": {"one": TINY}})
    run(Options("tiny", seeds=(1, 2), iterations=4, every=2, tasks=3, out=str(tmp_path / "out")))
    runs = json.loads((tmp_path / "out" / "tiny.json").read_text())["variants"]["one"]
    assert [(each["seed"], [point["iteration"] for point in each["points"]]) for each in runs] == [
        (1, [2, 4]),
        (2, [2, 4]),
    ]
    assert (tmp_path / "out" / "tiny.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"every": 0}, "every must be at least 1, not 0"),
        ({"tasks": 0}, "tasks must be at least 1, not 0"),
        ({"iterations": 5, "every": 10}, "iterations .5. must be at least every .10."),
        ({"seeds": ()}, "at least one seed"),
    ],
)
def test_options_that_make_no_sense_are_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Options("navigation-2d", **changes)


def test_an_out_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="choose another --out"):
        run(Options("navigation-2d", out=str(tmp_path / "file" / "out")))


def test_an_unknown_curve_is_refused() -> None:
    with pytest.raises(InputError, match="navigation-2d"):
        run(Options("navigation"))
