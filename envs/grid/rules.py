"""Worlds of objects with a hidden rule: which object to bring where, and how to make it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from tensordict import TensorDict
from torch import Tensor

from metarl.devices.transfer import send
from metarl.envs.grid.engine import MOVES, WALL, SightedGrid, lookup, neighbours
from metarl.envs.grid.pictures import COLOURS, SHAPES, Stamp, captioned, object_stamp
from metarl.envs.grid.words import MOVE_NAMES, map_rules, sight, sight_rules
from metarl.errors import InputError
from metarl.families.family import Transition, register_family
from metarl.families.splits import hashed_part
from metarl.families.tensor_family import State
from metarl.families.words import Words

KINDS, HUES = tuple(SHAPES), tuple(COLOURS)
RELATIONS = ("beside", "above", "right of", "below", "left of")
# The relation of the second object to the first, for each of the first to the second.
OPPOSITES = (0, 3, 4, 1, 2)
# The action after the moves.
USE = len(MOVES)
# A code has the kind, counted from 1, in the three bits after the wall bit, and the colour in the next three.
KIND, HUE = 1 << 1, 1 << 4
OBJECT_BITS = tuple(1 << bit for bit in range(1, 7))


@register_family
@dataclass(frozen=True)
class RuleWorlds(SightedGrid):
    """A room with objects of several kinds and colours, one of which must be brought to another by a hidden rule.

    The agent starts at (0, 0) and stays, or moves up, right, down or left; objects do not block it. The sixth action
    picks up the object in the agent's cell, or puts down the one that it carries if the cell is empty.

    The rule names the object to bring (the mover), the object to bring it to (the target), and on which side: beside,
    which is any of the four, or above, right of, below, left of. With fusions the mover does not exist at first: its
    first form must be put beside a partner, which vanishes while the mover changes into its next form, until the last
    form can be brought to the target. Rules are checked when an object is put down. The step that fulfils the rule
    gives +1 and terminates the episode; each fusion also gives +1, and every other step 0.

    Everything except the rule is observed: the map shows the agent's cell and the objects, the window objects and
    walls, and both the carried object. Six planes identify an object: three bits for its kind, three for its colour. (A
    plane for each kind and colour would be more than twice as much to write, and writing observations is most of the
    cost of a step.)

    No training rule occurs in validation or test: relation, mover and its forms, partners and target decide to which
    part of the split a task belongs, whatever the layout and the distractors. There are 7,700 rules without fusions
    and 44 million with one; tasks also differ in layout and distractors.

    In the spirit of XLand-MiniGrid (Nikulin et al. 2024, section 2).

    Attributes:
        size: cells along each side.
        horizon: steps of an episode.
        view: cells along each side of the window that is observed; None for the map.
        fusions: number of times the mover changes before it can be brought to the target.
        distractors: number of objects besides those in the rule.
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
            raise InputError(f"{self.name}: fusions and distractors must not be negative")
        if self.looks > len(self.stamps) or self.bodies > self.size**2 - 1:
            found = f"{self.fusions} fusions and {self.distractors} distractors"
            raise InputError(f"{self.name} has no room for {found}; use fewer")

    @property
    def bodies(self) -> int:
        """Number of objects in the world at the start: mover, partners, target, distractors."""
        return 2 + self.fusions + self.distractors

    @property
    def looks(self) -> int:
        """Number of different objects in a task: its bodies, and the mover's later forms."""
        return self.bodies + self.fusions

    @property
    def action_space(self) -> spaces.Discrete:
        """Stay, up, right, down, left, pick up or put down."""
        return spaces.Discrete(len(MOVES) + 1)

    @property
    def task_space(self) -> spaces.Dict:
        """Relation of the rule, identities of the objects, and their cells.

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

    def words(self) -> Words:
        """Return the room in words."""
        rules = (
            f"{map_rules(self)} There are objects of several kinds and colours, and a rule that you do not know: one "
            "of them must be put down beside another one, perhaps on a certain side of it. It is the same in every "
            "episode. The step that fulfils it gives 1 and ends the episode. The action use picks up the object in "
            "your cell, or puts down the one that you carry if the cell is empty. "
            f"{self._fusion_words()}{sight_rules(self)}"
        )
        return Words(rules, (*MOVE_NAMES, "use"), lambda observation: sight(self, observation, _name_of))

    def _fusion_words(self) -> str:
        if not self.fusions:
            return ""
        times = "once" if self.fusions == 1 else f"{self.fusions} times"
        return (
            f"The object to bring must be made first: {times}, an object put beside the right partner becomes another "
            "one, which gives 1, and the partner vanishes. "
        )

    def sample_tasks(self, count: int, generator: torch.Generator) -> TensorDict:
        """Draw relation, objects and cells uniformly; objects are distinct and in distinct cells, none at the start."""
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
        """Return each task's part by its rule.

        Without fusions mover and target only differ in name: to bring A above B is to bring B below A.
        """
        relation, objects = tasks["relation"], tasks["objects"][:, : self.looks - self.distractors]
        if not self.fusions:
            look = objects[..., 0] * len(HUES) + objects[..., 1]
            swapped = look[:, 0] > look[:, 1]
            objects = torch.where(swapped[:, None, None], objects.flip(1), objects)
            relation = torch.where(swapped, torch.tensor(OPPOSITES)[relation], relation)
        return hashed_part(seed, relation, objects)

    def make_task(self, parameters: Mapping[str, Any]) -> TensorDict:
        """Turn named values into a task ``[1]``.

        Raises:
            InputError: also if two objects are identical or share a cell, or one is at the start.
        """
        task = super().make_task(parameters)
        for name in ("objects", "cells"):
            if len(task[name][0].unique(dim=0)) < len(task[name][0]):
                raise InputError(f"{self.name}: the {name} of a task must all differ")
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
        # Partners and target are in the order in which the mover must meet them.
        meets = state["fused"] + 1
        other = lookup(bodies, meets)
        side = sides(self.size, cell.device).index_select(0, other * (self.border + 1) + bodies[:, 0])
        last, relation = meets > self.fusions, tasks["relation"]
        met = puts & (side > 0) & (~last | (relation == 0) | (side == relation))
        fuses = met & ~last
        bodies = bodies.scatter(1, meets[:, None], other.masked_fill(fuses, self.gone)[:, None])
        following = {**state, "cell": cell, "bodies": bodies, "fused": state["fused"] + fuses}
        return following, Transition(met.float(), met & last, {})

    def things(self, state: State) -> tuple[Tensor, Tensor]:
        """Return the objects, with the mover in its current form."""
        form = state["looks"].gather(1, state["fused"][:, None])
        return state["bodies"], torch.cat([form, state["looks"][:, self.fusions + 1 :]], 1)

    def picture(self, state: State, task: TensorDict) -> np.ndarray:
        """Draw one world above its rule as text."""
        return captioned(super().picture(state, task), self._rule_lines(task))

    def _handled(self, bodies: Tensor, cell: Tensor, uses: Tensor) -> tuple[Tensor, Tensor]:
        """Pick up or put down objects; return the bodies' cells, and which agents put one down."""
        carries, occupied = (bodies == self.hand).any(1), (bodies == cell[:, None]).any(1)
        picks, puts = uses & ~carries, uses & carries & ~occupied
        # Agents that do neither pick up from the border, where there is nothing.
        source = torch.where(picks, cell, torch.where(puts, self.hand, self.border))
        into = torch.where(picks, self.hand, cell)
        return torch.where(bodies == source[:, None], into[:, None], bodies), puts

    def _rule_lines(self, task: TensorDict) -> list[str]:
        names = [f"{HUES[hue]} {KINDS[kind]}" for kind, hue in task["objects"].tolist()]
        forms, others = names[: self.fusions + 1], names[self.fusions + 1 :]
        steps = [
            line
            for form, partner, new in zip(forms, others, forms[1:], strict=False)
            for line in (f"{form} + {partner}", f"= {new}")
        ]
        return [*steps, f"{forms[-1]} {RELATIONS[int(task['relation'])]} {others[self.fusions]}"]


def _name_of(code: int) -> str:
    """Return what a cell's code stands for."""
    if code == WALL:
        return "wall"
    kind, hue = code // KIND % 8, code // HUE % 8
    return f"{HUES[hue]} {KINDS[kind - 1]}"


def _different(total: int, chosen: int, count: int, generator: torch.Generator) -> Tensor:
    """Draw ``chosen`` different numbers below ``total`` for each of ``count`` tasks, uniformly and in random order."""
    return torch.rand(count, total, generator=generator).argsort(1)[:, :chosen]


@cache
def sides(size: int, device: torch.device) -> Tensor:
    """Return the move that leads from one cell number to another, 0 if none: uint8 ``[numbers x numbers]``, flat."""
    cells = torch.arange(size**2)
    # The entry of a cell with itself is never used: no two objects share a cell.
    table = torch.zeros(size**2 + 3, size**2 + 3, dtype=torch.uint8)
    for move, reached in enumerate(neighbours(size, torch.device("cpu")).view(-1, len(MOVES)).T):
        table[cells, reached] = move
    return send(table.flatten(), device)
