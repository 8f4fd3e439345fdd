"""GridNavi from images: a small picture of the agent's cell instead of two numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from metarl.devices.transfer import send
from metarl.envs.grid.gridnavi import GridNavi
from metarl.families.family import register_family
from metarl.families.pictures import AGENT, Colour
from metarl.families.references import Reference
from metarl.families.tensor_family import State
from metarl.validation import require_counts

# Dark, so that most pixels are near 0 and only the agent differs between pictures.
FLOOR: Colour = (0, 0, 0)
LINE: Colour = (50, 50, 50)


@register_family
@dataclass(frozen=True)
class GridNaviImage(GridNavi):
    """GridNavi whose observation is a picture of the map: black cells between dark grey lines, the agent's in blue.

    Tasks, rewards and ends are GridNavi's, and the goal is not shown.

    Attributes:
        cell_pixels: pixels along each side of a cell, including its line.
    """

    cell_pixels: int = 3

    name: ClassVar[str] = "gridnavi-image"
    env_id: ClassVar[str] = "metarl/GridNaviImage-v0"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"varibad": {"size": 5, "horizon": 15, "cell_pixels": 3}}
    references: ClassVar[Mapping[str, Reference]] = {"varibad": GridNavi.references["varibad"]}

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, "cell_pixels")

    @property
    def observation_space(self) -> spaces.Box:
        """The picture, uint8 ``[H, W, 3]`` with y upwards and channels last, as in Gymnasium."""
        side = self.size * self.cell_pixels
        return spaces.Box(0, 255, (side, side, 3), np.uint8)

    def positions(self, observations: Tensor) -> None:
        """Return nothing: a picture is not a position."""

    def staying(self) -> None:
        """Return nothing: beliefs are drawn from observations that are cells."""

    def words(self) -> None:
        """Return nothing: a picture is not read."""

    def observation(self, state: State) -> Tensor:
        """Return pictures ``[B, H, W, 3]``."""
        return _pictures(self, state["cell"].device).index_select(0, state["cell"])


@cache
def _pictures(family: GridNaviImage, device: torch.device) -> Tensor:
    """Return the picture with the agent in each cell by its number, uint8 ``[cells, H, W, 3]``."""
    pixels, cells = family.cell_pixels, family.size**2
    empty = np.full((family.size * pixels, family.size * pixels, 3), FLOOR, np.uint8)
    empty[pixels - 1 :: pixels] = LINE
    empty[:, pixels - 1 :: pixels] = LINE
    pictures = np.repeat(empty[None], cells, 0)
    for picture, (x, y) in zip(pictures, family.cells(torch.arange(cells)).tolist(), strict=True):
        top, left = (family.size - 1 - y) * pixels, x * pixels
        inside = max(pixels - 1, 1)
        picture[top : top + inside, left : left + inside] = AGENT
    return send(torch.as_tensor(pictures), device)
