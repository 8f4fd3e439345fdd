"""Places in a plane: what a family whose agent moves in one offers to whoever draws its paths."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

Place = tuple[float, float]


@dataclass(frozen=True)
class Map:
    """The square of the plane under the paths of a task.

    Attributes:
        centre: of the square.
        half: half its side; 0 for a square as large as the paths need.
        image: uint8 ``[H, W, 3]`` that fills the square, with the goal in it; None for an empty plane.
        goal: the task's, if it is a place.
        goal_radius: how near to the goal counts as being there.
        goal_line: points along the line that holds or encloses the goals of all tasks.
    """

    centre: Place = (0.0, 0.0)
    half: float = 0.0
    image: np.ndarray | None = None
    goal: Place | None = None
    goal_radius: float = 0.0
    goal_line: Sequence[Place] = ()


class Staying(NamedTuple):
    """The steps of staying in each cell of a grid, for pictures of the rewards that a learner expects of them.

    Shapes:
        observations: ``[rows, columns, *observation]``, before and after the step; the first row has the lowest y.
        actions: ``[rows, columns, *action]``, that stay.

    Attributes:
        rewards: lowest and highest reward of such a step.
    """

    observations: Tensor
    actions: Tensor
    rewards: tuple[float, float]


def as_place(coordinates: Tensor) -> Place:
    """Return a tensor ``[2]`` as a place."""
    x, y = coordinates.tolist()
    return x, y
