from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metarl.errors import InputError
from metarl.families.family import TaskFamily, make_family
from metarl.families.spaces import unit_range, unit_scale
from metarl.families.splits import TaskSplit
from metarl.run.recorded import Description, RecordedData, load_recorded, save_recorded
from metarl.run.recorded_minari import from_minari, to_minari
from metarl.sampling.sampler import Sampler
from tests.fakes import NoisyActor

minari = pytest.importorskip("minari")
FAMILY = make_family("navigation-2d", horizon=5)
TENSORS = ("observations", "rewards", "terminated", "truncated", "valid", "final_observations")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


def recorded(path: Path, family: TaskFamily = FAMILY) -> RecordedData:
    tasks = TaskSplit(family).train_tasks(3, 0)
    rollout = Sampler(family).collect(NoisyActor(), None, tasks, 4, seed=0)
    save_recorded(path, Description.of(family), [rollout])
    return load_recorded(path)


def test_there_and_back(tmp_path: Path) -> None:
    data = recorded(tmp_path / "data")
    dataset = to_minari(data, FAMILY, "metarl/navigation-v0")
    assert dataset.total_episodes == 12
    from_minari("metarl/navigation-v0", FAMILY, tmp_path / "again")
    again = load_recorded(tmp_path / "again")
    again.check(FAMILY, "any split")
    for name in TENSORS:
        assert torch.equal(getattr(again.rollout, name), getattr(data.rollout, name)), name
    torch.testing.assert_close(again.rollout.actions, data.rollout.actions.clamp(-1, 1))
    assert torch.equal(again.rollout.tasks["goal"], data.rollout.tasks["goal"])


def test_actions_are_those_of_the_environment_there(tmp_path: Path) -> None:
    data = recorded(tmp_path / "data")
    episode = next(iter(to_minari(data, FAMILY, "metarl/navigation-v0").iterate_episodes()))
    expected = unit_scale(FAMILY.action_space, torch.device("cpu"))(data.rollout.actions[0, 0])
    np.testing.assert_allclose(episode.actions, expected.numpy())
    assert len(episode.observations) == len(episode.rewards) + 1


def test_success_is_kept(tmp_path: Path) -> None:
    data = recorded(tmp_path / "data")
    success = torch.rand(data.rollout.rewards.shape) < 0.5
    known = replace(data, rollout=replace(data.rollout, success=success))
    to_minari(known, FAMILY, "metarl/navigation-v0")
    from_minari("metarl/navigation-v0", FAMILY, tmp_path / "again")
    again = load_recorded(tmp_path / "again").rollout.success
    assert again is not None
    assert torch.equal(again, success)


def test_a_data_set_of_others_is_of_one_task(tmp_path: Path) -> None:
    from minari.data_collector.episode_buffer import EpisodeBuffer

    draws = np.random.default_rng(0)
    buffers = [
        EpisodeBuffer(
            id=number,
            observations=draws.normal(size=(steps + 1, 2)).astype(np.float32),
            actions=draws.uniform(-0.1, 0.1, size=(steps, 2)).astype(np.float32),
            rewards=draws.normal(size=steps),
            terminations=[False] * (steps - 1) + [True],
            truncations=[False] * steps,
        )
        for number, steps in enumerate([3, 5])
    ]
    spaces = {name: getattr(FAMILY, name) for name in ("observation_space", "action_space")}
    dataset = minari.create_dataset_from_buffers("other/points-v0", buffers, data_format="hdf5", **spaces)
    from_minari(dataset, FAMILY, tmp_path / "data")
    rollout = load_recorded(tmp_path / "data").rollout
    assert rollout.valid.sum(-1).tolist() == [[3, 5]]
    assert rollout.terminated.sum() == 2
    assert not list(rollout.tasks.keys())


def test_other_spaces_are_refused(tmp_path: Path) -> None:
    to_minari(recorded(tmp_path / "data"), FAMILY, "metarl/navigation-v0")
    with pytest.raises(InputError, match=r"the observation_space of .*, but that of half-cheetah-vel"):
        from_minari("metarl/navigation-v0", make_family("half-cheetah-vel"), tmp_path / "again")


def test_names_that_are_taken_or_unknown_are_refused(tmp_path: Path) -> None:
    data = recorded(tmp_path / "data")
    to_minari(data, FAMILY, "metarl/navigation-v0")
    with pytest.raises(InputError, match="already has a data set metarl/navigation-v0"):
        to_minari(data, FAMILY, "metarl/navigation-v0")
    with pytest.raises(InputError, match="Minari has no local data set metarl/nothing-v0"):
        from_minari("metarl/nothing-v0", FAMILY, tmp_path / "again")


def test_without_minari_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "minari", None)
    for ask in (
        lambda: to_minari(recorded(tmp_path / "data"), FAMILY, "a-v0"),
        lambda: from_minari("a-v0", FAMILY, tmp_path / "again"),
    ):
        with pytest.raises(InputError, match="pip install 'metarl-gym"):
            ask()


@pytest.mark.parametrize("family", ["navigation-2d", "half-cheetah-vel", "gridnavi"])
def test_units_are_the_inverse_of_scaling(family: str) -> None:
    space: Any = make_family(family).action_space
    sample = torch.as_tensor(np.stack([space.sample() for _ in range(20)]))
    there = unit_scale(space, torch.device("cpu"))(unit_range(space)(sample))
    torch.testing.assert_close(there, sample)
