import pytest
import torch
from gymnasium.vector import AutoresetMode
from tensordict import TensorDict

from metarl.envs.navigation import Navigation2D
from metarl.vector_env import TaskVectorEnv

FAMILY = Navigation2D()


def worlds(*goals: tuple[float, float]) -> TaskVectorEnv:
    env = TaskVectorEnv(FAMILY, len(goals), autoreset_mode=AutoresetMode.DISABLED)
    env.set_tasks(TensorDict({"goal": torch.tensor(goals)}, [len(goals)]))
    env.reset(seed=0)
    return env


def mean_return(steering: float, tasks: int = 20_000) -> tuple[float, float]:
    """Move by ``steering`` times the way to the goal; return the mean return and its standard error."""
    env = TaskVectorEnv(FAMILY, tasks, autoreset_mode=AutoresetMode.DISABLED)
    position, _ = env.reset(seed=0)
    total, alive = torch.zeros(tasks), torch.ones(tasks, dtype=torch.bool)
    for _ in range(FAMILY.horizon):
        position, rewards, terminated, truncated, _ = env.step(steering * (env.tasks["goal"] - position))
        total += rewards * alive
        alive &= ~(terminated | truncated)
    assert not alive.any()
    return total.mean().item(), total.std().item() / tasks**0.5


def test_the_reward_is_minus_the_distance_after_the_move() -> None:
    # From the origin to (0.1, 0) with the goal at (0.4, 0.4): √(0.09 + 0.16) = 0.5.
    env = worlds((0.4, 0.4))
    assert env.step(torch.tensor([[0.1, 0.0]]))[1].item() == pytest.approx(-0.5)


def test_moves_are_clipped_on_each_axis() -> None:
    observations, *_ = worlds((0.4, 0.4)).step(torch.tensor([[1.0, -0.05]]))
    torch.testing.assert_close(observations, torch.tensor([[0.1, -0.05]]))


def test_episodes_start_at_the_origin() -> None:
    assert worlds((0.4, 0.4)).reset()[0].tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize(
    ("goal", "arrived"),
    [
        ((0.009, -0.009), True),
        # One axis alone does not do, and 0.01 itself is not within 0.01.
        ((0.009, 0.011), False),
        ((0.011, 0.009), False),
        # The distance 0.0127 is more than 0.01, but each axis is within.
        ((0.0095, 0.0095), True),
    ],
)
def test_arrival_is_within_a_hundredth_on_both_axes(goal: tuple[float, float], arrived: bool) -> None:
    assert worlds(goal).step(torch.zeros(1, 2))[2].item() is arrived


def test_arrival_ends_the_episode_without_a_bonus() -> None:
    _, rewards, terminated, truncated, _ = worlds((0.1, 0.1)).step(torch.full((1, 2), 0.1))
    assert (rewards.item(), terminated.item(), truncated.item()) == (0.0, True, False)


def test_worlds_end_one_by_one() -> None:
    env = worlds((0.1, 0.0), (0.2, 0.0))
    move = torch.tensor([[0.1, 0.0]] * 2)
    assert env.step(move)[2].tolist() == [True, False]
    assert env.step(move)[2].tolist() == [False, True]


def test_the_other_worlds_do_not_notice_an_autoreset() -> None:
    env = TaskVectorEnv(FAMILY, 2, autoreset_mode=AutoresetMode.SAME_STEP)
    env.set_tasks(TensorDict({"goal": torch.tensor([[0.1, 0.0], [0.4, 0.0]])}, [2]))
    env.reset(seed=0)
    move = torch.tensor([[0.1, 0.0]] * 2)
    observations, *_, info = env.step(move)
    torch.testing.assert_close(observations, torch.tensor([[0.0, 0.0], [0.1, 0.0]]))
    torch.testing.assert_close(info["final_obs"][0], torch.tensor([0.1, 0.0]))
    assert info["_final_obs"].tolist() == [True, False]
    torch.testing.assert_close(env.step(move)[0][1], torch.tensor([0.2, 0.0]))


def test_staying_at_the_origin_is_worth_what_is_published() -> None:
    # The mean distance of a point of the unit square from its centre is (√2 + asinh 1) / 6 = 0.3826; a hundred times.
    # One goal in 2500 lies within 0.01 of the origin and ends the episode at once; it costs next to nothing anyway.
    mean, error = mean_return(steering=0.0)
    assert mean == pytest.approx(-38.26, abs=4 * error)
    assert mean == pytest.approx(-38.4, abs=0.5)


def test_moving_straight_to_the_goal_is_worth_what_is_published() -> None:
    mean, error = mean_return(steering=1.0)
    assert mean == pytest.approx(-0.51, abs=4 * error + 0.005)  # 0.005: published to two digits


def test_goals_fill_the_square() -> None:
    goals = FAMILY.sample_tasks(5000, torch.Generator().manual_seed(0))["goal"]
    assert goals.abs().max() <= 0.5
    # Standard error of the mean 1/√12/√5000 = 0.0041 on each axis; four of them.
    torch.testing.assert_close(goals.mean(0), torch.zeros(2), rtol=0, atol=0.0164)
    assert (goals.amax(0) > 0.49).all()
    assert (goals.amin(0) < -0.49).all()
