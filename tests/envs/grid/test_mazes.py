import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict

from metarl.envs.grid.mazes import RandomMazes, spanning_tree
from metarl.errors import InputError
from metarl.families.splits import TaskSplit
from tests.envs.grid.test_engine import RIGHT, STAY, STEPS, UP, drawn, worlds

FAMILY = RandomMazes()


def distances(walls: np.ndarray) -> np.ndarray:
    """Return the steps from (0, 0) to each cell ``[B, size, size]``, -1 if unreachable: breadth first, in NumPy."""
    found = np.full(walls.shape, -1)
    edge = np.zeros(walls.shape, dtype=bool)
    edge[:, 0, 0] = True
    for step in range(walls.shape[1] ** 2):
        found[edge] = step
        grown = np.zeros_like(edge)
        grown[:, 1:] |= edge[:, :-1]
        grown[:, :-1] |= edge[:, 1:]
        grown[:, :, 1:] |= edge[:, :, :-1]
        grown[:, :, :-1] |= edge[:, :, 1:]
        edge = grown & (walls == 0) & (found < 0)
        if not edge.any():
            break
    return found


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), half=st.integers(2, 7))
def test_every_maze_is_a_tree_in_which_the_goal_can_be_reached(seed: int, half: int) -> None:
    size = 2 * half + 1
    tasks = drawn(RandomMazes(size=size), 40, seed)
    walls, goals = tasks["walls"].numpy(), tasks["goal"].numpy()
    steps, rows = distances(walls), np.arange(40)
    assert ((steps >= 0) == (walls == 0)).all()
    # n rooms and n - 1 doors, all joined, are a tree.
    rooms = (half + 1) ** 2
    assert ((walls == 0).sum((1, 2)) == 2 * rooms - 1).all()
    assert (steps[rows, goals[:, 1], goals[:, 0]] > 0).all()
    assert (goals % 2 == 0).all()


def test_the_same_stream_gives_the_same_mazes_and_no_two_alike() -> None:
    assert (drawn(FAMILY, 5, seed=3) == drawn(FAMILY, 5, seed=3)).all()
    walls = drawn(FAMILY, 64)["walls"]
    assert len(walls.flatten(1).unique(dim=0)) == 64


def test_the_tree_is_the_lightest() -> None:
    # A square of four rooms: the heaviest of its four doors stays shut.
    doors = torch.tensor([[0, 1], [2, 3], [0, 2], [1, 3]])
    weights = torch.rand(100, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(spanning_tree(weights, doors), weights < weights.amax(1, keepdim=True))


def test_every_door_is_open_as_often_as_its_mirror_image() -> None:
    # 4000 mazes: standard deviation of a share at most 0.008; five of them, times √2 for a difference.
    walls = drawn(FAMILY, 4000)["walls"].double().mean(0)
    for mirrored in (walls.flip(0), walls.flip(1), walls.T):
        assert (walls - mirrored).abs().max() < 0.057


def test_goals_are_uniform_over_the_rooms() -> None:
    # 24 rooms, 500 each on average, standard deviation 22; five of them.
    cells, counts = drawn(FAMILY, 12_000)["goal"].unique(dim=0, return_counts=True)
    assert len(cells) == 24
    assert (counts - 500).abs().max() < 110


def test_a_maze_belongs_to_one_part() -> None:
    split = TaskSplit(FAMILY)
    train = split.train_tasks(2000, 0)["walls"].flatten(1)
    test = split.held_out_tasks("test", 50)["walls"].flatten(1)
    assert not (train[:, None] == test[None]).all(-1).any()
    tasks = drawn(FAMILY, 100)
    elsewhere = TensorDict({"walls": tasks["walls"], "goal": tasks["goal"].roll(1, 0)}, [100])
    assert torch.equal(FAMILY.part_of(tasks, 0), FAMILY.part_of(elsewhere, 0))


def corridor(goal: tuple[int, int]) -> dict[str, object]:
    """Return a maze of one way: along the bottom, then up the right side."""
    walls = np.ones((5, 5))
    walls[0] = walls[:, 4] = 0
    return {"walls": walls, "goal": goal}


def test_a_way_can_be_walked() -> None:
    family = RandomMazes(size=5)
    env = worlds(family, family.make_task(corridor((4, 2))))
    rewards = [env.step(torch.tensor([move]))[1].item() for move in [UP] + [RIGHT] * 4 + [UP] * 3]
    assert rewards == pytest.approx([-0.1] * 6 + [1.0, -0.1])


def way(steps: np.ndarray, goal: tuple[int, int]) -> list[int]:
    """Return the actions that lead to the goal, found by going back from it; ``steps`` ``[size, size]`` from (0, 0)."""
    (x, y), actions = goal, []
    while steps[y, x]:
        for action, (dx, dy) in STEPS.items():
            on_map = 0 <= min(x - dx, y - dy) <= max(x - dx, y - dy) < len(steps)
            if on_map and steps[y - dy, x - dx] == steps[y, x] - 1:
                actions.append(action)
                x, y = x - dx, y - dy
                break
    return actions[::-1]


def test_known_goals_can_be_walked_to() -> None:
    tasks = drawn(FAMILY, 50)
    steps = distances(tasks["walls"].numpy())
    ways = [way(steps[row], (x, y)) for row, (x, y) in enumerate(tasks["goal"].tolist())]
    env, total = worlds(FAMILY, tasks), torch.zeros(50)
    for step in range(FAMILY.horizon):
        total += env.step(torch.tensor([way[step] if step < len(way) else STAY for way in ways]))[1]
    assert total.tolist() == pytest.approx([FAMILY.horizon - 1.1 * (len(way) - 1) for way in ways], abs=1e-4)


@pytest.mark.parametrize("goal", [(0, 0), (2, 2), (0, 4)])
def test_a_goal_must_be_reachable_and_not_the_start(goal: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=r"random-mazes: no path leads from \(0, 0\) to a goal at"):
        RandomMazes(size=5).make_task(corridor(goal))


def test_a_start_in_a_wall_is_no_task() -> None:
    task = corridor((4, 2))
    task["walls"] = np.ones((5, 5))
    with pytest.raises(InputError, match="no path leads"):
        RandomMazes(size=5).make_task(task)


def test_a_maze_has_an_odd_number_of_cells() -> None:
    with pytest.raises(InputError, match="random-mazes needs an odd number of cells per side, not 8"):
        RandomMazes(size=8)
