from dataclasses import dataclass

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from tensordict import TensorDict
from torch import Tensor

import metarl  # noqa: F401 (registers families)
from metarl.families.family import make_family
from metarl.families.solved import SolvedFamily, planned_actions
from metarl.families.splits import TaskSplit
from metarl.families.tensor_family import State
from metarl.families.views import AdvisedFamily
from metarl.worlds.vector_env import TaskVectorEnv
from tests.fakes import EchoFamily, echo_tasks


@dataclass(frozen=True)
class SolvedEcho(EchoFamily, SolvedFamily):
    """The best action is (the identity of the task that was planned for, steps left)."""

    def plan(self, state: State, tasks: TensorDict) -> Tensor:
        assert not state["steps"].any()
        return tasks["identity"]

    def best_actions(self, state: State, plan: Tensor, remaining: Tensor) -> Tensor:
        return torch.stack([plan, remaining], -1)


def advised(name: str, preset: str | None = None) -> AdvisedFamily:
    family = make_family(name, preset)
    assert isinstance(family, SolvedFamily)
    return AdvisedFamily(family)


def test_each_world_is_informed_of_its_own_episode() -> None:
    env = TaskVectorEnv(AdvisedFamily(SolvedEcho()), 2)
    env.set_tasks(echo_tasks([100, 200], [1, 3]))
    observed = [env.reset(seed=0)[0].tolist()]
    env.set_tasks(echo_tasks([300, 400], [2, 4]))
    observed += [env.step(torch.zeros(2, 2))[0].tolist() for _ in range(4)]
    assert [first for first, _ in observed] == [[100, 4], [300, 4], [300, 3], [300, 4], [300, 3]]
    assert [second for _, second in observed] == [[200, 4], [200, 3], [200, 2], [400, 4], [400, 3]]


def test_after_the_last_step_a_step_is_left() -> None:
    env = TaskVectorEnv(AdvisedFamily(SolvedEcho(horizon=2)), 1, autoreset_mode=AutoresetMode.DISABLED)
    env.set_tasks(echo_tasks([100]))
    env.reset(seed=0)
    assert [env.step(torch.zeros(1, 2))[0][0, 1].item() for _ in range(3)] == [1, 1, 1]


def test_worlds_are_the_familys() -> None:
    plain = make_family("tabular-mdp")
    tasks = plain.sample_tasks(5, torch.Generator().manual_seed(0))
    rewards = []
    for family in (advised("tabular-mdp"), plain):
        env = TaskVectorEnv(family, 5)
        env.set_tasks(tasks)
        env.reset(seed=1)
        rewards.append(torch.stack([env.step(torch.arange(5))[1] for _ in range(12)]))
    assert torch.equal(*rewards)


def test_all_but_the_observations_is_the_familys() -> None:
    plain, family = make_family("gridnavi"), advised("gridnavi")
    for key in ("name", "env_id", "presets", "horizon", "action_space", "task_space"):
        assert getattr(family, key) == getattr(plain, key)
    assert family.settings() == plain.settings()
    assert family.make_task({"goal": [2, 3]})["goal"].tolist() == [[2, 3]]


@pytest.mark.parametrize("name", ["gridnavi", "navigation-2d"])
def test_its_split_is_the_familys(name: str) -> None:
    assert TaskSplit(advised(name)).fingerprint() == TaskSplit(make_family(name)).fingerprint()


def test_observations_lie_in_the_space_of_what_policies_do() -> None:
    assert advised("gridnavi").observation_space == spaces.Discrete(5)
    assert advised("navigation-2d").observation_space == spaces.Box(-1.0, 1.0, (2,), np.float32)
    assert AdvisedFamily(SolvedEcho()).observation_space == SolvedEcho().action_space  # has no bounds


def test_pictures_are_the_familys() -> None:
    tasks, frames = TensorDict({"goal": torch.tensor([[4, 4]])}, [1]), []
    for family in (advised("gridnavi"), make_family("gridnavi")):
        env = TaskVectorEnv(family, 1, render_mode="rgb_array")
        env.set_tasks(tasks)
        env.reset(seed=0)
        frames.append(env.render())
    np.testing.assert_array_equal(frames[0], frames[1])


def test_plans_are_planned_actions_by_steps_left_and_place() -> None:
    plan = torch.arange(2 * 3 * 4, dtype=torch.uint8).view(2, 3, 4)
    found = planned_actions(plan, torch.tensor([1, 3]), torch.tensor([2, 0]))
    assert found.tolist() == [2, 20]
    assert found.dtype == torch.int64
