"""A hidden goal that moves."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from tensordict import TensorDict
from torch import Tensor

from metarl.envs.grid.engine import MOVES, SightedGrid, drawn_from, goal_transition, identity
from metarl.envs.grid.paths import GoalGrid
from metarl.families.family import Transition, register_family
from metarl.families.tensor_family import State


@register_family
@dataclass(frozen=True)
class MovingGoal(SightedGrid, GoalGrid):
    """A square room in which a rewarding cell moves back and forth along a row or column.

    The agent starts at (0, 0) and stays, or moves up, right, down or left, while the goal moves by one cell and turns
    around at walls. Every step after which agent and goal are in the same cell gives +1, every other step -0.1, and
    episodes never terminate. A task is the goal's first cell and the direction of its first step, which must not be
    into a wall, because that would duplicate another task.

    The goal and its path are hidden: the map shows only the agent's cell; the window also shows the goal when it is
    inside it. The flags show the time, modulo the goal's period of 2 (size - 1) steps.

    Attributes:
        size: cells along each side.
        horizon: steps of an episode.
        view: cells along each side of the window that is observed; None for the map.
    """

    size: int = 5
    horizon: int = 20

    name: ClassVar[str] = "moving-goal"
    env_id: ClassVar[str] = "metarl/MovingGoal-v0"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "5x5": {},
        "5x5-egocentric": {"view": 3},
        "9x9": {"size": 9, "horizon": 40},
        "9x9-egocentric": {"size": 9, "horizon": 40, "view": 5},
    }

    @property
    def period(self) -> int:
        """Steps after which the goal's path repeats."""
        return 2 * (self.size - 1)

    @property
    def flag_count(self) -> int:
        """Length of the one-hot clock."""
        return self.period

    @property
    def task_space(self) -> spaces.Dict:
        """``start`` ``[2]``: the goal's first cell (x, y); ``direction``: 0 up, 1 right, 2 down, 3 left."""
        start = spaces.Box(0, self.size - 1, (2,), np.int64)
        return spaces.Dict({"start": start, "direction": spaces.Discrete(4)})

    def all_tasks(self) -> TensorDict:
        """Return all first cells with all directions that are not into a wall, ``[4 size (size - 1)]``."""
        numbers = torch.arange(self.size)
        rows = torch.cartesian_prod(numbers, numbers, torch.arange(4))
        second = rows[:, :2] + torch.tensor(MOVES)[rows[:, 2] + 1]
        rows = rows[((second >= 0) & (second < self.size)).all(-1)]
        return TensorDict({"start": rows[:, :2], "direction": rows[:, 2]}, [len(rows)])

    def sample_tasks(self, count: int, generator: torch.Generator) -> TensorDict:
        """Draw uniformly from all tasks."""
        return drawn_from(self.all_tasks(), count, generator)

    def initial_state(self, tasks: TensorDict, generator: torch.Generator) -> State:
        """Start in the corner, and the goal at its first cell."""
        goal, direction = self.numbers(tasks["start"]), tasks["direction"]
        return {"cell": self.start(tasks), "goal": goal, "direction": direction, "clock": torch.zeros_like(goal)}

    def transition(
        self, state: State, actions: Tensor, tasks: TensorDict, generator: torch.Generator
    ) -> tuple[State, Transition]:
        """Move agent and goal."""
        cell = self.ahead(state["cell"], actions)
        goal, direction = self._walked(state["goal"], state["direction"])
        clock = (state["clock"] + 1).remainder(self.period)
        return {"cell": cell, "goal": goal, "direction": direction, "clock": clock}, goal_transition(cell == goal)

    def goal_path(self, state: State) -> list[Tensor]:
        """Return the goals' cells ``[B]`` after each step of an episode that starts in ``state``."""
        goal, direction, path = state["goal"], state["direction"], []
        for _ in range(self.horizon):
            goal, direction = self._walked(goal, direction)
            path.append(goal)
        return path

    def flags(self, state: State) -> list[Tensor]:
        """Return the clock, one-hot ``[B, period]``."""
        return [identity(self.period, state["clock"].device).index_select(0, state["clock"])]

    def _walked(self, goal: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        """Return goals and directions ``[B]`` after a step of the goals, which turn around at walls."""
        goal = self.ahead(goal, direction + 1)
        # Up and down differ in bit 1, as right and left do.
        at_wall = self.ahead(goal, direction + 1) == goal
        return goal, torch.where(at_wall, direction ^ 2, direction)
