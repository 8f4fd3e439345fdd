from typing import Any

import numpy as np
import pytest
import torch

from metarl.envs.grid.engine import GridFamily
from metarl.envs.grid.gridnavi import GridNavi
from metarl.envs.grid.keys import KeyAndDoor
from metarl.envs.grid.mazes import RandomMazes
from metarl.envs.grid.moving_goal import MovingGoal
from metarl.envs.grid.pictures import COLOURS, SHAPES, WALL, WOOD, cell_side
from metarl.envs.grid.rooms import FourRooms
from metarl.envs.grid.rules import RuleWorlds
from metarl.families.pictures import AGENT, GOAL, WHITE
from metarl.worlds.numpy_env import TaskEnv
from tests.envs.grid.test_engine import RIGHT, UP, USE

RULE: dict[str, Any] = {
    "relation": 0,
    "objects": [(0, 0), (1, 3), (2, 5), (4, 7)],
    "cells": [(1, 0), (3, 3), (5, 5), (6, 1)],
}
KEYS: dict[str, Any] = {"key": (0, 2), "door": 1, "goal": (6, 4)}


def picture(family: GridFamily, task: dict[str, Any], *actions: int) -> np.ndarray:
    env = TaskEnv(family, family.make_task(task), render_mode="rgb_array")
    env.reset(seed=0)
    for action in actions:
        env.step(action)
    frame = env.render()
    assert frame is not None
    return frame


def pixel(frame: np.ndarray, size: int, x: int, y: int) -> tuple[int, ...]:
    """Return the colour in the middle of a cell."""
    side = cell_side(size)
    return tuple(frame[(size - 1 - y) * side + side // 2, x * side + side // 2].tolist())


@pytest.mark.parametrize(
    ("family", "task"),
    [
        (GridNavi(), {"goal": (4, 2)}),
        (FourRooms(), {"goal": (4, 2)}),
        (FourRooms(view=5), {"goal": (4, 2)}),
        (MovingGoal(), {"start": (4, 0), "direction": 0}),
        (RandomMazes(size=5), {"goal": (4, 2), "walls": np.zeros((5, 5))}),
    ],
)
def test_agent_and_goal_are_in_their_cells(family: GridFamily, task: dict[str, Any]) -> None:
    frame = picture(family, task, UP, RIGHT)
    side = family.size * cell_side(family.size)
    assert frame.shape == (side, side, 3)
    assert frame.dtype == np.uint8
    assert pixel(frame, family.size, 1, 1) == AGENT
    assert pixel(frame, family.size, 4, 2) == GOAL
    assert pixel(frame, family.size, 0, 0) == WHITE


def test_walls_are_drawn() -> None:
    frame = picture(FourRooms(), {"goal": (4, 2)})
    layout = FourRooms().layout()
    for x, y in torch.cartesian_prod(torch.arange(11), torch.arange(11)).tolist():
        assert (pixel(frame, 11, x, y) == WALL) == bool(layout[y, x])


def test_key_and_door_are_drawn_and_a_taken_key_is_held() -> None:
    before, after = (picture(KeyAndDoor(), KEYS, *moves) for moves in ([], [UP, UP]))
    assert pixel(before, 7, 3, 1) == WOOD
    assert (pixel(before, 7, 0, 0), pixel(before, 7, 6, 4)) == (AGENT, GOAL)
    side = cell_side(7)
    cell = np.s_[4 * side : 5 * side, :side]  # (0, 2)
    gold = [(frame[cell] == (214, 160, 0)).all(-1).sum() for frame in (before, after)]
    assert gold[0] > gold[1] > 0
    assert (after[cell] == AGENT).all(-1).any()


def test_objects_are_drawn_in_their_colours() -> None:
    frame = picture(RuleWorlds(), RULE)
    for (_, hue), (x, y) in zip(RULE["objects"], RULE["cells"], strict=True):
        assert pixel(frame, 7, x, y) == list(COLOURS.values())[hue]


def test_what_is_carried_is_drawn_on_the_agent() -> None:
    frame = picture(RuleWorlds(), RULE, RIGHT, USE, RIGHT)
    assert pixel(frame, 7, 1, 0) == WHITE
    assert pixel(frame, 7, 2, 0) == COLOURS["red"]
    side = cell_side(7)
    assert (frame[6 * side : 7 * side, 2 * side : 3 * side] == AGENT).all(-1).any()


def test_the_rule_is_written_under_the_map() -> None:
    frame, other = (picture(RuleWorlds(), {**RULE, "relation": relation}) for relation in (0, 1))
    assert frame.shape[0] > frame.shape[1]
    assert np.array_equal(frame[:250], other[:250])
    assert not np.array_equal(frame, other)


def test_no_two_shapes_or_colours_are_the_same() -> None:
    assert len({tuple(map(tuple, shape)) for shape in SHAPES.values()}) == len(SHAPES) == 7
    assert len(set(COLOURS.values())) == len(COLOURS) == 8
    # Nothing is mistaken for the agent.
    assert AGENT not in COLOURS.values()
