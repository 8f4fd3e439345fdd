import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from metarl.agents.gradient.maml_trpo import MamlTrpoConfig
from metarl.devices.choice import resolve_device
from metarl.errors import InputError
from metarl.families.family import FAMILIES
from metarl.learning.trust_region import TrustRegionConfig
from metarl.run.config import RunConfig, TrainConfig
from metarl.run.directory import RunDirectory
from metarl.training.train import resume, train
from tests.runs import numbers, small


def through_json(config: TrainConfig) -> TrainConfig:
    return TrainConfig.from_json(json.loads(json.dumps(config.to_json())))


def test_a_config_goes_to_json_and_back() -> None:
    settings = MamlTrpoConfig(
        inner_lr=0.3, hidden_sizes=(8, 4), first_order=True, trust_region=TrustRegionConfig(max_kl=0.02)
    )
    run = RunConfig(iterations=3, seed=7, horizon=9, preset="maml", out="there", group="these")
    config = TrainConfig("maml-trpo", "navigation-2d", run, settings)
    assert through_json(config) == config


def test_defaults_go_to_json_and_back() -> None:
    config = TrainConfig("maml-trpo", "bandit")
    assert through_json(config) == config


def test_json_holds_the_resolved_preset() -> None:
    assert TrainConfig("maml-trpo", "half-cheetah-vel").to_json()["preset"] == "0-3-h200"


def test_json_holds_the_resolved_family() -> None:
    config = TrainConfig("maml-trpo", "half-cheetah-vel", RunConfig(preset="0-2-h100", horizon=30))
    expected = {"min_velocity": 0.0, "max_velocity": 2.0, "horizon": 30, "survive": 0.0}
    assert config.to_json()["family_settings"] == expected


def test_json_holds_the_hash_of_the_split() -> None:
    config = TrainConfig("maml-trpo", "bandit")
    assert config.to_json()["split_hash"] == config.split().fingerprint()


def test_json_holds_the_versions() -> None:
    assert TrainConfig("maml-trpo", "bandit").to_json()["versions"]["torch"] == torch.__version__


def test_the_runs_horizon_overrides_the_presets() -> None:
    assert TrainConfig("maml-trpo", "navigation-2d", RunConfig(horizon=7)).make_family().horizon == 7


def test_runs_of_different_seeds_share_their_held_out_tasks() -> None:
    one, other = (TrainConfig("maml-trpo", "bandit", RunConfig(seed=seed)) for seed in (1, 2))
    assert one.split().fingerprint() == other.split().fingerprint()


def test_another_split_seed_is_another_split() -> None:
    one, other = (TrainConfig("maml-trpo", "bandit", RunConfig(split_seed=seed)) for seed in (1, 2))
    assert one.split().fingerprint() != other.split().fingerprint()


def test_configs_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunConfig().seed = 2  # type: ignore[misc]


@pytest.mark.parametrize("name", ["iterations", "tasks_per_batch", "episodes_per_task", "checkpoint_every", "horizon"])
@pytest.mark.parametrize("value", [0, -3])
def test_counts_below_one_are_refused(name: str, value: int) -> None:
    with pytest.raises(InputError, match=rf"{name} must be at least 1.*not {value}"):
        RunConfig(**{name: value})


@pytest.mark.parametrize("device", ["toaster", "meta", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    with pytest.raises(InputError, match=device):
        resolve_device(device)


def test_an_unknown_learner_is_refused_with_its_nearest_name() -> None:
    with pytest.raises(InputError, match="no learner is called 'maml-trop'; did you mean maml-trpo"):
        TrainConfig("maml-trop", "bandit")


def test_an_unknown_family_is_refused_with_its_nearest_name() -> None:
    with pytest.raises(InputError, match="no task family is called 'grid-navi'; did you mean gridnavi"):
        TrainConfig("maml-trpo", "grid-navi")


def test_an_unknown_preset_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match="bandit has no preset 'k7'; it has k5, k10, k50"):
        TrainConfig("maml-trpo", "bandit", RunConfig(preset="k7"))


def test_settings_of_something_else_are_refused() -> None:
    with pytest.raises(InputError, match="the settings of maml-trpo must be a MamlTrpoConfig, not a TrustRegionConfig"):
        TrainConfig("maml-trpo", "bandit", settings=TrustRegionConfig())


def changed(**changes: Any) -> dict[str, Any]:
    content = TrainConfig("maml-trpo", "bandit").to_json()
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = content
        for parent in parents:
            place = place[parent]
        place[last] = value
    return content


@pytest.mark.parametrize("name", ["learner", "family", "run", "settings", "split_hash"])
def test_a_missing_entry_is_refused(name: str) -> None:
    content = {key: value for key, value in TrainConfig("maml-trpo", "bandit").to_json().items() if key != name}
    with pytest.raises(InputError, match=r"config\.json was not written by this version of metarl"):
        TrainConfig.from_json(content)


@pytest.mark.parametrize(
    "changes",
    [{"run__iterations": "many"}, {"settings__inner_lr": None}, {"run": 3}, {"settings__hidden_sizes": "big"}],
    ids=str,
)
def test_an_entry_of_the_wrong_type_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"config\.json was not written by this version of metarl"):
        TrainConfig.from_json(changed(**changes))


@pytest.mark.parametrize("content", [[], None, 3, "config"], ids=str)
def test_json_that_is_no_mapping_is_refused(content: Any) -> None:
    with pytest.raises(InputError, match=r"config\.json was not written by this version of metarl"):
        TrainConfig.from_json(content)


def test_the_refusal_is_one_line() -> None:
    with pytest.raises(InputError) as caught:
        TrainConfig.from_json(changed(run__iterations="many", run__seed="none"))
    assert "\n" not in str(caught.value)


def test_a_changed_split_is_refused() -> None:
    # With other tasks under the same names, what was held out may have been trained on.
    with pytest.raises(InputError, match=r"the task split of .* has changed since the run was started"):
        TrainConfig.from_json(changed(split_hash="0123456789abcdef"))


def test_a_changed_split_seed_is_refused() -> None:
    with pytest.raises(InputError, match=r"the task split of .* has changed since the run was started"):
        TrainConfig.from_json(changed(run__split_seed=5))


def overridden(**overrides: Any) -> TrainConfig:
    return TrainConfig("maml-trpo", "half-cheetah-vel", RunConfig(preset="0-2-h200"), family_overrides=overrides)


def test_fields_of_the_family_go_to_json_and_back_and_into_the_hash() -> None:
    config, plain = overridden(max_velocity=2.5), overridden()
    assert config.make_family().settings()["max_velocity"] == 2.5
    assert config.to_json()["family_overrides"] == {"max_velocity": 2.5}
    assert config.to_json()["family_settings"]["max_velocity"] == 2.5
    assert through_json(config) == config
    assert config.split().fingerprint() != plain.split().fingerprint()
    assert config.split().fingerprint() == through_json(config).split().fingerprint()


def test_references_are_of_the_presets_own_fields() -> None:
    assert TrainConfig("maml-trpo", "gridnavi").find_reference() is not None
    assert TrainConfig("maml-trpo", "gridnavi", family_overrides={"size": 7}).find_reference() is None


def test_a_subclass_has_no_references_but_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    inherited = type("AnotherReward", (FAMILIES["gridnavi"],), {"name": "another-reward"})
    monkeypatch.setitem(FAMILIES.entries, "another-reward", inherited)
    assert TrainConfig("maml-trpo", "another-reward").find_reference() is None


def test_lists_of_json_become_what_the_family_needs() -> None:
    config = TrainConfig("maml-trpo", "cartpole-params", family_overrides={"unchecked": ("length",)})
    assert through_json(config).family_overrides == {"unchecked": ("length",)}


@pytest.mark.parametrize("given", [["max_velocity"], {"max_velocty": 3}, {"max_velocity": "fast"}])
def test_overrides_that_make_no_sense_are_refused(given: Any) -> None:
    with pytest.raises(InputError):
        TrainConfig.from_json({**overridden().to_json(), "family_overrides": given})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run__iteratoins": 3}, "unknown entry 'run.iteratoins'; did you mean run.iterations"),
        (
            {"settings__trust_region__max_kll": 3},
            "unknown entry 'settings.trust_region.max_kll'; did you mean",
        ),
        ({"famly": "bandit"}, "unknown entry 'famly'; did you mean family"),
        ({"run__seed": 5}, "has been changed since the run was started"),
        ({"settings__inner_lr": 0.25}, "has been changed since the run was started"),
        ({"numbers": 7}, "has been changed since the run was started"),
        ({"torch_threads": 77}, "has been changed since the run was started"),
        ({"learner": 3}, "was not written by this version of metarl"),
        ({"family_settings__arms": 7}, "family_settings arms=7, but the run was started with arms=5"),
        ({"settings__hidden_sizes": [10**30]}, "."),
    ],
    ids=range(10),
)
def test_an_edited_file_is_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        TrainConfig.from_json(changed(**changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("changes", [{"run__iterations": 7}, {"run__device": "cpu"}], ids=str)
def test_iterations_and_device_may_change(changes: dict[str, Any]) -> None:
    assert TrainConfig.from_json(changed(**changes)).learner == "maml-trpo"


def test_every_entry_is_needed() -> None:
    for name in TrainConfig("maml-trpo", "bandit").to_json():
        content = {key: value for key, value in TrainConfig("maml-trpo", "bandit").to_json().items() if key != name}
        with pytest.raises(InputError, match=name):
            TrainConfig.from_json(content)


def test_a_run_of_older_numbers_is_not_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainConfig("maml-trpo", "bandit")
    content = {**json.loads(json.dumps(config.to_json())), "tracking_id": "abc"}
    config.check_resumable(content)
    old = config.learner_class.numbers
    monkeypatch.setattr(config.learner_class, "numbers", old + 1)
    found = f"since its version {old + 1}, and the run was started with version {old}; it can be eval"
    with pytest.raises(InputError, match=found):
        config.check_resumable(content)


def test_another_version_of_a_library_is_said() -> None:
    versions = {**TrainConfig("maml-trpo", "bandit").to_json()["versions"], "torch": "1.0"}
    content = changed(versions=versions, tracking_id="abc")
    with pytest.warns(UserWarning, match=r"other versions, so numbers may differ: torch 1\.0 -> "):
        TrainConfig("maml-trpo", "bandit").check_resumable(content)


@pytest.mark.parametrize("tracking_id", [None, 3])
def test_a_run_without_a_tracking_id_is_not_resumed(tracking_id: Any) -> None:
    with pytest.raises(InputError, match="no tracking_id"):
        TrainConfig("maml-trpo", "bandit").check_resumable(changed(tracking_id=tracking_id))


def test_json_of_great_depth_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(InputError, match="damaged or was not written by metarl") as caught:
        RunDirectory(tmp_path).read_config()
    assert "\n" not in str(caught.value)


def test_a_resumed_run_has_the_threads_it_was_started_with(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        whole = train(small(tmp_path / "whole", iterations=2))
        train(small(tmp_path / "run", iterations=1))
        torch.set_num_threads(1)
        resumed = resume(tmp_path / "run", iterations=2)
        assert torch.get_num_threads() == 3
        assert [row["return_after"] for row in numbers(resumed.path)] == [
            row["return_after"] for row in numbers(whole.path)
        ]
        assert RunDirectory(tmp_path / "run").read_config()["torch_threads"] == 3
    finally:
        torch.set_num_threads(before)
