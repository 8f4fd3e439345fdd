"""Four rooms and a hidden goal."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from tensordict import TensorDict
from torch import Tensor

from metarl.envs.grid.engine import SightedGrid, drawn_from
from metarl.envs.grid.paths import GoalGrid
from metarl.envs.grid.words import GOAL_RULE, MOVE_NAMES, map_rules, sight, sight_rules
from metarl.families.family import register_family
from metarl.families.words import Words


@register_family
@dataclass(frozen=True)
class FourRooms(SightedGrid, GoalGrid):
    """Four rooms with a door in each wall between two rooms, and one rewarding cell.

    The agent starts at (0, 0) and stays, or moves up, right, down or left. Every step that ends on the goal gives +1,
    every other step -0.1, and episodes never terminate. The goal is any open cell except the start.

    The goal is hidden: the map shows only the agent's cell. The window shows walls, and the goal when it is inside it.

    The four rooms are those of Sutton, Precup and Singh (1999, section 3), with every door in the middle of its wall.

    Attributes:
        size: cells along each side; at least 5.
        horizon: steps of an episode.
        view: cells along each side of the window that is observed; None for the map.
    """

    size: int = 11
    horizon: int = 40

    name: ClassVar[str] = "four-rooms"
    env_id: ClassVar[str] = "metarl/FourRooms-v0"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "11x11": {},
        "11x11-egocentric": {"view": 5},
        "7x7": {"size": 7, "horizon": 25},
        "7x7-egocentric": {"size": 7, "horizon": 25, "view": 3},
    }
    smallest: ClassVar[int] = 5

    def layout(self) -> Tensor:
        """Return the walls ``[size, size]``: a cross with a door in each arm."""
        walls, middle = super().layout(), self.size // 2
        walls[middle], walls[:, middle] = True, True
        for door in (middle // 2, self.size - 1 - middle // 2):
            walls[middle, door] = walls[door, middle] = False
        return walls

    def words(self) -> Words:
        """Return the rooms in words."""
        middle = self.size // 2
        rooms = (
            f"Walls along x = {middle} and y = {middle} divide it into four rooms. The middle of each wall between two "
            "rooms is open."
        )
        rules = f"{map_rules(self)} {rooms} {GOAL_RULE} {sight_rules(self)}"
        return Words(rules, MOVE_NAMES, lambda observation: sight(self, observation))

    def all_tasks(self) -> TensorDict:
        """Return every open cell except the start as a goal; 103 of them on 11 x 11."""
        goals = (~self.layout()).nonzero().flip(-1)[1:]
        return TensorDict({"goal": goals}, [len(goals)])

    def sample_tasks(self, count: int, generator: torch.Generator) -> TensorDict:
        """Draw goals uniformly from the allowed cells."""
        return drawn_from(self.all_tasks(), count, generator)
