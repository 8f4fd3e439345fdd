"""Trials as environments: what an agent of another library meets."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

import metarl.envs  # noqa: F401 (registers the families)
from metarl.errors import InputError
from metarl.families.family import make_family
from metarl.worlds.trial_env import TrialEnv, TrialVectorEnv
from metarl.worlds.vector_env import TaskVectorEnv

EPISODES, HORIZON = 2, 3
UP, STAY = 1, 0


def trial(**settings: Any) -> TrialEnv:
    env = TrialEnv(gymnasium.make("metarl/GridNavi-v0", horizon=HORIZON, **settings), EPISODES)
    env.reset(seed=0)
    return env


def test_an_observation_has_the_last_action_the_last_reward_and_the_start_flag() -> None:
    env = trial()
    first, _ = env.reset(seed=1)
    assert first.tolist() == [0, 0, 0, 0, 0, 0, 0, 0, 1]
    second = env.step(UP)[0]
    assert second[:2].tolist() != [0, 0]
    assert second[2:].tolist() == pytest.approx([0, 1, 0, 0, 0, -0.1, 0])
    assert env.observation_space.contains(first)
    assert env.observation_space.contains(second)


def test_a_trial_is_two_episodes_of_one_task() -> None:
    env = trial()
    goals, ends, starts, infos = [], [], [], []
    for _ in range(EPISODES * HORIZON):
        goals.append(env.unwrapped.task["goal"].tolist())  # type: ignore[attr-defined]
        seen, _, terminated, truncated, info = env.step(STAY)
        ends.append(terminated or truncated)
        starts.append(seen[-1])
        infos.append(info.get("episode_return"))
    assert all(goal == goals[0] for goal in goals)
    assert ends == [False] * 5 + [True]
    assert starts == [0, 0, 1, 0, 0, 0]
    assert infos[2] == infos[5] == pytest.approx(-0.3)
    assert [infos[step] for step in (0, 1, 3, 4)] == [None] * 4


def test_the_next_trial_has_another_task() -> None:
    env = trial()
    goals = set()
    for _ in range(20):
        env.reset()
        goals.add(tuple(env.unwrapped.task["goal"]))  # type: ignore[attr-defined]
    assert len(goals) > 5


class Counter(gymnasium.Env[np.ndarray, Any]):
    """An environment of somebody else, whose task is an attribute."""

    observation_space = gymnasium.spaces.Box(-9, 9, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    task = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return np.ones(1, np.float32), float(self.task), True, False, {}


def test_the_task_of_any_environment_is_set_before_each_trial() -> None:
    def new_task(env: gymnasium.Env[Any, Any]) -> None:
        env.unwrapped.task += 1  # type: ignore[attr-defined]

    env = TrialEnv(Counter(), 3, new_task)
    for task in (1, 2):
        env.reset()
        outcomes = [env.step(np.zeros(1, np.float32))[1:4] for _ in range(3)]
        assert outcomes == [(task, False, False), (task, False, False), (task, True, False)]


NEXT_STEP, DISABLED = AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED


# The step that starts the next trial draws random numbers too, so a bandit's pulls would differ with NEXT_STEP.
@pytest.mark.parametrize(
    ("name", "mode"), [("gridnavi", NEXT_STEP), ("navigation-2d", DISABLED), ("bandit", DISABLED)], ids=str
)
def test_a_batch_of_trials_does_what_a_single_trial_does(name: str, mode: AutoresetMode) -> None:
    horizon = 1 if name == "bandit" else HORIZON
    family = make_family(name, horizon=horizon)
    batch = TrialVectorEnv(family, 1, EPISODES, mode)
    single = TrialEnv(gymnasium.make(family.env_id, horizon=horizon), EPISODES)
    batch.action_space.seed(0)
    together, alone = batch.reset(seed=5)[0], single.reset(seed=5)[0]
    for _ in range(3 * EPISODES * horizon):
        np.testing.assert_array_equal(together[0], alone)
        actions = batch.action_space.sample()
        together, rewards, terminated, truncated, info = batch.step(actions)
        alone, reward, *ends, one = single.step(actions[0])
        assert (rewards[0], terminated[0], truncated[0]) == (pytest.approx(reward), *ends)
        assert ("episode_return" in one) == ("episode_return" in info)
        if any(ends):
            np.testing.assert_array_equal(together[0], alone)
            alone, _ = single.reset()
            if mode is DISABLED:
                together, _ = batch.reset(options={"reset_mask": np.array([True])})
                continue
            together, rewards, *others, _ = batch.step(actions)  # starts the next trial
            assert (rewards[0], *[end[0] for end in others]) == (0, False, False)


def test_worlds_of_a_batch_end_their_trials_on_their_own() -> None:
    env = TrialVectorEnv(make_family("gridnavi", horizon=HORIZON), 2, EPISODES, DISABLED)
    env.reset(seed=0)
    for _ in range(2):
        env.step(np.zeros(2, np.int64))
    env.reset(options={"reset_mask": np.array([True, False])})
    ends = [(seen[3] | seen[2]).tolist() for seen in (env.step(np.zeros(2, np.int64)) for _ in range(6))]
    assert ends == [[False, False]] * 3 + [[False, True], [False, False], [True, False]]


def test_a_trial_that_is_over_waits_for_its_reset() -> None:
    env = TrialVectorEnv(make_family("navigation-2d", horizon=HORIZON), 2, EPISODES, DISABLED)
    env.reset(seed=0)
    actions = np.ones((2, 2), np.float32)
    for _ in range(EPISODES * HORIZON):
        last = env.step(actions)
    assert last[3].all()
    for _ in range(2 * HORIZON):
        _, rewards, terminated, truncated, info = env.step(actions)
        assert not any(found.any() for found in (rewards, terminated, truncated))
        assert "episode_return" not in info
    env.reset(options={"reset_mask": np.array([True, False])})
    assert (env.step(actions)[1] != 0).tolist() == [True, False]


@pytest.mark.parametrize("wrong", [0, -1])
def test_a_trial_has_at_least_one_episode(wrong: int) -> None:
    with pytest.raises(InputError, match="episodes"):
        TrialEnv(Counter(), wrong)
    with pytest.raises(InputError, match="episodes"):
        TrialVectorEnv(make_family("bandit"), 2, wrong)


@pytest.mark.parametrize("space", [gymnasium.spaces.Text(5), gymnasium.spaces.Sequence(gymnasium.spaces.Discrete(2))])
def test_spaces_without_a_fixed_size_are_refused(space: gymnasium.Space[Any]) -> None:
    env: Any = Counter()
    env.observation_space = space
    with pytest.raises(InputError, match=type(space).__name__):
        TrialEnv(env, 2)


def test_a_batch_says_which_autoreset_modes_it_has() -> None:
    with pytest.raises(InputError, match="NEXT_STEP or DISABLED"):
        TrialVectorEnv(make_family("bandit"), 2, 2, AutoresetMode.SAME_STEP)


def test_a_fixed_task_stays_from_trial_to_trial() -> None:
    family = make_family("gridnavi", horizon=1)
    env = TrialVectorEnv(family, 2, EPISODES)
    env.set_tasks(family.sample_tasks(2, TaskVectorEnv(family, 1).generator))
    env.reset(seed=0)
    before = env.worlds.tasks["goal"].tolist()
    for _ in range(6):
        env.step(np.zeros(2, np.int64))
    assert env.worlds.tasks["goal"].tolist() == before


@pytest.mark.slow
def test_recurrent_ppo_learns_to_explore_bandits() -> None:
    from sb3_contrib import RecurrentPPO
    from stable_baselines3.common.env_util import make_vec_env

    pulls, worlds = 10, 16
    torch.set_num_threads(1)
    envs = make_vec_env(lambda: TrialEnv(gymnasium.make("metarl/Bandit-v0", arms=2), pulls), worlds, seed=0)
    model = RecurrentPPO(
        "MlpLstmPolicy",
        envs,
        learning_rate=1e-2,
        n_steps=5 * pulls,
        batch_size=5 * pulls * worlds,
        n_epochs=4,
        gamma=1.0,
        ent_coef=0.01,
        seed=0,
        policy_kwargs={"lstm_hidden_size": 32, "net_arch": []},
    )
    model.learn(48_000)
    rewards, state, starts, seen = [], None, np.ones(worlds, bool), envs.reset()
    for _ in range(20 * pulls):
        actions, state = model.predict(seen, state, starts)
        seen, reward, starts, _ = envs.step(actions)
        rewards.append(reward)
    # Random pulls give 5 of 10, with a standard error of 0.15 over so many trials; two arms known in advance give 6.7.
    assert np.sum(rewards) / (20 * worlds) > 5.5
