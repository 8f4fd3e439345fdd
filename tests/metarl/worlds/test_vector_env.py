from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

import metarl.envs  # noqa: F401 (registers the families)
from metarl.errors import InputError
from metarl.families.family import Transition, make_family
from metarl.families.tensor_family import State
from metarl.worlds.make_env import make_env
from metarl.worlds.numpy_env import NumpyVectorEnv, TaskEnv
from metarl.worlds.vector_env import TaskVectorEnv
from tests.fakes import POISON, EchoFamily, echo_tasks


def echo(
    lifetimes: list[int], horizon: int = 4, autoreset_mode: AutoresetMode = AutoresetMode.DISABLED
) -> TaskVectorEnv:
    """Make worlds 0, 1, ... of the echo family and reset them."""
    env = TaskVectorEnv(EchoFamily(horizon=horizon), len(lifetimes), autoreset_mode=autoreset_mode)
    env.set_tasks(echo_tasks(range(len(lifetimes)), lifetimes))
    env.reset(seed=0)
    return env


def still(env: TaskVectorEnv) -> torch.Tensor:
    return torch.zeros(env.num_envs, 2)


def test_each_world_is_rewarded_for_its_own_task() -> None:
    env = echo([9, 9, 9])
    assert env.step(still(env))[1].tolist() == [0.0, 1.0, 2.0]


def test_an_episode_is_truncated_at_the_horizon() -> None:
    env = echo([9], horizon=3)
    assert [env.step(still(env))[3].item() for _ in range(3)] == [False, False, True]


def test_termination_at_the_horizon_is_no_truncation() -> None:
    env = echo([3], horizon=3)
    *_, (_, _, terminated, truncated, _) = [env.step(still(env)) for _ in range(3)]
    assert (terminated.item(), truncated.item()) == (True, False)


class CutFamily(EchoFamily):
    """Truncates its episodes itself after two steps; those with a lifetime of two terminate then."""

    def transition(self, state: State, *others: Any) -> tuple[State, Transition]:
        following, given = super().transition(state, *others)
        return following, given._replace(truncated=following["steps"] >= 2)


def test_a_world_may_truncate_its_episode_before_the_horizon() -> None:
    env = TaskVectorEnv(CutFamily(horizon=4), 2, autoreset_mode=AutoresetMode.DISABLED)
    env.set_tasks(echo_tasks([1, 2], [9, 2]))
    env.reset(seed=0)
    ends = [env.step(still(env))[2:4] for _ in range(2)]
    assert [[end.tolist() for end in step] for step in ends] == [
        [[False, False], [False, False]],
        [[False, True], [True, False]],
    ]


def test_an_episode_that_its_world_truncated_is_followed_by_another() -> None:
    env = TaskVectorEnv(CutFamily(horizon=4), 1)
    env.reset(seed=0)
    env.step(still(env))
    observations, _, _, truncated, info = env.step(still(env))
    assert truncated.tolist() == [True]
    assert (info["final_obs"][0, 1], observations[0, 1]) == (2, 0)
    assert not env.step(still(env))[3].any()


def test_a_masked_reset_restarts_only_that_worlds_clock() -> None:
    env = echo([9, 9], horizon=3)
    env.step(still(env))
    env.step(still(env))
    env.reset(options={"reset_mask": torch.tensor([True, False])})
    assert env.step(still(env))[3].tolist() == [False, True]


def test_reset_mask_may_be_numpy() -> None:
    env = echo([9, 9])
    env.step(still(env))
    observations, _ = env.reset(options={"reset_mask": np.array([False, True])})
    assert observations[:, 1].tolist() == [1.0, 0.0]  # steps taken


def test_same_step_autoreset_hands_out_the_last_observation() -> None:
    env = echo([1, 9], autoreset_mode=AutoresetMode.SAME_STEP)
    observations, _, _, _, info = env.step(still(env))
    assert info["_final_obs"].tolist() == [True, False]
    assert info["final_obs"][0, 1] == 1  # one step taken
    assert observations[:, 1].tolist() == [0.0, 1.0]


def test_no_end_leaves_no_final_observation() -> None:
    env = echo([9, 9], autoreset_mode=AutoresetMode.SAME_STEP)
    assert "final_obs" not in env.step(still(env))[4]


def test_a_disabled_autoreset_waits() -> None:
    env = echo([1])
    observations, *_, info = env.step(still(env))
    assert observations[0, 1] == 1
    assert "final_obs" not in info


def test_given_tasks_stay_over_resets() -> None:
    env = echo([9, 9])
    env.reset()
    assert env.tasks["identity"].tolist() == [0.0, 1.0]


def test_given_tasks_take_effect_at_the_next_reset() -> None:
    # An episode that has begun is played to its end under the task it began with.
    env = echo([9, 9])
    env.set_tasks(echo_tasks([5, 6]))
    assert env.step(still(env))[1].tolist() == [0.0, 1.0]


def test_given_tasks_take_effect_only_where_a_reset_happens() -> None:
    env = echo([9, 9])
    env.set_tasks(echo_tasks([5, 6]))
    env.reset(options={"reset_mask": torch.tensor([True, False])})
    assert env.step(still(env))[1].tolist() == [5.0, 1.0]


def test_without_given_tasks_every_reset_draws_new_ones() -> None:
    env = TaskVectorEnv(make_family("navigation-2d"), 3)
    env.reset(seed=0)
    before = env.tasks["goal"]
    env.reset()
    assert not torch.equal(env.tasks["goal"], before)


def test_worlds_draw_different_tasks() -> None:
    env = TaskVectorEnv(make_family("navigation-2d"), 3)
    env.reset(seed=0)
    assert len({tuple(goal) for goal in env.tasks["goal"].tolist()}) == 3


def test_the_seed_decides_tasks_and_episodes() -> None:
    one, other = (TaskVectorEnv(EchoFamily(), 3) for _ in range(2))
    assert torch.equal(one.reset(seed=5)[0], other.reset(seed=5)[0])


def test_another_seed_gives_other_tasks() -> None:
    one, other = (TaskVectorEnv(EchoFamily(), 3) for _ in range(2))
    assert not torch.equal(one.reset(seed=5)[0], other.reset(seed=6)[0])


def test_a_reset_without_a_seed_continues_the_stream() -> None:
    env = echo([9])
    first, second = env.reset(seed=1)[0], env.reset()[0]
    assert not torch.equal(first, second)


def test_actions_outside_a_box_are_clipped() -> None:
    env = TaskVectorEnv(make_family("navigation-2d"), 1)
    env.reset(seed=0)
    observations, *_ = env.step(torch.tensor([[5.0, -5.0]]))
    torch.testing.assert_close(observations, torch.tensor([[0.1, -0.1]]))


def test_with_next_step_autoreset_the_step_after_an_end_ignores_the_action() -> None:
    env = echo([1, 9], autoreset_mode=AutoresetMode.NEXT_STEP)
    steps = [env.step(torch.full((2, 2), step)) for step in (1.0, 2.0, 3.0)]
    assert [step[2].tolist() for step in steps] == [[True, False], [False, False], [True, False]]
    assert [step[1].tolist() for step in steps] == [[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]
    assert [step[0][:, 1].tolist() for step in steps] == [[1, 1], [0, 2], [1, 3]]


def test_no_worlds_are_refused() -> None:
    with pytest.raises(InputError, match="at least one world, not 0"):
        TaskVectorEnv(EchoFamily(), 0)


def test_a_wrong_number_of_tasks_is_refused() -> None:
    with pytest.raises(InputError, match=r"2 environments need 2 tasks, not \[3\]"):
        TaskVectorEnv(EchoFamily(), 2).set_tasks(echo_tasks([1, 2, 3]))


def test_nan_rewards_pass_through() -> None:
    # Clipping must not hide a NaN; the sampler names it.
    env = echo([9])
    assert env.step(torch.tensor([[POISON, 0.0]]))[1].isnan().item()


def test_spaces_are_batched() -> None:
    env = TaskVectorEnv(make_family("navigation-2d"), 3)
    assert env.observation_space.shape == (3, 2)
    assert env.single_observation_space.shape == (2,)


def test_make_takes_task_parameters() -> None:
    env = gymnasium.make("metarl/Navigation2D-v0", goal=[0.25, -0.5]).unwrapped
    env.reset(seed=0)
    assert isinstance(env, TaskEnv)
    assert env.task["goal"].tolist() == [0.25, -0.5]


def test_make_takes_settings_and_task_together() -> None:
    env = gymnasium.make("metarl/HalfCheetahVel-v0", velocity=1.5, horizon=7).unwrapped
    env.reset(seed=0)
    assert isinstance(env, TaskEnv)
    assert (env.family.horizon, env.task["velocity"].item()) == (7, 1.5)


def test_make_takes_a_preset() -> None:
    env = gymnasium.make("metarl/Bandit-v0", preset="k10")
    assert env.action_space == gymnasium.spaces.Discrete(10)


def test_a_single_environment_draws_a_task_at_each_reset() -> None:
    env = make_env("navigation-2d")
    env.reset(seed=0)
    before = env.task["goal"]
    env.reset()
    assert not np.array_equal(env.task["goal"], before)


def test_make_refuses_an_unknown_preset() -> None:
    with pytest.raises(InputError, match="no preset 'k7'"):
        gymnasium.make("metarl/Bandit-v0", preset="k7")


def test_make_refuses_a_task_out_of_range() -> None:
    with pytest.raises(InputError, match=r"velocity = 9\.0 lies outside"):
        gymnasium.make("metarl/HalfCheetahVel-v0", velocity=9.0)


def test_make_refuses_a_render_mode() -> None:
    with pytest.raises(InputError, match="no render mode 'human'"):
        make_env("bandit", render_mode="human")  # type: ignore[arg-type]


def test_make_vec_gives_the_same_task_to_all() -> None:
    env = gymnasium.make_vec("metarl/Navigation2D-v0", num_envs=3, goal=[0.1, 0.2])
    env.reset(seed=0)
    assert isinstance(env, NumpyVectorEnv)
    torch.testing.assert_close(env.tasks["goal"], torch.tensor([[0.1, 0.2]]).expand(3, 2))


def test_make_vec_refuses_an_unknown_preset() -> None:
    with pytest.raises(InputError, match="no preset"):
        gymnasium.make_vec("metarl/Bandit-v0", num_envs=2, preset="k7")
