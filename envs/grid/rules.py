"""Worlds of objects with a hidden rule: what is to be brought where, and what it is made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from tensordict import TensorDict
from torch import Tensor

from metarl.envs.grid.engine import MOVES, WALL, SightedGrid, at, neighbours
from metarl.envs.grid.pictures import COLOURS, SHAPES, Stamp, captioned, object_stamp
from metarl.errors import InputError
from metarl.family import Transition, register_family
from metarl.splits import hashed_part
from metarl.tensor_family import State

KINDS, HUES = tuple(SHAPES), tuple(COLOURS)
RELATIONS = ("beside", "above", "right of", "below", "left of")
# The action after the moves.
USE = len(MOVES)
# A code has the kind, counted from 1, in three bits after that of the wall, and the colour in the next three.
KIND, HUE = 1 << 1, 1 << 4
OBJECT_BITS = tuple(1 << bit for bit in range(1, 7))


@register_family
@dataclass(frozen=True)
class RuleWorlds(SightedGrid):
    """A room of objects of several kinds and colours, one of which is to be brought to another; which, is hidden.

    The agent starts at (0, 0) and stays, or goes up, right, down or left; objects are no obstacle. The sixth action
    picks up the object in the agent's cell, or puts down the one that it carries if the cell is empty.

    The rule names the object to bring (the mover), the one to bring it to (the target), and on which side: beside,
    which is any of the four, or above, right of, below, left of. With fusions the mover does not exist at first: its
    first form must be put beside a partner, which vanishes as the form changes into the next one, until the last
    form can be brought to the target. Rules are looked at when something is put down. The step that fulfils the rule
    gives +1 and terminates the episode; each fusion gives +1 too, and every other step 0.

    Everything but the rule is seen: the map shows the agent's cell and the objects, the window objects and walls, and
    both what is carried. Six planes tell an object: three bits of its kind, three of its colour. (A plane for each kind
    and colour would be more than twice as much to write, and writing observations is most of a step.)

    No goal of training is met in validation or test: rule, mover and its forms, partners and target decide to which
    part of the split a task belongs, whatever the layout and the distractors. There are 15,400 of them without
    fusions, 44 million with one; tasks differ in layout and distractors too.

    In the spirit of XLand-MiniGrid (Nikulin et al. 2024, section 2).

    Attributes:
        size: cells along each side.
        horizon: steps of an episode.
        view: cells along each side of the window that is observed; None for the map.
        fusions: how often the mover changes before it can be brought to the target.
        distractors: objects besides those that the rule names.
    """

    size: int = 7
    horizon: int = 60
    fusions: int = 0
    distractors: int = 2

    name: ClassVar[str] = "rule-worlds"
    env_id: ClassVar[str] = "metarl/RuleWorlds-v0"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "7x7": {},
        "7x7-egocentric": {"view": 5},
        "5x5": {"size": 5, "distractors": 1, "horizon": 40},
        "5x5-egocentric": {"size": 5, "distractors": 1, "horizon": 40, "view": 3},
        "fusion": {"fusions": 1, "distractors": 1, "horizon": 100},
        "fusion-egocentric": {"fusions": 1, "distractors": 1, "horizon": 100, "view": 5},
    }
    on_map: ClassVar[tuple[int, ...]] = OBJECT_BITS
    in_window: ClassVar[tuple[int, ...]] = (WALL, *OBJECT_BITS)
    carries: ClassVar[bool] = True
    stamps: ClassVar[Mapping[int, Stamp]] = {
        KIND * (1 + kind) + HUE * hue: object_stamp(KINDS[kind], HUES[hue])
        for kind in range(len(KINDS))
        for hue in range(len(HUES))
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.fusions, self.distractors) < 0:
            raise InputError(f"{self.name}: fusions and distractors cannot be fewer than 0")
        if self.looks > len(self.stamps) or self.bodies > self.size**2 - 1:
            raise InputError(f"{self.name} has no room for {self.fusions} fusions and {self.distractors} distractors")

    @property
    def bodies(self) -> int:
        """Objects in the world at first: mover, partners, target, distractors."""
        return 2 + self.fusions + self.distractors

    @property
    def looks(self) -> int:
        """Different objects of a task: its bodies, and the mover's later forms."""
        return self.bodies + self.fusions

    @property
    def action_space(self) -> spaces.Discrete:
        """Stay, up, right, down, left, pick up or put down."""
        return spaces.Discrete(len(MOVES) + 1)

    @property
    def task_space(self) -> spaces.Dict:
        """What the rule asks for, what the objects are and where they lie.

        ``relation``: 0 beside, 1 above, 2 right of, 3 below, 4 left of. ``objects`` ``[looks, 2]``: (kind, colour) of
        the mover's forms in order, of its partners in order, of the target, of the distractors. ``cells``
        ``[bodies, 2]``: the first (x, y) of mover, partners, target, distractors.
        """
        highest = np.tile([len(KINDS) - 1, len(HUES) - 1], (self.looks, 1))
        return spaces.Dict(
            {
                "relation": spaces.Discrete(len(RELATIONS)),
                "objects": spaces.Box(np.zeros_like(highest), highest, dtype=np.int64),
                "cells": spaces.Box(0, self.size - 1, (self.bodies, 2), np.int64),
            }
        )

    def sample_tasks(self, count: int, generator: torch.Generator) -> TensorDict:
        """Draw relation, objects and cells uniformly; objects differ, and lie in different cells, none at the start."""
        looks = _different(len(self.stamps), self.looks, count, generator)
        cells = 1 + _different(self.size**2 - 1, self.bodies, count, generator)
        return TensorDict(
            {
                "relation": torch.randint(len(RELATIONS), (count,), generator=generator),
                "objects": torch.stack([looks // len(HUES), looks % len(HUES)], -1),
                "cells": self.cells(cells),
            },
            [count],
        )

    def part_of(self, tasks: TensorDict, seed: int) -> Tensor:
        """Return each task's part by what the rule names."""
        return hashed_part(seed, tasks["relation"], tasks["objects"][:, : self.looks - self.distractors])

    def make_task(self, parameters: Mapping[str, Any]) -> TensorDict:
        """Turn named values into a task ``[1]``.

        Raises:
            InputError: also when two objects are alike or share a cell, or one lies at the start.
        """
        task = super().make_task(parameters)
        for name in ("objects", "cells"):
            if len(task[name][0].unique(dim=0)) < len(task[name][0]):
                raise InputError(f"{self.name}: the {name} of a task must differ from each other")
        if not task["cells"][0].any(-1).all():
            raise InputError(f"{self.name}: no object can lie at (0, 0), where the agent starts")
        return task

    def initial_state(self, tasks: TensorDict, generator: torch.Generator) -> State:
        """Start in the corner with empty hands."""
        kinds, hues = tasks["objects"].unbind(-1)
        return {
            "cell": self.start(tasks),
            "bodies": self.numbers(tasks["cells"]),
            "looks": (KIND * (1 + kinds) + HUE * hues).to(torch.uint8),
            "fused": torch.zeros_like(tasks["relation"]),
        }

    def transition(
        self, state: State, actions: Tensor, tasks: TensorDict, generator: torch.Generator
    ) -> tuple[State, Transition]:
        """Move; pick up or put down; fuse, or fulfil the rule."""
        uses = actions == USE
        cell = self.ahead(state["cell"], actions.masked_fill(uses, 0))
        bodies, puts = self._handled(state["bodies"], cell, uses)
        # Partners and target stand in the order in which the mover is to meet them.
        meets = state["fused"] + 1
        other = at(bodies, meets)
        side = sides(self.size, cell.device).index_select(0, other * (self.border + 1) + bodies[:, 0])
        last, relation = meets > self.fusions, tasks["relation"]
        met = puts & (side > 0) & (~last | (relation == 0) | (side == relation))
        fuses = met & ~last
        bodies = bodies.scatter(1, meets[:, None], other.masked_fill(fuses, self.gone)[:, None])
        following = {**state, "cell": cell, "bodies": bodies, "fused": state["fused"] + fuses}
        return following, Transition(met.float(), met & last, {})

    def things(self, state: State) -> tuple[Tensor, Tensor]:
        """Return the objects, the mover in its present form."""
        form = state["looks"].gather(1, state["fused"][:, None])
        return state["bodies"], torch.cat([form, state["looks"][:, self.fusions + 1 :]], 1)

    def picture(self, state: State, task: TensorDict) -> np.ndarray:
        """Draw one world over its rule in words."""
        return captioned(super().picture(state, task), self._said(task))

    def _handled(self, bodies: Tensor, cell: Tensor, uses: Tensor) -> tuple[Tensor, Tensor]:
        """Pick up what is in the cell, or put down what is carried; return the bodies' cells, and who put down."""
        carries, occupied = (bodies == self.hand).any(1), (bodies == cell[:, None]).any(1)
        picks, puts = uses & ~carries, uses & carries & ~occupied
        # Who does neither takes from the border, where nothing is.
        source = torch.where(picks, cell, torch.where(puts, self.hand, self.border))
        into = torch.where(picks, self.hand, cell)
        return torch.where(bodies == source[:, None], into[:, None], bodies), puts

    def _said(self, task: TensorDict) -> list[str]:
        names = [f"{HUES[hue]} {KINDS[kind]}" for kind, hue in task["objects"].tolist()]
        forms, others = names[: self.fusions + 1], names[self.fusions + 1 :]
        steps = [
            line
            for form, partner, new in zip(forms, others, forms[1:], strict=False)
            for line in (f"{form} + {partner}", f"= {new}")
        ]
        return [*steps, f"{forms[-1]} {RELATIONS[int(task['relation'])]} {others[self.fusions]}"]


def _different(total: int, chosen: int, count: int, generator: torch.Generator) -> Tensor:
    """Draw ``chosen`` different numbers below ``total`` for each of ``count`` tasks, uniformly and in random order."""
    return torch.rand(count, total, generator=generator).argsort(1)[:, :chosen]


@cache
def sides(size: int, device: torch.device) -> Tensor:
    """Return which move leads from one number's cell to another's, 0 if none: uint8 ``[numbers x numbers]``, flat."""
    cells = torch.arange(size**2)
    # What a cell has about itself means nothing: no two objects lie in one.
    table = torch.zeros(size**2 + 3, size**2 + 3, dtype=torch.uint8)
    for move, reached in enumerate(neighbours(size, torch.device("cpu")).view(-1, len(MOVES)).T):
        table[cells, reached] = move
    return table.flatten().to(device)
