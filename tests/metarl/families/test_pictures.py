import numpy as np
import pytest

from metarl.families.pictures import AGENT, captioned, draw, side_by_side, text_picture


def test_a_picture_is_what_was_painted_on_white() -> None:
    frame = draw(lambda pen: pen.rectangle((2, 1, 3, 1), AGENT), width=6, height=4)
    assert (frame.shape, frame.dtype) == ((4, 6, 3), np.dtype(np.uint8))
    assert (frame[1, 2:4] == AGENT).all()
    assert (frame != 255).any(-1).sum() == 2


@pytest.mark.parametrize("lines", [["one"], ["one", "two", "three"]])
def test_text_is_dark_on_white(lines: list[str]) -> None:
    frame = text_picture(lines, width=80, height=60)
    dark = (frame < 128).all(-1)
    assert frame.shape == (60, 80, 3)
    # Each line takes its own rows.
    rows = dark.any(1)
    assert np.count_nonzero(np.diff(rows.astype(int)) == 1) == len(lines)


def test_text_that_does_not_fit_is_cut_off() -> None:
    assert text_picture(["long " * 100] * 50).shape == (256, 256, 3)


def test_a_caption_is_above_the_frame() -> None:
    frame = np.zeros((10, 40, 3), dtype=np.uint8)
    found = captioned(frame, ["a", "b"])
    assert (found[-10:] == frame).all()
    assert found.shape[1:] == (40, 3)
    assert found[:-10].mean() > 128


def test_frames_are_side_by_side() -> None:
    dark, light = np.zeros((4, 3, 3), dtype=np.uint8), np.full((4, 5, 3), 9, dtype=np.uint8)
    row = side_by_side([dark, light], gap=2)
    assert row.shape == (4, 10, 3)
    assert (row[:, :3] == 0).all()
    assert (row[:, 3:5] == 255).all()
    assert (row[:, 5:] == 9).all()


def test_one_frame_alone_is_itself() -> None:
    frame = np.zeros((4, 3, 3), dtype=np.uint8)
    assert np.array_equal(side_by_side([frame]), frame)
