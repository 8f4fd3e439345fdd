"""Mazes without loops, drawn at random, each with a goal."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from tensordict import TensorDict
from torch import Tensor

from metarl.envs.grid.engine import MOVES, WALL, SightedGrid, numbered
from metarl.envs.grid.paths import GoalGrid
from metarl.errors import InputError
from metarl.families.family import register_family
from metarl.families.splits import hashed_part
from metarl.families.tensor_family import State


@register_family
@dataclass(frozen=True)
class RandomMazes(SightedGrid, GoalGrid):
    """A different maze in every task, with one rewarding cell.

    The agent starts at (0, 0) and stays, or moves up, right, down or left. Every step that ends on the goal gives +1,
    every other step -0.1, and episodes never terminate. Cells with two even coordinates are open, and the passages
    between them form a random spanning tree, so there is exactly one path from the start to each goal; the goal is one
    of these cells other than the start. A hand-made task may have any walls that leave a path to the goal.

    The goal is hidden: the map shows the agent's cell and the walls; the window shows walls, and the goal when it is
    inside it, so the layout has to be learned as well. A maze belongs to one part of the split, whatever its goal.

    Attributes:
        size: cells along each side; odd, at least 5.
        horizon: steps of an episode.
        view: cells along each side of the window that is observed; None for the map.
    """

    size: int = 9
    horizon: int = 60

    name: ClassVar[str] = "random-mazes"
    env_id: ClassVar[str] = "metarl/RandomMazes-v0"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "9x9": {},
        "9x9-egocentric": {"view": 5},
        "13x13": {"size": 13, "horizon": 120},
        "13x13-egocentric": {"size": 13, "horizon": 120, "view": 5},
    }
    smallest: ClassVar[int] = 5
    on_map: ClassVar[tuple[int, ...]] = (WALL,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size % 2 == 0:
            raise InputError(f"{self.name} needs an odd number of cells per side, not {self.size}")

    @property
    def task_space(self) -> spaces.Dict:
        """``walls`` ``[size, size]`` indexed (y, x), 1 for a wall; ``goal`` ``[2]``: its cell (x, y)."""
        goal = spaces.Box(0, self.size - 1, (2,), np.int64)
        return spaces.Dict({"walls": spaces.MultiBinary((self.size, self.size)), "goal": goal})

    def sample_tasks(self, count: int, generator: torch.Generator) -> TensorDict:
        """Draw mazes, and goals uniformly from the rooms other than the start."""
        side = (self.size + 1) // 2
        doors = _doors(side)
        tree = spanning_tree(torch.rand(count, len(doors), generator=generator), doors)
        walls = torch.ones(count, self.size, self.size, dtype=torch.int8)
        walls[:, ::2, ::2] = 0
        # The cell of a door is halfway between the two rooms' cells, that is, at the sum of the rooms' coordinates.
        rows, columns = (doors // side).sum(-1), (doors % side).sum(-1)
        walls[:, rows, columns] = (~tree).to(torch.int8)
        room = torch.randint(1, side**2, (count,), generator=generator)
        goal = 2 * torch.stack([room % side, room // side], -1)
        return TensorDict({"walls": walls, "goal": goal}, [count])

    def part_of(self, tasks: TensorDict, seed: int) -> Tensor:
        """Return each task's part by its walls."""
        return hashed_part(seed, tasks["walls"])

    def make_task(self, parameters: Mapping[str, Any]) -> TensorDict:
        """Turn named values into a task ``[1]``.

        Raises:
            InputError: also if there is no path from the start to the goal, or the goal is the start.
        """
        task = super().make_task(parameters)
        x, y = task["goal"][0].tolist()
        if (x, y) not in reachable(task["walls"][0]) - {(0, 0)}:
            raise InputError(f"{self.name}: no path leads from (0, 0) to a goal at ({x}, {y})")
        return task

    def initial_state(self, tasks: TensorDict, generator: torch.Generator) -> State:
        """Start in the corner."""
        goal, walls = self.numbers(tasks["goal"]), numbered(tasks["walls"])
        return {"cell": self.start(tasks), "goal": goal, "walls": walls}

    def walls(self, state: State) -> Tensor:
        """Return each task's own walls, uint8 ``[B, numbers]``."""
        return state["walls"]


def spanning_tree(weights: Tensor, doors: Tensor) -> Tensor:
    """Return the doors of the minimum spanning tree of the rooms (Prim's algorithm, in all graphs at once).

    Args:
        weights: weights of the doors, ``[B, doors]``.
        doors: the two rooms connected by each door, ``[doors, 2]``; rooms are counted from 0.

    Returns:
        bool ``[B, doors]``.
    """
    # In NumPy: splits draw one maze at a time, and torch operations this small take several times as long.
    lengths, ends, graphs = weights.numpy(), doors.numpy(), np.arange(len(weights))
    rooms = int(ends.max()) + 1
    tree = np.zeros(lengths.shape, bool)
    joined = np.zeros((len(lengths), rooms), bool)
    joined[:, 0] = True
    for _ in range(rooms - 1):
        leads_on = joined[:, ends[:, 0]] ^ joined[:, ends[:, 1]]
        chosen = np.where(leads_on, lengths, np.inf).argmin(-1)
        tree[graphs, chosen] = True
        joined[graphs[:, None], ends[chosen]] = True
    return torch.from_numpy(tree)


def reachable(walls: Tensor) -> set[tuple[int, int]]:
    """Return the cells (x, y) reachable from (0, 0), inclusive, among ``walls`` ``[size, size]``."""
    free = {(x, y) for y, x in (walls == 0).nonzero().tolist()}
    found: set[tuple[int, int]] = set()
    edge = free & {(0, 0)}
    while edge:
        found |= edge
        edge = {(x + dx, y + dy) for x, y in edge for dx, dy in MOVES} & free - found
    return found


@cache
def _doors(side: int) -> Tensor:
    """Return the pairs of neighbours among ``side`` x ``side`` rooms, which are numbered row by row: ``[doors, 2]``."""
    rooms = torch.arange(side * side).view(side, side)
    across = torch.stack([rooms[:, :-1], rooms[:, 1:]], -1).view(-1, 2)
    up = torch.stack([rooms[:-1], rooms[1:]], -1).view(-1, 2)
    return torch.cat([across, up])
