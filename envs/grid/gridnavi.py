"""The gridworld of VariBAD (GridNavi: Zintgraf et al. 2020, section 5.1)."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, get_args

import numpy as np
import torch
from gymnasium import spaces
from tensordict import TensorDict
from torch import Tensor

from metarl.devices.transfer import send
from metarl.envs.grid.engine import GOAL_REWARD, MOVES, STEP_REWARD, drawn_from
from metarl.envs.grid.paths import GoalGrid
from metarl.envs.grid.words import GOAL_RULE, MOVE_NAMES, map_rules, place
from metarl.families.family import Part, register_family
from metarl.families.positions import Map, Staying, as_position
from metarl.families.references import Reference
from metarl.families.tensor_family import State
from metarl.families.words import Words

_REFERENCE = Reference(15, -0.77, 11.07, "best goal-blind policy; shortest way to a known goal")


@register_family
@dataclass(frozen=True)
class GridNavi(GoalGrid):
    """A square grid with one hidden rewarding cell.

    The agent starts at (0, 0) and stays, or moves up, right, down or left. Every step that ends on the goal gives +1,
    every other step -0.1, and episodes never terminate. Goals are not near the start: they are outside {0, 1}².

    Attributes:
        size: cells along each side.
        horizon: steps of an episode.
        shared_goals: every goal is in every part of the split, as in VariBAD's experiments, whose results are thus on
            training tasks.
    """

    size: int = 5
    horizon: int = 15
    shared_goals: bool = False

    name: ClassVar[str] = "gridnavi"
    env_id: ClassVar[str] = "metarl/GridNavi-v0"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "varibad": {"size": 5, "horizon": 15},
        "varibad-shared": {"size": 5, "horizon": 15, "shared_goals": True},
    }
    references: ClassVar[Mapping[str, Reference]] = {"varibad": _REFERENCE, "varibad-shared": _REFERENCE}

    @property
    def observation_space(self) -> spaces.Box:
        """The cell ``[2]`` as (x, y), counted from 0."""
        return spaces.Box(0.0, self.size - 1.0, (2,), np.float32)

    def all_tasks(self) -> TensorDict:
        """Return every goal cell, ``[size² - 4]``."""
        cells = torch.cartesian_prod(torch.arange(self.size), torch.arange(self.size))
        goals = cells[(cells > 1).any(-1)]
        return TensorDict({"goal": goals}, [len(goals)])

    def own_split(self) -> Mapping[Part, TensorDict] | None:
        """Return every goal in every part, if they are shared."""
        return dict.fromkeys(get_args(Part), self.all_tasks()) if self.shared_goals else None

    def sample_tasks(self, count: int, generator: torch.Generator) -> TensorDict:
        """Draw goals uniformly from the allowed cells."""
        return drawn_from(self.all_tasks(), count, generator)

    def outside_tasks(self, count: int, generator: torch.Generator) -> TensorDict:
        """Return the goals next to the start, which are not in the distribution."""
        goals = torch.tensor([[0, 1], [1, 0], [1, 1]])
        return TensorDict({"goal": goals}, [len(goals)])

    def observation(self, state: State) -> Tensor:
        """Return cells ``[B, 2]``."""
        return _coordinates(self, state["cell"].device).index_select(0, state["cell"])

    def positions(self, observations: Tensor) -> Tensor | None:
        """Return the observations, which are cells ``[..., 2]``."""
        return observations

    def map_of(self, task: TensorDict) -> Map:
        """Return the grid at the start of an episode, with the goal."""
        return dataclasses.replace(super().map_of(task), goal=as_position(task["goal"]))

    def words(self) -> Words | None:
        """Return the grid in words."""
        return Words(f"{map_rules(self)} {GOAL_RULE} You see your own cell only.", MOVE_NAMES, place)

    def staying(self) -> Staying | None:
        """Return the transitions of staying in each cell."""
        cells = self.cells(torch.arange(self.size**2)).float().view(self.size, self.size, 2)
        stay = torch.full((self.size, self.size), MOVES.index((0, 0)))
        return Staying(cells, stay, (STEP_REWARD, GOAL_REWARD))


@cache
def _coordinates(family: GridNavi, device: torch.device) -> Tensor:
    """Return (x, y) of each cell by its number, float32 ``[cells, 2]``."""
    return send(family.cells(torch.arange(family.size**2)).float(), device)
