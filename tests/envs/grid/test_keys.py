from typing import Any

import pytest
import torch

from metarl.envs.grid.keys import KeyAndDoor
from metarl.errors import InputError
from metarl.families.splits import TaskSplit
from tests.envs.grid.test_engine import LEFT, RIGHT, STAY, UP, agent_on, drawn, worlds

FAMILY = KeyAndDoor(size=5)
# The wall is the column x = 2.
TASK: dict[str, Any] = {"key": (0, 1), "door": 1, "goal": (4, 1)}


def played(*actions: int) -> tuple[list[tuple[int, int]], list[float], list[bool], list[list[float]]]:
    """Play from the start; return the agent's cells, rewards, ends and flags after each step."""
    env = worlds(FAMILY, FAMILY.make_task(TASK))
    cells, rewards, ends, flags = [], [], [], []
    for action in actions:
        observations, reward, terminated, *_ = env.step(torch.tensor([action]))
        cells.append(agent_on(FAMILY, observations[0]))
        rewards.append(reward.item())
        ends.append(bool(terminated))
        flags.append(observations[0, 25:].tolist())
    return cells, rewards, ends, flags


def test_key_door_and_goal_pay_once_each_and_the_goal_ends() -> None:
    cells, rewards, ends, flags = played(UP, RIGHT, RIGHT, RIGHT, RIGHT)
    assert cells == [(0, 1), (1, 1), (2, 1), (3, 1), (4, 1)]
    assert rewards == [1, 0, 1, 0, 1]
    assert ends == [False, False, False, False, True]
    assert flags == [[1, 0], [1, 0], [1, 1], [1, 1], [1, 1]]


def test_without_the_key_the_door_is_a_wall() -> None:
    cells, rewards, _, flags = played(RIGHT, UP, RIGHT, RIGHT)
    assert cells == [(1, 0), (1, 1), (1, 1), (1, 1)]
    assert rewards == [0, 0, 0, 0]
    assert flags == [[0, 0]] * 4


def test_with_the_key_the_wall_is_still_a_wall() -> None:
    cells, rewards, *_ = played(UP, UP, RIGHT, RIGHT)
    assert cells == [(0, 1), (0, 2), (1, 2), (1, 2)]
    assert rewards == [1, 0, 0, 0]


def test_nothing_pays_twice() -> None:
    # Over the place of the key again, through the door and back and through.
    _, rewards, *_ = played(UP, RIGHT, LEFT, RIGHT, RIGHT, STAY, LEFT, RIGHT, RIGHT, LEFT)
    assert rewards == [1, 0, 0, 0, 1, 0, 0, 0, 0, 0]


def test_a_new_episode_begins_without_the_key() -> None:
    env = worlds(FAMILY, FAMILY.make_task(TASK))
    for action in (UP, RIGHT, RIGHT):
        env.step(torch.tensor([action]))
    observations, _ = env.reset()
    assert agent_on(FAMILY, observations[0]) == (0, 0)
    assert observations[0, 25:].tolist() == [0, 0]
    assert env.step(torch.tensor([UP]))[1].item() == 1


def test_a_taken_key_is_no_longer_seen() -> None:
    family = KeyAndDoor(size=5, view=3)
    env = worlds(family, family.make_task(TASK))
    before, _ = env.reset()
    after, *_ = env.step(torch.tensor([UP]))
    # Planes of 9 cells: wall, goal, key, door; the key was one up.
    assert before[0, 18:27].view(3, 3)[2, 1] == 1
    assert after[0, 18:27].sum() == 0


def test_the_door_is_seen_instead_of_a_wall() -> None:
    family = KeyAndDoor(size=5, view=3)
    env = worlds(family, family.make_task(TASK))
    for action in (RIGHT, UP):
        observations, *_ = env.step(torch.tensor([action]))
    wall, _, _, door = observations[0, :36].view(4, 3, 3)
    assert (door[1, 2], wall[1, 2], wall[0, 2], wall[2, 2]) == (1, 0, 1, 1)


def test_a_key_at_the_start_is_no_task() -> None:
    with pytest.raises(InputError, match=r"key-and-door: the key cannot lie at \(0, 0\)"):
        FAMILY.make_task({**TASK, "key": (0, 0)})


@pytest.mark.parametrize("wrong", [{"key": (2, 1)}, {"goal": (2, 1)}, {"goal": (1, 1)}, {"door": 5}])
def test_key_and_goal_lie_on_their_sides_of_the_wall(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"key-and-door: task parameter {next(iter(wrong))}"):
        FAMILY.make_task({**TASK, **wrong})


def test_all_places_are_drawn_alike() -> None:
    # 9 keys, 5 doors, 10 goals; 9000 draws; five standard deviations.
    tasks = drawn(FAMILY, 9000)
    for key, kinds in (("key", 9), ("door", 5), ("goal", 10)):
        _, counts = tasks[key].unique(dim=0, return_counts=True)
        assert len(counts) == kinds
        assert (counts - 9000 / kinds).abs().max() < 5 * (9000 / kinds) ** 0.5


def test_parts_share_no_task() -> None:
    split = TaskSplit(FAMILY)
    drawn_tasks = {
        part: {
            (*key, door, *goal)
            for key, door, goal in zip(*(tasks[name].tolist() for name in ("key", "door", "goal")), strict=True)
        }
        for part, tasks in (
            ("train", split.train_tasks(3000, 0)),
            ("validation", split.held_out_tasks("validation", 60)),
            ("test", split.held_out_tasks("test", 60)),
        )
    }
    assert not drawn_tasks["train"] & drawn_tasks["test"]
    assert not drawn_tasks["train"] & drawn_tasks["validation"]
    assert not drawn_tasks["validation"] & drawn_tasks["test"]
