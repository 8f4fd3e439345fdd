"""The engine of all gridworlds: numbered cells, walls, moves and observations.

Cells are numbered row by row from 0. Three more numbers follow that are not cells of the map: ``hand`` for objects that
the agent carries, ``gone`` for objects that no longer exist, and ``border`` for everything around the map. So a state
is a few numbers per world, and a step a few table look-ups, without synchronising with the device.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np
import torch
from gymnasium import spaces
from tensordict import TensorDict
from torch import Tensor
from torch.nn.functional import pad

from metarl.devices.transfer import send
from metarl.envs.grid.pictures import Stamp, draw_door, draw_goal, draw_key, grid_picture
from metarl.errors import InputError
from metarl.families.family import Transition
from metarl.families.positions import Map
from metarl.families.tensor_family import State, TensorFamily

# stay, up, right, down, left, as steps in (x, y)
MOVES = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))
# Bits of a cell's code.
WALL, GOAL, KEY, DOOR = 1, 2, 4, 8
GOAL_REWARD, STEP_REWARD = 1.0, -0.1


@dataclass(frozen=True)
class GridFamily(TensorFamily):
    """Worlds of ``size`` x ``size`` cells with walls, in which the agent starts in the corner (0, 0).

    Cells are (x, y), counted from 0; up is +y. A move into a wall or off the map has no effect. A state contains at
    least ``cell`` int64 ``[B]``, the number of the agent's cell.

    Unless a family overrides this, the task is a goal cell, and steps that end on it are rewarded.

    Attributes:
        size: cells along each side.
        horizon: steps of an episode.
    """

    size: int
    horizon: int

    smallest: ClassVar[int] = 3
    stamps: ClassVar[Mapping[int, Stamp]] = {GOAL: draw_goal, KEY: draw_key, DOOR: draw_door}

    def __post_init__(self) -> None:
        if self.size < self.smallest:
            raise InputError(f"{self.name} needs at least {self.smallest} cells per side, not {self.size}")

    @property
    def task_space(self) -> spaces.Dict:
        """``goal`` ``[2]``: its cell (x, y)."""
        return spaces.Dict({"goal": spaces.Box(0, self.size - 1, (2,), np.int64)})

    @property
    def action_space(self) -> spaces.Discrete:
        """Stay, up, right, down, left."""
        return spaces.Discrete(len(MOVES))

    @property
    def hand(self) -> int:
        """The number for objects that the agent carries."""
        return self.size**2

    @property
    def gone(self) -> int:
        """The number for objects that no longer exist."""
        return self.hand + 1

    @property
    def border(self) -> int:
        """The number for all cells around the map."""
        return self.hand + 2

    def initial_state(self, tasks: TensorDict, generator: torch.Generator) -> State:
        """Start in the corner."""
        return {"cell": self.start(tasks), "goal": self.numbers(tasks["goal"])}

    def transition(
        self, state: State, actions: Tensor, tasks: TensorDict, generator: torch.Generator
    ) -> tuple[State, Transition]:
        """Move the agent, and reward it on the goal."""
        cell = self.moved(state, actions)
        return {**state, "cell": cell}, goal_transition(cell == state["goal"])

    def layout(self) -> Tensor:
        """Return the walls common to all tasks, bool ``[size, size]`` indexed (y, x): none by default."""
        return torch.zeros(self.size, self.size, dtype=torch.bool)

    def walls(self, state: State) -> Tensor:
        """Return the walls, uint8 ``[B, numbers]``: 1 on walls and the border."""
        return shared_walls(self, state["cell"].device).expand(len(state["cell"]), -1)

    def things(self, state: State) -> tuple[Tensor, Tensor]:
        """Return the cell numbers ``[B, K]`` of the objects in the worlds, and their codes uint8: by default a goal."""
        goal = state["goal"][:, None]
        return goal, torch.full_like(goal, GOAL, dtype=torch.uint8)

    def numbers(self, cells: Tensor) -> Tensor:
        """Return the numbers ``[...]`` of cells (x, y) ``[..., 2]``."""
        return cells[..., 1] * self.size + cells[..., 0]

    def cells(self, numbers: Tensor) -> Tensor:
        """Return the cells (x, y) ``[..., 2]`` with ``numbers`` ``[...]``."""
        return torch.stack([numbers % self.size, numbers // self.size], -1)

    def start(self, tasks: TensorDict) -> Tensor:
        """Return the number of the corner (0, 0) for every task, ``[B]``."""
        return torch.zeros(tasks.batch_size, dtype=torch.int64, device=next(iter(tasks.values())).device)

    def ahead(self, cell: Tensor, moves: Tensor) -> Tensor:
        """Return the cells to which ``moves`` ``[B]`` lead from ``cell`` ``[B]``, ignoring walls."""
        return neighbours(self.size, cell.device).index_select(0, cell * len(MOVES) + moves)

    def moved(self, state: State, moves: Tensor) -> Tensor:
        """Return the agents' cells ``[B]`` after ``moves`` ``[B]``, which walls block."""
        ahead = self.ahead(state["cell"], moves)
        return torch.where(lookup(self.walls(state), ahead).bool(), state["cell"], ahead)

    def picture(self, state: State, task: TensorDict) -> np.ndarray:
        """Draw walls, objects and agent of one world, given without the axis B, as uint8 ``[H, W, 3]``."""
        batched = {key: value[None] for key, value in state.items()}
        walls = self.walls(batched)[0, : self.hand].view(self.size, self.size).bool().numpy()
        numbers, codes = (tensor[0].tolist() for tensor in self.things(batched))
        stamps = [(number, self.stamps[code]) for number, code in zip(numbers, codes, strict=True)]
        lying = [(self._place(number), stamp) for number, stamp in stamps if number < self.hand]
        carried = [stamp for number, stamp in stamps if number == self.hand]
        return grid_picture(walls, self._place(int(state["cell"])), lying, carried, self._reach)

    def map_of(self, task: TensorDict) -> Map:
        """Return the picture of the world at the start of an episode as a map, in units of cells."""
        task = task.cpu()
        start = self.initial_state(task[None], torch.Generator())
        image = self.picture({key: value[0] for key, value in start.items()}, task)
        middle = (self.size - 1) / 2
        return Map((middle, middle), self.size / 2, image[: image.shape[1]])  # without lines of text under it

    @property
    def _reach(self) -> int | None:
        """How many cells the agent sees to each side; None without a window."""
        return None

    def _place(self, number: int) -> tuple[int, int]:
        return number % self.size, number // self.size


@dataclass(frozen=True)
class SightedGrid(GridFamily):
    """A gridworld observed either as a map or through a window around the agent.

    Observations are zeros and ones. The map is ``size²`` entries that mark the agent's cell, followed by planes of
    ``size²``; the window is planes of ``view²`` centred on the agent's cell; flags follow. A plane, flattened in the
    order (y, x), shows where a bit of the cells' codes is set; ``on_map`` and ``in_window`` list the bits. If the agent
    ``carries`` objects, every plane has one extra entry after the cells, for the hand. Walls do not block the view.

    Attributes:
        view: cells along each side of the window, odd; None for the whole map.
    """

    view: int | None = None

    on_map: ClassVar[tuple[int, ...]] = ()
    in_window: ClassVar[tuple[int, ...]] = (WALL, GOAL)
    carries: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.view is not None and (self.view < 3 or self.view % 2 == 0):
            raise InputError(f"{self.name}: view must be None or an odd number of cells, at least 3, not {self.view}")

    @property
    def observation_space(self) -> spaces.Box:
        """Zeros and ones: planes over the map or the window, then flags."""
        if self.view is None:
            entries = self.hand + (self.hand + self.carries) * len(self.on_map)
        else:
            entries = (self.view**2 + self.carries) * len(self.in_window)
        return spaces.Box(0.0, 1.0, (entries + self.flag_count,), np.float32)

    @property
    def flag_count(self) -> int:
        """Total length of ``flags``."""
        return 0

    def flags(self, state: State) -> list[Tensor]:
        """Return further observations besides cells: pieces uint8 ``[B, ...]``, zero or nonzero."""
        return []

    def observation(self, state: State) -> Tensor:
        """Return the map or the window, and the flags, float32 ``[B, n]``."""
        pieces = self._map(state) if self.view is None else self._window(state)
        return torch.cat([*pieces, *self.flags(state)], 1).clamp_(max=1).float()

    def positions(self, observations: Tensor) -> Tensor | None:
        """Return the cells (x, y) ``[..., 2]`` of the agent, if the whole map is observed."""
        return None if self.view is not None else self.cells(observations[..., : self.hand].argmax(-1))

    def codes(self, state: State) -> Tensor:
        """Return the code of every cell, uint8 ``[B, numbers]``."""
        return self.walls(state).scatter(1, *self.things(state))

    def _map(self, state: State) -> list[Tensor]:
        agent = identity(self.hand, state["cell"].device).index_select(0, state["cell"])
        if not self.on_map:
            return [agent]
        codes = self.codes(state)[:, : self.hand + self.carries].contiguous()
        return [agent, *planes(codes, self.on_map)]

    def _window(self, state: State) -> list[Tensor]:
        cells = windows(self, state["cell"].device).index_select(0, state["cell"])
        return planes(self.codes(state).gather(1, cells), self.in_window)

    @property
    def _reach(self) -> int | None:
        return None if self.view is None else self.view // 2


def lookup(values: Tensor, numbers: Tensor) -> Tensor:
    """Return ``values`` ``[B, numbers]`` at one number ``[B]`` of each world."""
    return values.gather(1, numbers[:, None]).squeeze(1)


def planes(codes: Tensor, bits: tuple[int, ...]) -> list[Tensor]:
    """Return for each of ``bits`` a plane ``[B, n]``, nonzero where ``codes`` ``[B, n]`` have the bit."""
    return [codes & bit for bit in bits]


def goal_transition(at_goal: Tensor) -> Transition:
    """Return reward +1 for steps that end on the goal and -0.1 for others, without termination."""
    return Transition(torch.where(at_goal, GOAL_REWARD, STEP_REWARD), torch.zeros_like(at_goal), {})


def drawn_from(tasks: TensorDict, count: int, generator: torch.Generator) -> TensorDict:
    """Draw ``count`` of ``tasks`` uniformly, with replacement."""
    drawn: TensorDict = tasks[torch.randint(len(tasks), (count,), generator=generator)]
    return drawn


def numbered(walls: Tensor) -> Tensor:
    """Turn walls ``[..., size, size]``, indexed (y, x), into uint8 ``[..., numbers]``, with hand, gone and border."""
    cells = walls.flatten(-2).to(torch.uint8)
    others = constant((0, 0, WALL), cells.dtype, cells.device)
    return torch.cat([cells, others.expand(*cells.shape[:-1], -1)], -1)


# Tables are cached for each device: creating them would copy from the host at every step.


@cache
def constant(values: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a cached constant tensor on a device."""
    return send(torch.tensor(values, dtype=dtype), device)


@cache
def identity(count: int, device: torch.device) -> Tensor:
    """Return the identity matrix, uint8 ``[count, count]``."""
    return torch.eye(count, dtype=torch.uint8, device=device)


@cache
def shared_walls(family: GridFamily, device: torch.device) -> Tensor:
    """Return the family's layout, uint8 ``[numbers]``."""
    return send(numbered(family.layout()), device)


@cache
def neighbours(size: int, device: torch.device) -> Tensor:
    """Return where each move leads from each cell, ``[cells x moves]``; moves off the map have no effect."""
    cells = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="xy"), -1).view(-1, 1, 2)
    x, y = (cells + torch.tensor(MOVES)).clamp(0, size - 1).unbind(-1)
    return send((y * size + x).flatten(), device)


@cache
def windows(family: SightedGrid, device: torch.device) -> Tensor:
    """Return the numbers of the cells in the window around each cell, ``[cells, view²]``, plus the hand if needed."""
    size, view = family.size, family.view or 0
    numbers = pad(torch.arange(size**2).view(size, size), (view // 2,) * 4, value=family.border)
    seen = numbers.unfold(0, view, 1).unfold(1, view, 1).reshape(size**2, view**2)
    return send(pad(seen, (0, int(family.carries)), value=family.hand), device)
