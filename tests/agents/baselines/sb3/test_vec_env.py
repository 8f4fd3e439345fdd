"""``Sb3VecEnv`` against SB3's own ``DummyVecEnv`` of single environments, and against the batch under it."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecCheckNan, VecMonitor

import metarl  # noqa: F401 (registers families)
from metarl.agents.baselines.sb3.vec_env import NOTHING, Sb3VecEnv
from metarl.errors import InputError
from metarl.families.family import TaskFamily, make_family
from metarl.worlds.numpy_env import TaskEnv
from metarl.worlds.vector_env import TaskVectorEnv
from tests.fakes import EchoFamily, echo_tasks

WORLDS = 3


@pytest.fixture(autouse=True)
def _sb3_logs_into_a_folder_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SB3_LOGDIR", str(tmp_path))


def sb3_env(family: TaskFamily, tasks: Any = None, worlds: int = WORLDS) -> Sb3VecEnv:
    """Return worlds in the first tasks of a family, or in given ones."""
    env = Sb3VecEnv(TaskVectorEnv(family, worlds))
    env.set_tasks(family.sample_tasks(worlds, torch.Generator().manual_seed(0)) if tasks is None else tasks)
    return env


def actions(env: Sb3VecEnv, steps: int) -> list[np.ndarray]:
    env.action_space.seed(0)
    return [np.array([env.action_space.sample() for _ in range(env.num_envs)]) for _ in range(steps)]


@pytest.mark.parametrize("name", ["gridnavi", "four-rooms"])
def test_it_is_what_sb3_makes_of_single_environments(name: str) -> None:
    family = make_family(name, horizon=4)
    tasks = family.sample_tasks(WORLDS, torch.Generator().manual_seed(0))
    env = sb3_env(family, tasks)
    singles = DummyVecEnv([partial(TaskEnv, family, tasks[row : row + 1]) for row in range(WORLDS)])
    np.testing.assert_array_equal(env.reset(), singles.reset())
    for action in actions(env, 10):
        ours, theirs = env.step(action), singles.step(action)
        for part, expected in zip(ours[:3], theirs[:3], strict=True):
            np.testing.assert_array_equal(part, expected, strict=True)
        for infos, expected_infos in zip(ours[3], theirs[3], strict=True):
            assert bool(infos.get("TimeLimit.truncated")) == expected_infos["TimeLimit.truncated"]
            np.testing.assert_array_equal(infos.get("terminal_observation"), expected_infos.get("terminal_observation"))


class BoundedEcho(EchoFamily):
    """Echoes that end at different times, with actions of [-2, 4]."""

    @property
    def action_space(self) -> spaces.Box:
        return spaces.Box(-2.0, 4.0, (2,), np.float32)


def echoes() -> Sb3VecEnv:
    """Return worlds 10, 11, 12 that live 1, 2 and 9 steps, cut at 4."""
    env = sb3_env(BoundedEcho(), echo_tasks([10, 11, 12], [1, 2, 9]))
    env.seed(3)
    env.reset()
    return env


def test_each_world_is_rewarded_for_its_own_task() -> None:
    assert echoes().step(np.zeros((3, 2)))[1].tolist() == [10.0, 11.0, 12.0]


def test_an_ended_episode_hands_over_its_last_observation_and_the_next_ones_first() -> None:
    env = echoes()
    env.step(np.zeros((3, 2)))
    observations, _, ended, infos = env.step(np.zeros((3, 2)))
    assert ended.tolist() == [True, True, False]
    assert [info["terminal_observation"][1] for info in infos[:2]] == [1, 2]
    assert observations[:, 1].tolist() == [0, 0, 2]


def test_a_termination_is_no_truncation() -> None:
    env = echoes()
    *_, (_, _, ended, infos) = [env.step(np.zeros((3, 2))) for _ in range(4)]
    assert ended.tolist() == [True, True, True]
    assert [info["TimeLimit.truncated"] for info in infos] == [False, False, True]


def test_episodes_that_continue_share_a_read_only_empty_dict() -> None:
    infos = echoes().step(np.zeros((3, 2)))[3]
    assert infos[1] is infos[2] is NOTHING
    assert dict(infos[1]) == {}
    with pytest.raises(TypeError):
        infos[1]["mine"] = 1


def test_the_infos_of_a_step_are_not_overwritten_by_the_next() -> None:
    env = echoes()
    infos = env.step(np.zeros((3, 2)))[3]
    kept = infos[0]["terminal_observation"].copy()
    env.step(np.zeros((3, 2)))
    np.testing.assert_array_equal(infos[0]["terminal_observation"], kept)
    assert "terminal_observation" not in infos[1]


def test_rewards_may_be_written_into() -> None:
    env = echoes()
    rewards = env.step(np.zeros((3, 2)))[1]
    rewards += 1000
    assert env.step(np.zeros((3, 2)))[1].tolist() == [10.0, 11.0, 12.0]


def test_actions_are_in_units_of_a_bounded_box(monkeypatch: pytest.MonkeyPatch) -> None:
    env, seen = echoes(), {}
    step = env.worlds.step
    monkeypatch.setattr(env.worlds, "step", lambda given: step(seen.setdefault("actions", given)))
    env.step(np.array([[-1.0, 1.0], [0.0, 0.5], [3.0, -3.0]], np.float32))
    assert env.action_space == spaces.Box(-1.0, 1.0, (2,), np.float32)
    assert seen["actions"].tolist() == [[-2.0, 4.0], [1.0, 2.5], [4.0, -2.0]]


def test_rewards_and_observations_are_the_batchs() -> None:
    family = make_family("navigation-2d", horizon=5)
    env = sb3_env(family)
    batch = TaskVectorEnv(family, WORLDS)
    batch.set_tasks(family.sample_tasks(WORLDS, torch.Generator().manual_seed(0)))
    env.seed(7)
    np.testing.assert_array_equal(env.reset(), batch.reset(seed=7)[0].numpy())
    for action in actions(env, 12):
        ours, theirs = env.step(action), batch.step(torch.as_tensor(action) * 0.1)
        np.testing.assert_allclose(ours[0], theirs[0].numpy(), atol=1e-6)
        np.testing.assert_allclose(ours[1], theirs[1].numpy(), atol=1e-6)


def test_the_same_seed_gives_the_same_starts() -> None:
    env = sb3_env(make_family("half-cheetah-vel", horizon=3))
    starts = []
    for seed in (1, 1, 2):
        env.seed(seed)
        starts.append(env.reset())
    np.testing.assert_array_equal(starts[0], starts[1])
    assert not np.array_equal(starts[1], starts[2])


def test_a_seed_is_used_once() -> None:
    env = sb3_env(make_family("half-cheetah-vel", horizon=3))
    env.seed(1)
    assert not np.array_equal(env.reset(), env.reset())


def test_new_tasks_hold_from_the_next_episode_on() -> None:
    env = echoes()
    env.set_tasks(echo_tasks([20, 21, 22], [9, 9, 9]))
    rewards = [env.step(np.zeros((3, 2)))[1].tolist() for _ in range(3)]
    assert rewards == [[10, 11, 12], [20, 11, 12], [20, 21, 12]]


def test_a_batch_that_does_not_begin_episodes_itself_is_refused() -> None:
    with pytest.raises(InputError, match="SAME_STEP"):
        Sb3VecEnv(TaskVectorEnv(EchoFamily(), 2, autoreset_mode=AutoresetMode.DISABLED))


def test_attributes_are_the_batchs() -> None:
    env = echoes()
    assert env.get_attr("render_mode") == [None] * 3
    assert env.get_attr("family", [0, 2]) == [BoundedEcho()] * 2
    assert env.get_attr("num_envs", 1) == [3]
    assert not env.has_attr("no_such_thing")
    env.set_attr("colour", "red")
    assert env.get_attr("colour") == ["red"] * 3
    assert env.env_is_wrapped(Monitor) == [False] * 3


def test_what_only_some_worlds_could_have_is_refused() -> None:
    with pytest.raises(NotImplementedError, match="share"):
        echoes().set_attr("colour", "red", 1)
    with pytest.raises(NotImplementedError, match="no methods"):
        echoes().env_method("jump")


def test_pictures_are_those_of_the_batch() -> None:
    env = Sb3VecEnv(TaskVectorEnv(make_family("gridnavi"), 2, render_mode="rgb_array"))
    env.reset()
    for one, expected in zip(env.get_images(), env.worlds.render() or (), strict=True):
        np.testing.assert_array_equal(one, expected)
    picture = env.render()
    assert picture is not None
    assert picture.dtype == np.uint8
    env.close()
    assert list(echoes().get_images()) == [None] * 3


@pytest.mark.parametrize("wrapper", [VecMonitor, VecCheckNan])
def test_sb3s_own_wrappers_and_algorithms_take_it(wrapper: Any) -> None:
    env = wrapper(sb3_env(make_family("gridnavi", horizon=4)))
    PPO("MlpPolicy", env, n_steps=8, batch_size=24, n_epochs=1, device="cpu").learn(48)
    model = DQN("MlpPolicy", env, learning_starts=0, buffer_size=100, device="cpu").learn(48)
    assert model.num_timesteps == 48


def test_sb3_evaluates_on_it() -> None:
    env = VecMonitor(sb3_env(make_family("gridnavi", horizon=4)))
    model = DQN("MlpPolicy", env, device="cpu", buffer_size=100)
    rewards, lengths = evaluate_policy(model, env, n_eval_episodes=6, return_episode_rewards=True, warn=False)
    assert lengths == [4] * 6
    assert isinstance(rewards, list)
    assert all(-0.4 - 1e-5 <= reward <= 4 for reward in rewards)


def test_a_replay_buffer_gets_the_end_of_an_episode_and_not_the_next_start() -> None:
    env = sb3_env(make_family("gridnavi", horizon=4))
    env.seed(0)
    model = DQN("MlpPolicy", env, learning_starts=100, buffer_size=300, device="cpu", exploration_fraction=1.0)
    model.learn(12 * WORLDS)
    buffer = model.replay_buffer
    assert buffer is not None
    ends = np.arange(12) % 4 == 3
    assert buffer.timeouts[:12, 0].tolist() == buffer.dones[:12, 0].tolist() == ends.tolist()
    # From one step to the next of an episode, the agent stays or moves by one.
    assert np.abs(buffer.next_observations[:12] - buffer.observations[:12]).sum(-1).max() <= 1
    np.testing.assert_array_equal(buffer.observations[1:12][~ends[:11]], buffer.next_observations[:11][~ends[:11]])
    assert (buffer.observations[1:12][ends[:11]] == 0).all()
