from pathlib import Path

import pytest

from metarl.errors import InputError
from metarl.experiments.commands.collect import TASKS_PER_SHARD, CollectOptions, collect
from metarl.experiments.commands.main import main
from metarl.run.recorded import load_recorded
from metarl.training.train import train
from tests.runs import small


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("collect") / "run"
    train(small(path, "gridnavi", iterations=1, validate_every=1))
    return path


def test_the_command_records_what_train_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    online = ["train", "pearl", "navigation-2d", "--horizon", "5", "--iterations", "1", "--tasks-per-batch", "2"]
    online += ["--episodes-per-task", "2", "--updates-per-iteration", "1", "--track", "disabled"]
    assert main([*online, "--out", str(tmp_path / "run")]) == 0
    assert main(["collect", str(tmp_path / "run"), "--out", str(tmp_path / "data"), "--tasks", "3"]) == 0
    assert "3 train tasks, 4 episodes of each, 60 env steps" in capsys.readouterr().out
    assert main([*online, "--out", str(tmp_path / "offline"), "--data", str(tmp_path / "data")]) == 0
    assert "trained 1 iterations, 0 env steps" in capsys.readouterr().out


def test_the_best_policy_and_another_part_are_recorded(run: Path, tmp_path: Path) -> None:
    collect(CollectOptions(str(run), str(tmp_path / "data"), tasks=100, episodes=1, part="test", policy="best"))
    data = load_recorded(tmp_path / "data")
    assert data.rollout.num_tasks == 4  # all that there are
    assert data.description.part == "test"
    assert data.description.made_by["policy"] == "best"


def test_many_tasks_are_in_several_shards(tmp_path: Path) -> None:
    train(small(tmp_path / "run", iterations=1))
    collect(CollectOptions(str(tmp_path / "run"), str(tmp_path / "data"), tasks=TASKS_PER_SHARD + 1, episodes=1))
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [
        "data.json",
        "shard-00000.npz",
        "shard-00001.npz",
    ]


def test_recording_twice_records_the_same(run: Path, tmp_path: Path) -> None:
    for name in ("one", "other"):
        collect(CollectOptions(str(run), str(tmp_path / name), tasks=3, episodes=2))
    assert load_recorded(tmp_path / "one").fingerprint == load_recorded(tmp_path / "other").fingerprint


@pytest.mark.parametrize("counts", [{"tasks": 0}, {"episodes": 0}])
def test_counts_below_one_are_refused(counts: dict[str, int]) -> None:
    with pytest.raises(InputError, match="must be at least 1"):
        CollectOptions("run", "data", **counts)


def test_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no run directory"):
        collect(CollectOptions(str(tmp_path / "nothing"), str(tmp_path / "data")))
    assert not (tmp_path / "data").exists()
