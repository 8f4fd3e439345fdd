"""Pictures of worlds: uint8 arrays ``[H, W, 3]``, drawn with Pillow."""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
SIDE = 256
WHITE: Colour = (255, 255, 255)
BLACK: Colour = (30, 30, 30)
AGENT: Colour = (31, 119, 180)
GOAL: Colour = (44, 160, 44)
DANGER: Colour = (214, 39, 40)


def draw(paint: Callable[[ImageDraw.ImageDraw], None], width: int = SIDE, height: int = SIDE) -> np.ndarray:
    """Return the picture ``[height, width, 3]`` that ``paint`` draws on white."""
    image = Image.new("RGB", (width, height), WHITE)
    paint(ImageDraw.Draw(image))
    return np.asarray(image)


def text_picture(lines: Sequence[str], width: int = SIDE, height: int = SIDE) -> np.ndarray:
    """Return a picture ``[height, width, 3]`` of a few lines of text; what does not fit is cut off."""
    return draw(
        lambda pen: pen.multiline_text((8, 8), "\n".join(lines), BLACK, ImageFont.load_default(12)), width, height
    )


def captioned(frame: np.ndarray, lines: Sequence[str]) -> np.ndarray:
    """Return a frame ``[H, W, 3]`` with a few lines of text above it."""
    return np.concatenate([text_picture(lines, frame.shape[1], 16 + 16 * len(lines)), frame])


def side_by_side(frames: Sequence[np.ndarray], gap: int = 8) -> np.ndarray:
    """Join frames ``[H, W, 3]`` of one shape into a row on white, ``gap`` pixels apart."""
    height = frames[0].shape[0]
    space = np.full((height, gap, 3), 255, dtype=np.uint8)
    pieces = [piece for frame in frames for piece in (frame, space)][:-1]
    return np.concatenate(pieces, axis=1)
