import math

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict
from torch import Tensor

from metarl.envs.basic.navigation import Navigation2D, PointRobot, SparsePoint
from metarl.errors import InputError
from metarl.families.family import make_family
from metarl.families.pictures import AGENT, GOAL, SIDE
from metarl.worlds.vector_env import TaskVectorEnv

FAMILY = Navigation2D()
MOVES = st.lists(st.tuples(*[st.floats(-0.1, 0.1)] * 2), min_size=1, max_size=8)
ANGLES = st.floats(0, math.pi)


def worlds(*goals: tuple[float, float]) -> TaskVectorEnv:
    env = TaskVectorEnv(FAMILY, len(goals), autoreset_mode=AutoresetMode.DISABLED)
    env.set_tasks(TensorDict({"goal": torch.tensor(goals)}, [len(goals)]))
    env.reset(seed=0)
    return env


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


def test_goals_fill_the_square() -> None:
    goals = FAMILY.sample_tasks(5000, torch.Generator().manual_seed(0))["goal"]
    assert goals.abs().max() <= 0.5
    # Standard error of the mean 1/√12/√5000 = 0.0041 on each axis; four of them.
    torch.testing.assert_close(goals.mean(0), torch.zeros(2), rtol=0, atol=0.0164)
    assert (goals.amax(0) > 0.49).all()
    assert (goals.amin(0) < -0.49).all()


# --- Sparse point -----------------------------------------------------------------------------------------------------


def sparse(*angles: float, preset: str = "pearl") -> TaskVectorEnv:
    env = TaskVectorEnv(make_family("sparse-point", preset), len(angles), autoreset_mode=AutoresetMode.DISABLED)
    env.set_tasks(TensorDict({"angle": torch.tensor(angles)}, [len(angles)]))
    env.reset(seed=0)
    return env


def reward_at(place: tuple[float, float], goal_angle: float, **settings: bool | float) -> float:
    """Return the reward of standing at a place."""
    family = SparsePoint(**settings)  # type: ignore[arg-type]
    goal = family.goals(TensorDict({"angle": torch.tensor([goal_angle])}, [1]))
    return family.outcome(torch.tensor([place]) - goal).rewards.item()


@pytest.mark.parametrize(
    ("angle", "goal"), [(0.0, (1, 0)), (math.pi / 2, (0, 1)), (math.pi, (-1, 0)), (math.pi / 6, (math.sqrt(0.75), 0.5))]
)
def test_an_angle_is_a_place_on_the_unit_circle(angle: float, goal: tuple[float, float]) -> None:
    goals = SparsePoint().goals(TensorDict({"angle": torch.tensor([angle])}, [1]))
    torch.testing.assert_close(goals, torch.tensor([goal], dtype=torch.float32))


@pytest.mark.parametrize(
    ("place", "shaped", "flat"),
    [
        ((0.0, 1.0), 1.0, 1.0),
        ((0.0, 0.9), 0.9, 1.0),
        # 0.12 and 0.16 aside: a distance of 0.2 less a hair.
        ((0.11999, 0.84001), 0.8, 1.0),
        ((0.121, 0.839), 0.0, 0.0),
        ((0.0, 0.0), 0.0, 0.0),
    ],
)
def test_rewards_are_near_the_goal_only(place: tuple[float, float], shaped: float, flat: float) -> None:
    assert reward_at(place, math.pi / 2) == pytest.approx(shaped, abs=1e-4)
    assert reward_at(place, math.pi / 2, shaped=False) == flat


def test_the_radius_is_the_familys() -> None:
    assert reward_at((0.0, 0.5), math.pi / 2) == 0
    assert reward_at((0.0, 0.5), math.pi / 2, goal_radius=0.6) == pytest.approx(0.5)


def test_a_straight_walk_to_the_goal_is_paid_by_hand_computed_rewards() -> None:
    # The goal is at (1, 0). The eighth step ends at the radius itself, to one side of it or the other by rounding.
    env = sparse(0.0)
    rewards = [env.step(torch.tensor([[0.1, 0.0]]))[1].item() for _ in range(11)]
    assert rewards[:7] == [0.0] * 7
    assert rewards[8:] == pytest.approx([0.9, 1.0, 0.9], abs=1e-5)


@pytest.mark.parametrize(("preset", "horizon"), [("pearl", 20), ("ni", 60), ("varibad", 100)])
def test_presets_run_for_their_horizon_and_never_terminate(preset: str, horizon: int) -> None:
    env = sparse(0.0, preset=preset)
    ends = [env.step(torch.zeros(1, 2))[2:4] for _ in range(horizon)]
    assert not any(terminated.item() for terminated, _ in ends)
    assert [truncated.item() for _, truncated in ends] == [False] * (horizon - 1) + [True]


@pytest.mark.parametrize("preset", ["pearl", "varibad"])
def test_sparse_episodes_start_at_the_origin(preset: str) -> None:
    assert sparse(0.0, 1.0, preset=preset).reset()[0].tolist() == [[0.0, 0.0]] * 2


def test_nis_episodes_start_anywhere_in_a_rectangle() -> None:
    # 4000 starts, uniform over 3 by 2: standard errors of the means 3/√12/√4000 = 0.0137 and 0.0091; four of each.
    starts, _ = sparse(*[0.0] * 4000, preset="ni").reset()
    low, high = torch.tensor([-1.5, -0.5]), torch.tensor([1.5, 1.5])
    assert ((starts >= low) & (starts <= high)).all()
    assert (starts.amin(0) < low + 0.02).all()
    assert (starts.amax(0) > high - 0.02).all()
    assert ((starts.mean(0) - torch.tensor([0.0, 0.5])).abs() < torch.tensor([0.055, 0.037])).all()


def test_every_episode_of_nis_has_its_own_start() -> None:
    env = sparse(0.0, preset="ni")
    assert not torch.equal(env.reset()[0], env.reset()[0])


def test_sparse_goals_fill_the_half_circle() -> None:
    # 5000 uniform angles: standard error of the mean π/√12/√5000 = 0.0128; four of them.
    angles = SparsePoint().sample_tasks(5000, torch.Generator().manual_seed(0))["angle"]
    assert 0 <= angles.min() < 0.01
    assert math.pi - 0.01 < angles.max() <= math.pi
    assert angles.mean().item() == pytest.approx(math.pi / 2, abs=0.0512)


@pytest.mark.parametrize("angle", [-0.1, 3.2, math.nan])
def test_a_goal_below_the_half_circle_is_refused(angle: float) -> None:
    with pytest.raises(InputError, match=f"sparse-point: task parameter angle = {angle} lies outside"):
        SparsePoint().make_task({"angle": angle})


@pytest.mark.parametrize("radius", [0.0, -0.2, 1.0, math.nan])
def test_a_radius_that_makes_no_sense_is_refused(radius: float) -> None:
    with pytest.raises(InputError, match=f"goal_radius must lie between 0 and 1.*, not {radius}"):
        SparsePoint(goal_radius=radius)


# --- Both -------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(moves=MOVES, angle=ANGLES, goal=st.tuples(*[st.floats(-0.5, 0.5)] * 2))
def test_a_point_is_where_its_moves_add_up_to(
    moves: list[tuple[float, float]], angle: float, goal: tuple[float, float]
) -> None:
    tasks = TensorDict({"angle": torch.tensor([angle]), "goal": torch.tensor([goal])}, [1])
    for family in (Navigation2D(), SparsePoint()):
        state = family.initial_state(tasks, torch.Generator())
        for move in moves:
            state, _ = family.transition(state, torch.tensor([move]), tasks, torch.Generator())
        found = family.observation(state)[0].double().numpy()
        np.testing.assert_allclose(found, np.sum(np.array(moves, np.float64), 0), atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(place=st.tuples(*[st.floats(-2, 2)] * 2), angle=ANGLES)
def test_sparse_rewards_are_dense_ones_cut_off(place: tuple[float, float], angle: float) -> None:
    goal = np.array([math.cos(angle), math.sin(angle)])
    distance = float(np.linalg.norm(np.array(place) - goal))
    reward = reward_at(place, angle)
    assert 0 <= reward <= 1
    if abs(distance - 0.2) > 1e-5:
        assert reward == pytest.approx(1 - distance if distance < 0.2 else 0.0, abs=1e-5)


def where(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Return the middle (x, y) of a colour in a picture, in pixels."""
    middle: np.ndarray = np.argwhere((picture == colour).all(-1)).mean(0)[::-1]
    return middle


def frame(family: PointRobot, task: dict[str, Tensor], position: tuple[float, float]) -> np.ndarray:
    return family.picture({"position": torch.tensor(position)}, TensorDict(task, []))


def test_pictures_show_goal_and_point_where_they_are() -> None:
    # 256 pixels for x and y from -0.7 to 0.7: 183 for a unit, y upwards.
    picture = frame(FAMILY, {"goal": torch.tensor([0.35, 0.35])}, (-0.35, 0.0))
    assert picture.shape == (SIDE, SIDE, 3)
    np.testing.assert_allclose(where(picture, GOAL), [192, 64], atol=1)
    np.testing.assert_allclose(where(picture, AGENT), [64, 128], atol=1)


def test_pictures_of_the_half_circle_have_room_above() -> None:
    # 256 pixels for x from -1.7 to 1.7 and y from -1.2 to 2.2: the goal at (-1, 0) is 0.7 from the left, 1.2 from
    # below.
    picture = frame(SparsePoint(), {"angle": torch.tensor(math.pi)}, (1.0, 1.0))
    np.testing.assert_allclose(where(picture, GOAL), [0.7 / 3.4 * 256, (1 - 1.2 / 3.4) * 256], atol=1)


def test_a_point_that_left_the_picture_is_drawn_at_its_border() -> None:
    picture = frame(FAMILY, {"goal": torch.tensor([0.0, 0.0])}, (9.0, 0.0))
    assert where(picture, AGENT)[0] > SIDE - 6
