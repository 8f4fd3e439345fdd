"""A key, a door that it opens, and a goal in the other room."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from tensordict import TensorDict
from torch import Tensor

from metarl.envs.grid.engine import DOOR, GOAL, KEY, WALL, SightedGrid, constant, lookup
from metarl.envs.grid.words import MOVE_NAMES, map_rules, sight, sight_rules
from metarl.errors import InputError
from metarl.families.family import Transition, register_family
from metarl.families.splits import hashed_part
from metarl.families.tensor_family import State
from metarl.families.words import Words


@register_family
@dataclass(frozen=True)
class KeyAndDoor(SightedGrid):
    """Two rooms separated by a wall with a locked door; a key in the left room, a goal in the right room.

    The agent starts at (0, 0), in the left room, and stays, or moves up, right, down or left. It picks up the key by
    stepping on it and opens the door by moving into it with the key. Picking up the key, opening the door and reaching
    the goal give +1 each, every other step 0, and the episode terminates at the goal.

    Key, door and goal are hidden: the map shows only the agent's cell. The window shows walls, and key, door and goal
    when they are inside it. Two flags show whether the agent has the key, and whether the door is open.

    It is Dark Key-to-Door of Laskin et al. (2022, Algorithm Distillation) with a wall that makes the key necessary.

    Attributes:
        size: cells along each side; at least 5. The wall is the middle column.
        horizon: steps of an episode.
        view: cells along each side of the window that is observed; None for the map.
    """

    size: int = 7
    horizon: int = 50

    name: ClassVar[str] = "key-and-door"
    env_id: ClassVar[str] = "metarl/KeyAndDoor-v0"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "7x7": {},
        "7x7-egocentric": {"view": 3},
        "11x11": {"size": 11, "horizon": 100},
        "11x11-egocentric": {"size": 11, "horizon": 100, "view": 5},
    }
    smallest: ClassVar[int] = 5
    in_window: ClassVar[tuple[int, ...]] = (WALL, GOAL, KEY, DOOR)

    @property
    def flag_count(self) -> int:
        """Two flags: the agent has the key; the door is open."""
        return 2

    @property
    def task_space(self) -> spaces.Dict:
        """``key`` ``[2]`` in the left room, ``goal`` ``[2]`` in the right one, each (x, y); ``door``: its y."""
        last, middle = self.size - 1, self.size // 2
        key = spaces.Box(np.array([0, 0]), np.array([middle - 1, last]), dtype=np.int64)
        goal = spaces.Box(np.array([middle + 1, 0]), np.array([last, last]), dtype=np.int64)
        return spaces.Dict({"key": key, "door": spaces.Discrete(self.size), "goal": goal})

    def layout(self) -> Tensor:
        """Return the walls ``[size, size]``: the middle column."""
        walls = super().layout()
        walls[:, self.size // 2] = True
        return walls

    def words(self) -> Words:
        """Return the rooms in words."""
        rules = (
            f"{map_rules(self)} A wall along x = {self.size // 2} has a locked door somewhere. Left of it lies a key, "
            "right of it the goal. You pick up the key by stepping on it, and open the door by moving into it with the "
            "key. The key, the door and the goal give 1 each, every other step 0. They are at the same places "
            f"in every episode, which ends at the goal. {sight_rules(self)}"
        )
        return Words(rules, MOVE_NAMES, self._told)

    def _told(self, observation: Tensor) -> str:
        has_key, is_open = observation[-2:].bool().tolist()
        parts = [sight(self, observation), "You have the key." * has_key, "The door is open." * is_open]
        return " ".join(part for part in parts if part)

    def sample_tasks(self, count: int, generator: torch.Generator) -> TensorDict:
        """Draw key, door and goal uniformly and independently."""
        middle = self.size // 2

        def draw(low: int, high: int) -> Tensor:
            return torch.randint(low, high, (count,), generator=generator)

        # Numbered column by column; 0 is the start.
        numbers = {"key": draw(1, middle * self.size), "goal": draw((middle + 1) * self.size, self.size**2)}
        cells = {name: torch.stack([cell // self.size, cell % self.size], -1) for name, cell in numbers.items()}
        return TensorDict({**cells, "door": draw(0, self.size)}, [count])

    def part_of(self, tasks: TensorDict, seed: int) -> Tensor:
        """Return each task's part."""
        return hashed_part(seed, tasks["key"], tasks["door"], tasks["goal"])

    def make_task(self, parameters: Mapping[str, Any]) -> TensorDict:
        """Turn named values into a task ``[1]``.

        Raises:
            InputError: also if the key is at the start.
        """
        task = super().make_task(parameters)
        if not task["key"].any():
            raise InputError(f"{self.name}: the key cannot lie at (0, 0), where the agent starts")
        return task

    def initial_state(self, tasks: TensorDict, generator: torch.Generator) -> State:
        """Start in the corner without the key, the door closed."""
        cell = self.start(tasks)
        return {
            "cell": cell,
            "key": self.numbers(tasks["key"]),
            "door": tasks["door"] * self.size + self.size // 2,
            "goal": self.numbers(tasks["goal"]),
            "open": torch.zeros_like(cell, dtype=torch.bool),
        }

    def transition(
        self, state: State, actions: Tensor, tasks: TensorDict, generator: torch.Generator
    ) -> tuple[State, Transition]:
        """Move; take the key, open the door, reach the goal."""
        ahead = self.ahead(state["cell"], actions)
        enters = (ahead == state["door"]) & (state["key"] == self.hand)
        cell = torch.where(lookup(self.walls(state), ahead).bool() & ~enters, state["cell"], ahead)
        takes, opens, arrives = cell == state["key"], enters & ~state["open"], cell == state["goal"]
        rewards = (takes | opens | arrives).float()
        key = state["key"].masked_fill(takes, self.hand)
        return {**state, "cell": cell, "key": key, "open": state["open"] | opens}, Transition(rewards, arrives, {})

    def things(self, state: State) -> tuple[Tensor, Tensor]:
        """Return goal, key and door; the key is in the hand after it is picked up."""
        cells = torch.stack([state["goal"], state["key"], state["door"]], 1)
        return cells, constant((GOAL, KEY, DOOR), torch.uint8, cells.device).expand_as(cells)

    def flags(self, state: State) -> list[Tensor]:
        """Return whether the agent has the key and the door is open, ``[B, 1]`` each."""
        return [flag.view(torch.uint8)[:, None] for flag in (state["key"] == self.hand, state["open"])]
