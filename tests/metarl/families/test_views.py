from collections.abc import Mapping
from dataclasses import dataclass
from inspect import get_annotations
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from tensordict import TensorDict

import metarl  # noqa: F401 (registers families)
from metarl.families.family import FAMILIES, TaskFamily, make_family
from metarl.families.spaces import features
from metarl.families.splits import TaskSplit
from metarl.families.views import FamilyView, InformedFamily, task_features
from metarl.learning.policies import make_policy
from metarl.numerics.params import per_task
from metarl.sampling.sampler import Sampler
from metarl.worlds.vector_env import TaskVectorEnv
from tests.fakes import EchoFamily, PolicyActor, echo_tasks

SLOW_TO_START = {"metaworld-ml10", "metaworld-ml25", "metaworld-ml45"}  # metaworld-ml1 is their like


def informed(name: str, **settings: Any) -> InformedFamily:
    return InformedFamily(make_family(name, **settings))


@pytest.mark.parametrize("name", sorted(set(FAMILIES) - SLOW_TO_START))
def test_every_familys_observations_are_followed_by_its_task(name: str) -> None:
    family = informed(name)
    tasks = family.sample_tasks(3, torch.Generator().manual_seed(0))
    seeing, blind = (TaskVectorEnv(each, 3) for each in (family, family.family))
    for env in (seeing, blind):
        env.set_tasks(tasks)
    width = spaces.flatdim(family.family.observation_space)
    observations, plain = seeing.reset(seed=1)[0], blind.reset(seed=1)[0]
    assert observations.dtype == torch.float32
    assert observations.shape == (3, *family.observation_space.shape)
    torch.testing.assert_close(
        observations[:, :width], features(family.family.observation_space, plain), rtol=0, atol=0
    )
    shown = observations[:, width:]
    torch.testing.assert_close(shown, task_features(family.task_space, tasks), rtol=0, atol=0)
    assert len({tuple(row) for row in shown.tolist()}) == len({str(task.to_dict()) for task in tasks})
    assert shown.abs().max() < 10
    for env in (seeing, blind):
        env.close()


def test_all_but_the_observations_is_the_familys() -> None:
    plain = make_family("gridnavi", horizon=4)
    family = InformedFamily(plain)
    for key in ("name", "env_id", "presets", "horizon", "action_space", "task_space"):
        assert getattr(family, key) == getattr(plain, key)
    assert family.settings() == plain.settings()
    assert torch.equal(family.all_tasks()["goal"], plain.all_tasks()["goal"])  # type: ignore[index]
    assert family.make_task({"goal": [2, 3]})["goal"].tolist() == [[2, 3]]


@pytest.mark.parametrize("name", ["gridnavi", "half-cheetah-dir", "random-mazes", "navigation-2d"])
def test_its_split_is_the_familys(name: str) -> None:
    # Partitioned, its own, countable, and real-valued.
    family = informed(name)
    assert TaskSplit(family).fingerprint() == TaskSplit(family.family).fingerprint()


def test_a_view_hands_on_everything_that_a_family_has_but_what_it_changes() -> None:
    # A hook that is added to the contract and forgotten in the view would be the default's for an oracle.
    contract = {name for name in {**vars(TaskFamily), **get_annotations(TaskFamily)} if not name.startswith("_")}
    # Where the agent is, what staying there is, and what is said in words are read off the family's own observations.
    changed = {"observation_space", "dynamics", "positions", "staying", "words"}
    assert contract - set(vars(FamilyView)) == changed


def test_the_base_of_a_view_is_the_family_without_any_view() -> None:
    plain = make_family("gridnavi")
    assert plain.base is plain
    assert InformedFamily(plain).base is plain
    assert InformedFamily(InformedFamily(plain)).base is plain


def test_two_views_of_a_family_are_equal() -> None:
    assert informed("gridnavi") == informed("gridnavi")
    assert hash(informed("gridnavi")) == hash(informed("gridnavi"))
    assert informed("gridnavi") != informed("gridnavi", horizon=3)


def test_numbers_with_bounds_are_scaled_to_one() -> None:
    space = spaces.Dict({"goal": spaces.Box(np.array([0, -4]), np.array([8, 4]), dtype=np.int64)})
    tasks = TensorDict({"goal": torch.tensor([[0, -4], [4, 0], [8, 4]])}, [3])
    assert task_features(space, tasks).tolist() == [[-1, -1], [0, 0], [1, 1]]


def test_discrete_parameters_are_one_hot() -> None:
    space = spaces.Dict({"door": spaces.Discrete(3, start=5)})
    assert task_features(space, TensorDict({"door": torch.tensor([5, 7])}, [2])).tolist() == [[1, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize("bounds", [(-np.inf, np.inf), (-3e38, 3e38), (0.0, np.inf), (2.0, 2.0)])
def test_numbers_without_bounds_worth_the_name_stay(bounds: tuple[float, float]) -> None:
    space = spaces.Dict({"mean": spaces.Box(*bounds, (1,), np.float32)})
    assert task_features(space, TensorDict({"mean": torch.tensor([[2.5]])}, [1])).tolist() == [[2.5]]


def test_a_discrete_observation_is_one_hot() -> None:
    assert features(spaces.Discrete(3), torch.tensor([2, 0])).tolist() == [[0, 0, 1], [1, 0, 0]]


def test_the_space_of_observations_has_the_familys_bounds() -> None:
    space = informed("gridnavi").observation_space
    assert space.low.tolist() == [0, 0, -np.inf, -np.inf]
    assert space.high.tolist() == [4, 4, np.inf, np.inf]


def test_a_world_shows_the_task_of_its_episode_until_the_next_begins() -> None:
    env = TaskVectorEnv(InformedFamily(EchoFamily()), 2)
    env.set_tasks(echo_tasks([100, 200], [1, 3]))
    env.reset(seed=0)
    env.set_tasks(echo_tasks([300, 400], [3, 3]))
    still = torch.zeros(2, 2)
    shown = [env.step(still)[0][:, 0].tolist() for _ in range(3)]
    # The plain observation contains the identity, too: the view must agree with it at every step.
    assert shown == [[300, 200], [300, 200], [300, 400]]
    seen = env.step(still)[0]
    torch.testing.assert_close(seen[:, 3], seen[:, 0] / 500 - 1)


def test_the_last_observation_of_an_episode_shows_its_own_task() -> None:
    env = TaskVectorEnv(InformedFamily(EchoFamily()), 1)
    env.set_tasks(echo_tasks([100], [1]))
    env.reset(seed=0)
    env.set_tasks(echo_tasks([300], [1]))
    observations, *_, info = env.step(torch.zeros(1, 2))
    torch.testing.assert_close(info["final_obs"][:, 3], torch.tensor([100 / 500 - 1]))
    torch.testing.assert_close(observations[:, 3], torch.tensor([300 / 500 - 1]))


def test_the_sampler_and_a_policy_take_it() -> None:
    family = informed("gridnavi", horizon=4)
    policy = make_policy(family.observation_space, family.action_space)
    params = per_task(policy.init_params(torch.Generator().manual_seed(0)), 2)
    tasks = TensorDict({"goal": torch.tensor([[4, 4], [2, 0]])}, [2])
    rollout = Sampler(family).collect(PolicyActor(policy), params, tasks, 3, seed=1)
    assert rollout.observations.shape == (2, 3, 4, 4)
    assert (rollout.observations[0, :, :, 2:] == 1).all()
    assert (rollout.observations[1, :, :, 2:] == torch.tensor([0.0, -1.0])).all()


def test_pictures_are_the_familys() -> None:
    tasks, frames = TensorDict({"goal": torch.tensor([[4, 4]])}, [1]), []
    for family in (informed("gridnavi"), make_family("gridnavi")):
        env = TaskVectorEnv(family, 1, autoreset_mode=AutoresetMode.DISABLED, render_mode="rgb_array")
        env.set_tasks(tasks)
        env.reset(seed=0)
        frames.append(env.render())
    np.testing.assert_array_equal(frames[0], frames[1])


@dataclass(frozen=True)
class Fragile(EchoFamily):
    """Echoes whose dynamics say that they broke, do not fit a graph, and count how often they were closed."""

    name: ClassVar[str] = "fragile"
    closed: ClassVar[list[int]] = []

    def dynamics(self, num_envs: int, device: torch.device) -> Any:
        made: Any = super().dynamics(num_envs, device)
        vars(made).update(capturable=False, unstable=lambda: torch.tensor([True]), close=lambda: self.closed.append(1))
        return made


def test_what_the_worlds_tell_of_themselves_is_passed_on() -> None:
    env = TaskVectorEnv(InformedFamily(Fragile()), 1)
    unstable = env.unstable()
    assert not env.capturable
    assert unstable is not None
    assert unstable.tolist() == [True]
    env.close()
    assert Fragile.closed == [1]


def test_presets_are_at_hand() -> None:
    presets: Mapping[str, Any] = informed("bandit").presets
    family: TaskFamily = informed("bandit", arms=3)
    assert set(presets) == {"k5", "k10", "k50"}
    assert family.settings() == {"arms": 3, "horizon": 1}
