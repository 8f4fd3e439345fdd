from pathlib import Path
from typing import Any

from metarl.experiments.compare.runs import group_runs, read_runs
from metarl.sampling.task_source import StreamConfig
from tests.experiments.compared import trained


def test_runs_that_differ_only_in_their_seed_and_place_are_one_entry(tmp_path: Path) -> None:
    def run(name: str, seed: int, **settings: Any) -> str:
        return trained(tmp_path / name, "maml-trpo", "bandit", seed, **settings)

    place = {"checkpoint_every": 3, "group": "mine", "validate_every": 1}
    paths = [run("b", 2), run("a", 1, **place), run("c", 1, inner_lr=0.5), run("d", 1, inner_lr=0.5, inner_steps=2)]
    groups = group_runs(read_runs(paths))
    assert {label: [run.path for run in found] for label, found in groups.items()} == {
        "maml-trpo (inner_lr 0.1, inner_steps 1)": [paths[1], paths[0]],
        "maml-trpo (inner_lr 0.5, inner_steps 1)": [paths[2]],
        "maml-trpo (inner_lr 0.5, inner_steps 2)": [paths[3]],
    }


def test_a_label_has_no_more_settings_than_there_is_room_for(tmp_path: Path) -> None:
    many = {"inner_lr": 0.5, "later_lr_factor": 1.0, "gae_lambda": 0.9, "discount": 0.9, "context_size": 4}
    paths = [
        trained(tmp_path / "a", "maml-trpo", "bandit", 1),
        trained(tmp_path / "b", "maml-trpo", "bandit", 1, **many),
        trained(tmp_path / "c", "maml-trpo", "bandit", 1, **{**many, "inner_lr": 0.7}),
    ]
    assert list(group_runs(read_runs(paths))) == [f"maml-trpo (inner_lr {rate}, ...)" for rate in (0.1, 0.5, 0.7)]


def test_a_variant_is_enough_to_distinguish_baselines(tmp_path: Path) -> None:
    scratch = trained(tmp_path / "scratch", "dqn", "gridnavi", 1, variant="scratch")
    oracle = trained(tmp_path / "oracle", "dqn", "gridnavi", 1, variant="oracle", iterations=2)
    assert list(group_runs(read_runs([scratch, oracle]))) == ["dqn (scratch)", "dqn (oracle)"]


def test_a_learner_with_a_variant_always_shows_it(tmp_path: Path) -> None:
    oracle = trained(tmp_path / "oracle", "dqn", "gridnavi", 1, variant="oracle")
    assert list(group_runs(read_runs([oracle]))) == ["dqn (oracle)"]


def test_a_label_has_no_module(tmp_path: Path) -> None:
    own = "metarl.agents.baselines.random_policy:random", "metarl.envs.basic.bandit:bandit"
    paths = [trained(tmp_path / "own", *own, 1), trained(tmp_path / "plain", "random", "bandit", 2)]
    groups = group_runs(read_runs(paths))
    assert {label: [run.path for run in found] for label, found in groups.items()} == {"random": paths}


def test_learners_are_distinguished_by_what_they_were_trained_on(tmp_path: Path) -> None:
    paths = [
        trained(tmp_path / "uniform", "random", "bandit", 1),
        trained(tmp_path / "plr", "random", "bandit", 1, task_source="plr"),
        trained(tmp_path / "few", "random", "bandit", 1, train_tasks=2),
    ]
    labels = [
        f"random (task_source {source}, train_tasks {few})"
        for source, few in (("uniform", None), ("plr", None), ("uniform", 2))
    ]
    assert list(group_runs(read_runs(paths))) == labels
    start = trained(tmp_path / "start", "reptile", "bandit", 1)
    paths = [start, trained(tmp_path / "further", "reptile", "bandit", 2, start_from=start)]
    assert list(group_runs(read_runs(paths))) == ["reptile (start_from None)", "reptile (start_from a run)"]


def test_streams_with_other_settings_are_other_entries(tmp_path: Path) -> None:
    paths = [
        trained(tmp_path / str(first), "random", "bandit", 1, task_source="stream", train_tasks=3, stream=stream)
        for first in (0, 1)
        for stream in [StreamConfig(first_task=first)]
    ]
    assert [[run.path for run in found] for found in group_runs(read_runs(paths)).values()] == [
        [path] for path in paths
    ]
