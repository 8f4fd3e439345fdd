import dataclasses
from typing import Any

import pytest
import torch
from tensordict import TensorDict

import metarl.envs  # noqa: F401 (registers the families)
from metarl.errors import InputError
from metarl.families.family import FAMILIES, make_family
from tests.fakes import EchoFamily, echo_tasks

CPU = torch.device("cpu")


def test_the_first_preset_is_the_default() -> None:
    assert make_family("bandit") == make_family("bandit", "k5")


def test_a_preset_sets_fields() -> None:
    assert make_family("bandit", "k10").arms == 10  # type: ignore[attr-defined]


def test_an_override_wins_over_the_preset() -> None:
    assert make_family("half-cheetah-vel", "0-2-h100", horizon=7).horizon == 7


def test_an_override_leaves_the_rest_of_the_preset() -> None:
    assert make_family("half-cheetah-vel", "0-2-h100", horizon=7).max_velocity == 2.0  # type: ignore[attr-defined]


def test_an_unknown_family_suggests_a_near_name() -> None:
    with pytest.raises(InputError, match="no task family is called 'half-cheeta-vel'; did you mean half-cheetah-vel"):
        make_family("half-cheeta-vel")


def test_a_name_like_no_other_gets_the_list() -> None:
    with pytest.raises(InputError, match=r"known: .*bandit.*\(metarl families lists them\)"):
        make_family("xyz")


def test_an_unknown_preset_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="bandit has no preset 'k7'; it has k5, k10, k50"):
        make_family("bandit", "k7")


def test_an_unknown_setting_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"bandit has no setting \['legs'\]; it has \['arms', 'horizon'\]"):
        make_family("bandit", legs=4)


@pytest.mark.parametrize("horizon", [0, -1])
def test_an_empty_horizon_is_refused(horizon: int) -> None:
    with pytest.raises(InputError, match=f"the horizon must be at least 1, not {horizon}"):
        make_family("navigation-2d", horizon=horizon)


@pytest.mark.parametrize(
    ("family", "fields", "message"),
    [
        ("walker2d-vel", {"max_velocity": float("inf")}, "walker2d-vel: max_velocity must be finite, not inf"),
        ("half-cheetah-vel", {"survive": float("nan")}, "half-cheetah-vel: survive must be finite, not nan"),
        ("walker2d-vel", {"substeps": 0}, "substeps must be at least 1, not 0"),
        ("metaworld-ml1", {"vectorization": "threads"}, "vectorization must be one of sync, async, not 'threads'"),
        ("metaworld-ml1", {"vectorization": "async"}, "is for the package's environments; also set engine=package"),
    ],
)
def test_fields_that_make_no_sense_are_refused(family: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_family(family, **fields)


def test_every_family_is_in_the_table_under_its_name() -> None:
    assert all(name == family.name for name, family in FAMILIES.items())


def test_families_are_immutable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_family("bandit").horizon = 2


def test_settings_are_the_fields_by_name() -> None:
    assert make_family("bandit", "k10").settings() == {"arms": 10, "horizon": 1}


def test_make_task_names_the_expected_parameters() -> None:
    with pytest.raises(InputError, match=r"needs the parameters \['goal'\], not \['gaol'\]"):
        make_family("navigation-2d").make_task({"gaol": [0.0, 0.0]})


def test_make_task_wants_every_parameter() -> None:
    with pytest.raises(InputError, match=r"parameters \['identity', 'lifetime'\], not \['identity'\]"):
        EchoFamily().make_task({"identity": 1.0})


def test_make_task_refuses_a_value_out_of_range() -> None:
    with pytest.raises(InputError, match=r"half-cheetah-vel: task parameter velocity = 3\.5 lies outside"):
        make_family("half-cheetah-vel").make_task({"velocity": 3.5})


def test_make_task_refuses_nan() -> None:
    with pytest.raises(InputError, match="velocity = nan"):
        make_family("half-cheetah-vel").make_task({"velocity": float("nan")})


def test_make_task_refuses_too_many_numbers() -> None:
    with pytest.raises(InputError, match="goal"):
        make_family("navigation-2d").make_task({"goal": [0.1, 0.2, 0.3]})


def test_make_task_refuses_text() -> None:
    with pytest.raises(InputError, match="velocity"):
        make_family("half-cheetah-vel").make_task({"velocity": "fast"})


def test_make_task_does_not_round_to_a_cell() -> None:
    # 2.7 is no cell of a grid; taking it for 2 would run another task than was asked for.
    with pytest.raises(InputError, match="goal"):
        make_family("gridnavi").make_task({"goal": [2.7, 3.0]})


def test_make_task_has_a_leading_axis_of_one() -> None:
    task = make_family("navigation-2d").make_task({"goal": [0.25, -0.5]})
    assert task.batch_size == torch.Size([1])
    assert task["goal"].tolist() == [[0.25, -0.5]]


def test_make_task_uses_the_spaces_type() -> None:
    assert make_family("gridnavi").make_task({"goal": [2, 3]})["goal"].dtype == torch.int64
    assert make_family("half-cheetah-vel").make_task({"velocity": 1})["velocity"].dtype == torch.float32


def test_a_masked_reset_keeps_the_other_states() -> None:
    family, stream = EchoFamily(), torch.Generator().manual_seed(0)
    worlds, tasks = family.dynamics(3, CPU), echo_tasks([1, 2, 3])
    worlds.reset(tasks, torch.ones(3, dtype=torch.bool), stream)
    worlds.step(torch.zeros(3, 2), tasks, stream)
    before = worlds.observe()
    worlds.reset(tasks, torch.tensor([True, False, False]), stream)
    assert torch.equal(worlds.observe()[1:], before[1:])
    assert worlds.observe()[0, 1] == 0  # steps taken


def test_observations_own_their_memory() -> None:
    family, stream = make_family("navigation-2d"), torch.Generator().manual_seed(0)
    worlds, tasks = family.dynamics(2, CPU), family.sample_tasks(2, stream)
    worlds.reset(tasks, torch.ones(2, dtype=torch.bool), stream)
    worlds.observe().fill_(9.0)
    assert not worlds.observe().any()


def test_worlds_of_tensors_cannot_break_down() -> None:
    assert EchoFamily().dynamics(2, CPU).unstable() is None


def test_sampled_tasks_are_reproducible() -> None:
    family = make_family("navigation-2d")
    one, other = (family.sample_tasks(5, torch.Generator().manual_seed(3)) for _ in range(2))
    assert isinstance(one, TensorDict)
    assert torch.equal(one["goal"], other["goal"])
