"""A run can start with what another one has learned."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import metarl
from metarl.agents.gradient.maml_trpo import MamlTrpoConfig
from metarl.errors import InputError
from metarl.experiments.commands.train import parse_train
from metarl.run.directory import RunDirectory
from tests.runs import checkpoint_vector, small


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a short run."""
    return metarl.train(small(tmp_path_factory.mktemp("warm") / "first", iterations=2)).path


def test_the_new_run_starts_where_the_other_ended(trained: Path, tmp_path: Path) -> None:
    config = small(tmp_path / "second", iterations=1, seed=7, start_from=str(trained))
    run = metarl.train(replace(config, run=replace(config.run, checkpoint_every=1)))
    first = run.load_checkpoint(run.path / "checkpoints" / "iteration-0")["learner"]["params"]
    start = torch.cat([first[name].reshape(-1) for name in sorted(first)])
    assert torch.equal(start, checkpoint_vector(trained))
    assert not torch.equal(checkpoint_vector(run.path), start)
    assert run.read_config()["run"]["start_from"] == str(trained)


def test_from_is_an_option(trained: Path) -> None:
    for words in (["--from", str(trained)], [f"--from={trained}"], ["--start-from", str(trained)]):
        assert parse_train(small(), "metarl train", words).run.start_from == str(trained)


def test_another_form_or_learner_is_refused(trained: Path, tmp_path: Path) -> None:
    larger = small(tmp_path / "run", start_from=str(trained), settings=MamlTrpoConfig(hidden_sizes=(9,)))
    with pytest.raises(InputError, match=r"has other networks or spaces \(learner"):
        metarl.train(larger)
    other = metarl.TrainConfig("rl2", "bandit", replace(larger.run, start_from=str(trained)))
    with pytest.raises(InputError, match=r"is a run of maml-trpo; rl2 can only start from a run of rl2"):
        metarl.train(other)
    assert not (tmp_path / "run" / "config.json").exists()


def test_the_device_of_the_other_run_need_not_be_there(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "first")
    directory = RunDirectory(tmp_path / "first")
    content = directory.read_config()
    directory.write_config({**content, "run": {**content["run"], "device": "cuda:7"}})
    run = metarl.train(small(tmp_path / "second", iterations=1, start_from=str(directory.path)))
    assert len(run.read_metrics()) == 1
