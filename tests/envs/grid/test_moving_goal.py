import pytest
import torch

from metarl.envs.grid.moving_goal import MovingGoal
from metarl.errors import InputError
from tests.envs.grid.test_engine import DOWN, LEFT, RIGHT, STAY, STEPS, UP, Cell, worlds

FAMILY = MovingGoal()
# From the corner it overlooks the whole map.
OVERLOOK = MovingGoal(view=9)


def path(start: Cell, direction: int, steps: int, size: int = 5) -> list[Cell]:
    """Walk to and fro, one step at a time; return the cells after each step."""
    (x, y), (dx, dy), cells = start, STEPS[(UP, RIGHT, DOWN, LEFT)[direction]], []
    for _ in range(steps):
        if not (0 <= x + dx < size and 0 <= y + dy < size):
            dx, dy = -dx, -dy
        x, y = x + dx, y + dy
        cells.append((x, y))
    return cells


def seen_goal(observation: torch.Tensor) -> Cell:
    plane = observation[81:162].view(9, 9)[4:, 4:]
    assert plane.sum() == 1
    number = int(plane.flatten().argmax())
    return number % 5, number // 5


def test_there_are_80_tasks_and_no_two_are_the_same() -> None:
    tasks = FAMILY.all_tasks()
    paths = {
        tuple(path((x, y), direction, FAMILY.period))
        for (x, y), direction in zip(tasks["start"].tolist(), tasks["direction"].tolist(), strict=True)
    }
    assert len(paths) == len(tasks) == 80


def test_goals_walk_to_and_fro() -> None:
    tasks = OVERLOOK.all_tasks()
    env = worlds(OVERLOOK, tasks)
    observations, _ = env.reset()
    starts = [(x, y) for x, y in tasks["start"].tolist()]
    assert [seen_goal(observation) for observation in observations] == starts
    paths = [path(*task, steps=20) for task in zip(starts, tasks["direction"].tolist(), strict=True)]
    for step in range(20):
        observations, *_ = env.step(torch.zeros(80, dtype=torch.int64))
        assert [seen_goal(observation) for observation in observations] == [cells[step] for cells in paths]


@pytest.mark.parametrize(("start", "direction"), [((0, 3), 2), ((0, 0), 0), ((2, 0), 3), ((4, 0), 3)])
def test_it_pays_to_be_where_the_goal_is(start: Cell, direction: int) -> None:
    env = worlds(FAMILY, FAMILY.make_task({"start": start, "direction": direction}))
    for cell in path(start, direction, 20):
        _, reward, terminated, *_ = env.step(torch.tensor([STAY]))
        assert reward.item() == pytest.approx(1.0 if cell == (0, 0) else -0.1)
        assert not terminated


def test_a_goal_can_be_followed() -> None:
    env = worlds(FAMILY, FAMILY.make_task({"start": (0, 0), "direction": 0}))
    rewards = [env.step(torch.tensor([move]))[1].item() for move in [UP] * 4 + [DOWN] * 4 + [UP]]
    assert rewards == [1.0] * 9


def test_passing_each_other_is_no_meeting() -> None:
    # The agent steps from (0, 0) to (0, 1) while the goal steps from (0, 1) to (0, 0).
    env = worlds(FAMILY, FAMILY.make_task({"start": (0, 1), "direction": 2}))
    assert env.step(torch.tensor([UP]))[1].item() == pytest.approx(-0.1)


def test_the_flags_are_a_clock() -> None:
    env = worlds(FAMILY, FAMILY.make_task({"start": (0, 1), "direction": 2}))
    observations = [env.reset()[0]] + [env.step(torch.tensor([STAY]))[0] for _ in range(17)]
    assert [int(observation[0, 25:].argmax()) for observation in observations] == [step % 8 for step in range(18)]
    assert all(observation[0, 25:].sum() == 1 for observation in observations)


@pytest.mark.parametrize(("start", "direction"), [((0, 0), 3), ((0, 0), 2), ((4, 2), 1), ((2, 4), 0)])
def test_a_first_step_into_a_wall_is_no_task(start: Cell, direction: int) -> None:
    with pytest.raises(InputError, match="moving-goal: there is no task"):
        FAMILY.make_task({"start": start, "direction": direction})
