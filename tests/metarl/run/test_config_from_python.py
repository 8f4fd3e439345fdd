"""Configurations from a family and a dict of settings."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from metarl.agents.gradient.maml_trpo import MamlTrpoConfig
from metarl.agents.in_context.rl2 import Rl2Config
from metarl.envs.basic.bandit import Bandit
from metarl.errors import InputError
from metarl.families.family import make_family
from metarl.families.family_settings import preset_and_settings
from metarl.learning.trust_region import TrustRegionConfig
from metarl.run.config import RunConfig, TrainConfig


@pytest.mark.parametrize("preset", ["0-3-h200", "0-2-h100"])
def test_a_family_becomes_its_preset(preset: str) -> None:
    named = TrainConfig("maml-trpo", "half-cheetah-vel", RunConfig(preset=preset))
    config = TrainConfig("maml-trpo", make_family("half-cheetah-vel", preset))
    assert (config.family, config.preset, config.family_overrides) == ("half-cheetah-vel", preset, {})
    assert config.split_hash == named.split_hash
    assert config.find_reference() == named.find_reference()


def test_what_differs_from_the_preset_of_a_family_is_kept() -> None:
    family = make_family("half-cheetah-vel", "0-2-h100", max_velocity=2.5, horizon=30)
    config = TrainConfig("maml-trpo", family, RunConfig(preset="0-2-h100"))
    assert (config.run.horizon, config.family_overrides) == (30, {"max_velocity": 2.5})
    assert config.make_family() == family
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_a_family_of_another_module_is_found_by_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type(make_family("bandit"))
    monkeypatch.setattr(kind, "__module__", "tests.bandits")
    assert preset_and_settings(make_family("bandit"))[0] == "tests.bandits:bandit"


@dataclass(frozen=True)
class UnregisteredFamily(Bandit):
    """Has the name of another one."""


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        (UnregisteredFamily(), {}, "UnregisteredFamily is not registered as 'bandit': decorate it, or a subclass"),
        (Bandit, {}, r"a run needs a family or its name, not <class .*Bandit.>; metarl.make_family makes one"),
        (make_family("bandit"), {"run": RunConfig(preset="k6")}, "bandit has no preset 'k6'; it has k5, k10, k50"),
        (make_family("bandit"), {"run": RunConfig(horizon=7)}, "set the horizon and other fields of bandit in the fam"),
        (make_family("bandit"), {"family_overrides": {"arms": 3}}, "set the horizon and other fields of bandit in"),
        (
            make_family("cartpole-params", task_space=spaces.Dict({"length": spaces.Box(1, 2, (), np.float32)})),
            {},
            "cartpole-params: a run cannot set task_space; it is not a number",
        ),
    ],
)
def test_families_that_a_run_cannot_make_again_are_refused(family: Any, changes: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainConfig("rl2", family, **changes)


def test_settings_as_a_dict_are_the_learners() -> None:
    given = {"inner_lr": 0.3, "hidden_sizes": [8, 4], "trust_region": {"max_kl": 0.02}}
    expected = MamlTrpoConfig(inner_lr=0.3, hidden_sizes=(8, 4), trust_region=TrustRegionConfig(max_kl=0.02))
    assert TrainConfig("maml-trpo", "bandit", settings=given).settings == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inner_rl": 0.3}, r"maml-trpo has an unknown entry 'settings\.inner_rl'; did you mean settings\.inner_lr"),
        ({"inner_lr": "high"}, r"maml-trpo: settings\.inner_lr = 'high' is invalid \(Input should be a valid number"),
        ({"inner_lr": -1}, "inner_lr must be"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainConfig("maml-trpo", "bandit", settings=settings)


def test_values_of_python_and_numpy_become_those_of_json() -> None:
    run = RunConfig(seed=np.int64(3), out=Path("runs/x"), device=torch.device("cpu"))  # type: ignore[arg-type]
    config = TrainConfig("maml-trpo", "bandit", run, MamlTrpoConfig(hidden_sizes=[8, 8]))  # type: ignore[arg-type]
    assert (config.run.seed, config.run.out, config.run.device) == (3, "runs/x", "cpu")
    assert config.settings.hidden_sizes == (8, 8)
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RunConfig(iterations="5"), "iterations must be an integer, not '5'"),
        (lambda: RunConfig(iterations=1.5), "iterations must be an integer, not 1.5"),
        (lambda: RunConfig(checkpoint_minutes="1"), "checkpoint_minutes must be a number, not '1'"),
        (lambda: MamlTrpoConfig(inner_lr="0.5"), "inner_lr must be a number, not '0.5'"),
        (lambda: MamlTrpoConfig(hidden_sizes=8), "hidden_sizes must be integers, one for each hidden layer, not 8"),
        (lambda: MamlTrpoConfig(hidden_sizes=(8.5,)), "hidden_sizes must be integers"),
        (lambda: Rl2Config(episodes_per_trial=2.0), "episodes_per_trial must be an integer, not 2.0"),
        (lambda: TrainConfig("rl2", "bandit", RunConfig(seed=1.5)), r"rl2: run\.seed = 1\.5 is invalid"),
        (
            lambda: TrainConfig("rl2", "bandit", settings=Rl2Config(normalize_advantages="often")),
            r"rl2: settings\.normalize_advantages = 'often' is invalid",
        ),
    ],
)
def test_values_of_a_wrong_type_are_refused_in_one_line(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        make()
    assert "\n" not in str(refused.value)
