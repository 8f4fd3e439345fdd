"""Positions in a plane, and maps: what families whose agent moves in a plane provide for plots of paths."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

Position = tuple[float, float]


@dataclass(frozen=True)
class Map:
    """The square of the plane on which the paths of a task are plotted.

    Attributes:
        centre: centre of the square.
        half: half its side; 0 for a square as large as the paths need.
        image: uint8 ``[H, W, 3]`` that fills the square, including the goal; None for an empty plane.
        goal: the task's goal, if it is a position.
        goal_radius: distance within which the goal counts as reached.
        goal_line: points along the line that contains or encloses the goals of all tasks.
    """

    centre: Position = (0.0, 0.0)
    half: float = 0.0
    image: np.ndarray | None = None
    goal: Position | None = None
    goal_radius: float = 0.0
    goal_line: Sequence[Position] = ()


class Staying(NamedTuple):
    """The transitions of staying in each cell of a grid, for plots of the rewards that a learner expects.

    Shapes:
        observations: ``[rows, columns, *observation]``, before and after the step; the first row has the lowest y.
        actions: ``[rows, columns, *action]``, the staying actions.

    Attributes:
        rewards: lowest and highest reward of such a transition.
    """

    observations: Tensor
    actions: Tensor
    rewards: tuple[float, float]


def as_position(coordinates: Tensor) -> Position:
    """Return a tensor ``[2]`` as a position."""
    x, y = coordinates.tolist()
    return x, y
