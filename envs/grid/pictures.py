"""Pictures of gridworlds: cells from above, y upwards, drawn with Pillow."""

from collections.abc import Callable, Sequence
from functools import partial
from math import cos, pi, sin

import numpy as np
from PIL import ImageDraw

from metarl.families.pictures import AGENT, BLACK, GOAL, SIDE, WHITE, Colour, draw, text_picture

Cell = tuple[int, int]
Box = tuple[float, float, float, float]
Stamp = Callable[[ImageDraw.ImageDraw, Box], None]
LINE: Colour = (215, 215, 215)
WALL: Colour = (70, 70, 70)
GOLD: Colour = (214, 160, 0)
WOOD: Colour = (140, 86, 75)


def grid_picture(
    walls: np.ndarray,
    agent: Cell,
    things: Sequence[tuple[Cell, Stamp]],
    carried: Sequence[Stamp] = (),
    reach: int | None = None,
) -> np.ndarray:
    """Draw a map.

    Args:
        walls: bool ``[size, size]``, indexed (y, x).
        agent: the agent's cell (x, y).
        things: cells and functions that draw their objects.
        carried: functions that draw the objects that the agent carries, on top of it.
        reach: how many cells the agent sees to each side, which are framed; None for no frame.

    Returns:
        uint8 ``[side, side, 3]``, ``side`` being ``size`` times ``cell_side``.
    """
    size, side = len(walls), cell_side(len(walls))

    def box(cell: Cell, wider: int = 0) -> Box:
        x, y = cell[0], size - 1 - cell[1]
        return ((x - wider) * side, (y - wider) * side, (x + 1 + wider) * side - 1, (y + 1 + wider) * side - 1)

    def paint(pen: ImageDraw.ImageDraw) -> None:
        for y, x in np.ndindex(size, size):
            pen.rectangle(box((x, y)), fill=WALL if walls[y, x] else WHITE, outline=LINE)
        for cell, stamp in things:
            stamp(pen, box(cell))
        pen.ellipse(_shrunk(box(agent), 0.2), fill=AGENT, outline=WHITE)
        for stamp in carried:
            stamp(pen, _shrunk(box(agent), 0.28))
        if reach is not None:
            pen.rectangle(box(agent, reach), outline=AGENT, width=2)
        pen.rectangle((0, 0, size * side - 1, size * side - 1), outline=WALL, width=2)

    return draw(paint, size * side, size * side)


def captioned(picture: np.ndarray, lines: Sequence[str]) -> np.ndarray:
    """Put lines of text under a picture ``[H, W, 3]``."""
    text = text_picture(lines, picture.shape[1], 16 * len(lines) + 16)
    return np.concatenate([picture, text])


def cell_side(size: int) -> int:
    """Return the side of a cell in pixels in the picture of a map with ``size`` cells per side."""
    return max(SIDE // size, 12)


def _shrunk(box: Box, part: float) -> Box:
    left, top, right, bottom = box
    inset = part * (right - left)
    return left + inset, top + inset, right - inset, bottom - inset


def polygon(pen: ImageDraw.ImageDraw, box: Box, points: Sequence[tuple[float, float]], colour: Colour) -> None:
    """Draw the polygon with ``points`` in units of half a cell from its middle, y downwards."""
    left, top, right, bottom = box
    x, y, half = (left + right) / 2, (top + bottom) / 2, (right - left) / 2
    pen.polygon([(x + half * px, y + half * py) for px, py in points], fill=colour, outline=BLACK)


def radial(corners: int, radii: Sequence[float], turn: float = 0.0) -> list[tuple[float, float]]:
    """Return ``corners`` points around the middle at ``radii`` in turn, the first at the top, turned by ``turn``."""
    angles = [turn + 2 * pi * corner / corners for corner in range(corners)]
    return [
        (radii[corner % len(radii)] * sin(angle), -radii[corner % len(radii)] * cos(angle))
        for corner, angle in enumerate(angles)
    ]


def draw_goal(pen: ImageDraw.ImageDraw, box: Box) -> None:
    """Draw a goal."""
    pen.rectangle(_shrunk(box, 0.08), fill=GOAL)


def draw_key(pen: ImageDraw.ImageDraw, box: Box) -> None:
    """Draw a key."""
    left, top, right, bottom = _shrunk(box, 0.2)
    side = right - left
    middle, thick = (top + bottom) / 2, max(2, round(side / 8))
    pen.ellipse((left, middle - side / 4, left + side / 2, middle + side / 4), outline=GOLD, width=thick)
    pen.line((left + side / 2, middle, right, middle), fill=GOLD, width=thick)
    for tooth in (right - thick / 2, right - side / 4):
        pen.line((tooth, middle, tooth, middle + side / 4), fill=GOLD, width=thick)


def draw_door(pen: ImageDraw.ImageDraw, box: Box) -> None:
    """Draw a door."""
    left, top, right, bottom = _shrunk(box, 0.04)
    pen.rectangle((left, top, right, bottom), fill=WOOD, outline=BLACK)
    knob, y = right - (right - left) / 4, (top + bottom) / 2
    pen.ellipse((knob - 3, y - 3, knob + 3, y + 3), fill=GOLD)


SHAPES: dict[str, Sequence[tuple[float, float]]] = {
    "ball": radial(40, [0.7]),
    "box": radial(4, [0.85], pi / 4),
    "pyramid": radial(3, [0.85]),
    "gem": radial(4, [0.8]),
    "star": radial(10, [0.85, 0.36]),
    "nut": radial(6, [0.75]),
    "cross": [
        (sx * a, sy * b)
        for sx, sy, corners in (
            (1, -1, [(0.25, 0.75), (0.25, 0.25), (0.75, 0.25)]),
            (1, 1, [(0.75, 0.25), (0.25, 0.25), (0.25, 0.75)]),
            (-1, 1, [(0.25, 0.75), (0.25, 0.25), (0.75, 0.25)]),
            (-1, -1, [(0.75, 0.25), (0.25, 0.25), (0.25, 0.75)]),
        )
        for a, b in corners
    ],
}
COLOURS: dict[str, Colour] = {
    "red": (214, 39, 40),
    "orange": (255, 127, 14),
    "yellow": (240, 210, 40),
    "green": (44, 160, 44),
    "cyan": (70, 210, 220),
    "purple": (148, 103, 189),
    "pink": (240, 150, 200),
    "grey": (150, 150, 150),
}


def object_stamp(kind: str, colour: str) -> Stamp:
    """Return a function that draws an object with one of the ``SHAPES`` in one of the ``COLOURS``."""
    return partial(polygon, points=SHAPES[kind], colour=COLOURS[colour])
