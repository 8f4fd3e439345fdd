import pytest
import torch
from tensordict import TensorDict

from metarl.envs.grid.rooms import FourRooms
from metarl.errors import InputError
from metarl.families.splits import PARTS, TaskSplit
from tests.envs.grid.test_engine import RIGHT, STAY, UP, agent_on, worlds

FAMILY = FourRooms()


def test_the_rooms_look_like_this() -> None:
    # From above, that is with the highest y first.
    drawing = ["".join("#" if wall else "." for wall in row) for row in FAMILY.layout().flip(0).tolist()]
    assert drawing == [
        ".....#.....",
        ".....#.....",
        "...........",
        ".....#.....",
        ".....#.....",
        "##.#####.##",
        ".....#.....",
        ".....#.....",
        "...........",
        ".....#.....",
        ".....#.....",
    ]


def test_there_are_103_goals() -> None:
    goals = FAMILY.all_tasks()["goal"]
    x, y = goals.unbind(-1)
    assert len(goals.unique(dim=0)) == len(goals) == 103
    assert not FAMILY.layout()[y, x].any()
    assert not (goals == 0).all(-1).any()


def test_the_parts_are_a_partition() -> None:
    split = TaskSplit(FAMILY)
    sizes = []
    for part in PARTS:
        tasks = split.finite(part)
        assert tasks is not None
        sizes.append(len(tasks))
    assert sizes == [61, 21, 21]


@pytest.mark.parametrize("goal", [[0, 0], [5, 5]])
def test_a_goal_at_the_start_or_in_a_wall_is_no_task(goal: list[int]) -> None:
    with pytest.raises(InputError, match="four-rooms: there is no task"):
        FAMILY.make_task({"goal": goal})


def test_a_path_through_a_door_pays_at_the_goal_and_continues() -> None:
    env = worlds(FAMILY, FAMILY.make_task({"goal": [6, 2]}))
    rewards = []
    for action in [UP, UP] + [RIGHT] * 6 + [STAY]:
        observations, reward, terminated, *_ = env.step(torch.tensor([action]))
        rewards.append(reward.item())
        assert not terminated
    assert rewards == pytest.approx([-0.1] * 7 + [1.0] * 2)
    assert agent_on(FAMILY, observations[0]) == (6, 2)


def test_a_wall_holds() -> None:
    env = worlds(FAMILY, FAMILY.make_task({"goal": [6, 2]}))
    for _ in range(6):
        observations, *_ = env.step(torch.tensor([RIGHT]))
    assert agent_on(FAMILY, observations[0]) == (4, 0)


def test_every_goal_can_be_reached_within_the_horizon() -> None:
    free = ~FAMILY.layout()
    reached = torch.zeros_like(free)
    reached[0, 0] = True
    for _ in range(FAMILY.horizon):
        grown = reached.clone()
        grown[1:] |= reached[:-1]
        grown[:-1] |= reached[1:]
        grown[:, 1:] |= reached[:, :-1]
        grown[:, :-1] |= reached[:, 1:]
        reached = grown & free
    assert torch.equal(reached, free)


def test_the_map_shows_nothing_but_the_agent() -> None:
    tasks: TensorDict = FAMILY.all_tasks()
    observations, _ = worlds(FAMILY, tasks).reset()
    assert observations.shape == (103, 121)
    assert (observations == observations[0]).all()
