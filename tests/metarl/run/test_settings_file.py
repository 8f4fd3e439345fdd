"""Configurations from files."""

import json
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from metarl.errors import InputError
from metarl.run.config import RunConfig, TrainConfig
from metarl.run.settings_file import config_from_file
from tests.runs import small


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(text: str) -> Path:
    path = Path("experiment.yaml")
    path.write_text(text)
    return path


def test_what_is_left_out_has_its_default() -> None:
    config = config_from_file(written("learner: reptile\nfamily: bandit\n"))
    assert config == TrainConfig("reptile", "bandit")


def test_all_entries_are_read() -> None:
    config = config_from_file(
        written(
            "learner: maml-trpo\nfamily: half-cheetah-vel\nrun: {seed: 3, preset: 0-2-h100}\n"
            "settings:\n  hidden_sizes: [8, 9]\n  trust_region: {max_kl: 0.05}\nfamily_overrides: {max_velocity: 2.5}\n"
        )
    )
    assert config.run == RunConfig(seed=3, preset="0-2-h100")
    assert (config.settings.hidden_sizes, config.settings.trust_region.max_kl) == ((8, 9), 0.05)
    assert config.family_overrides == {"max_velocity": 2.5}


@pytest.mark.parametrize("dump", [json.dumps, yaml.safe_dump])
def test_a_runs_own_config_is_read_without_its_directory(dump: object) -> None:
    config = small("somewhere", iterations=7)
    content = json.loads(json.dumps({"format": "metarl run 2", **config.to_json(), "tracking_id": "x"}))
    read = config_from_file(written(dump(content)))  # type: ignore[operator]
    assert (read.run.out, read.run.iterations) == (None, 7)
    assert read.to_json()["config_hash"] == config.to_json()["config_hash"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learner: maml-trpo", "experiment.yaml has no family"),
        ("family: bandit", "experiment.yaml has no learner"),
        ("learner: maml-trop\nfamily: bandit", "no learner is called 'maml-trop'; did you mean maml-trpo"),
        ("learner: rl2\nfamily: bandti", "no task family is called 'bandti'; did you mean bandit"),
        ("learner: rl2\nfamily: bandit\nrnu: {}", "unknown entry 'rnu'; did you mean run"),
        (
            "learner: rl2\nfamily: bandit\nrun: {iteratoins: 3}",
            r"unknown entry 'run\.iteratoins'; did you mean run\.it",
        ),
        ("learner: rl2\nfamily: bandit\nrun: {iterations: many}", r"run\.iterations = 'many' is invalid"),
        ("learner: rl2\nfamily: bandit\nrun: {iterations: 0}", "iterations must be at least 1, not 0"),
        ("learner: rl2\nfamily: bandit\nsettings: {discount: high}", r"settings\.discount = 'high' is invalid"),
        (
            "learner: maml-trpo\nfamily: bandit\nsettings: {trust_region: {max_lk: 0.1}}",
            r"unknown entry 'settings\.trust_region\.max_lk'; did you mean settings\.trust_region\.max_kl",
        ),
        ("learner: rl2\nfamily: bandit\niterations: 3", "iterations is a setting of run: write it there, indented"),
        ("learner: rl2\nfamily: bandit\nrun: {hidden_size: 3}", "hidden_size is a setting of settings: write it there"),
        ("learner: rl2\nfamily: bandit\nsettings: {seed: 3}", "seed is a setting of run: write it there"),
        ("family: bandit\nseed: 3", "seed is a setting of run: write it there"),
        ("learner: rl2\nfamily: bandit\nsettings: 3", "settings must hold settings, not 3"),
        ("learner: rl2\nfamily: bandit\nfamily_overrides: {legs: 3}", "bandit has no setting 'legs'"),
        ("- 3", "must hold entries such as learner: maml-trpo, not list"),
        ("learner: [rl2", "is not YAML or JSON"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        config_from_file(written(text))
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_one_line() -> None:
    with pytest.raises(InputError, match=r"nowhere\.yaml cannot be read: No such file"):
        config_from_file("nowhere.yaml")
