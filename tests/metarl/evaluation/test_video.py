from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from metarl.errors import InputError
from metarl.evaluation.video import check_video_path, write_video


def moving_square(count: int = 6, height: int = 48, width: int = 64) -> np.ndarray:
    """Return frames of a red square that moves over white."""
    frames = np.full((count, height, width, 3), 255, dtype=np.uint8)
    for number, frame in enumerate(frames):
        frame[8:24, 4 * number : 4 * number + 16] = (200, 20, 20)
    return frames


def decoded(path: Path) -> np.ndarray:
    """Return the frames of an MP4."""
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


def test_an_mp4_plays_back_what_was_written(tmp_path: Path) -> None:
    frames = moving_square()
    write_video(frames, tmp_path / "square.mp4", 20)
    found = decoded(tmp_path / "square.mp4")
    assert found.shape == frames.shape
    assert np.abs(found.astype(int) - frames).mean() < 3  # lossy
    assert [path.name for path in tmp_path.iterdir()] == ["square.mp4"]


@pytest.mark.parametrize("fps", [4, 20, 41.667])
def test_an_mp4_is_of_the_kind_that_browsers_play(tmp_path: Path, fps: float) -> None:
    write_video(moving_square(), tmp_path / "square.mp4", fps)
    with av.open(str(tmp_path / "square.mp4")) as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert float(stream.average_rate or 0) == pytest.approx(fps, rel=1e-3)
    # The index of the frames comes first, so that a page can start playing before it has the whole file.
    content = (tmp_path / "square.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def test_odd_sizes_become_even(tmp_path: Path) -> None:
    write_video(moving_square(height=47, width=63), tmp_path / "odd.mp4", 20)
    assert decoded(tmp_path / "odd.mp4").shape[1:3] == (48, 64)


def test_a_gif_plays_back_what_was_written(tmp_path: Path) -> None:
    frames = moving_square()
    write_video(frames, tmp_path / "square.GIF", 20)
    durations = []
    with Image.open(tmp_path / "square.GIF") as file:
        assert (file.n_frames, file.size, file.info["loop"]) == (6, (64, 48), 0)  # type: ignore[attr-defined]
        for number, frame in enumerate(frames):
            file.seek(number)
            durations.append(file.info["duration"])
            found = np.asarray(file.convert("RGB"))
            assert np.abs(found.astype(int) - frame).max() <= 4
            assert (found[-1] == 255).all()  # white is white
    assert durations == [50] * 5 + [1000]


def test_a_webp_plays_back_what_was_written(tmp_path: Path) -> None:
    frames = moving_square()
    write_video(frames, tmp_path / "square.webp", 20)
    with Image.open(tmp_path / "square.webp") as file:
        assert (file.n_frames, file.size, file.info["loop"]) == (6, (64, 48), 0)  # type: ignore[attr-defined]
        durations = []
        for number, frame in enumerate(frames):
            file.seek(number)
            file.load()
            durations.append(file.info["duration"])
            assert np.abs(np.asarray(file.convert("RGB")).astype(int) - frame).mean() < 6  # lossy
    assert durations == [50] * 5 + [1000]


def test_a_single_frame_is_a_picture_at_rest(tmp_path: Path) -> None:
    write_video(moving_square(1), tmp_path / "square.webp", 20)
    with Image.open(tmp_path / "square.webp") as file:
        assert not file.is_animated  # type: ignore[attr-defined]


def test_a_gif_is_no_faster_than_browsers_are(tmp_path: Path) -> None:
    write_video(moving_square(), tmp_path / "square.gif", 125)
    with Image.open(tmp_path / "square.gif") as file:
        assert file.info["duration"] == 20


def test_a_gif_of_many_colours_is_small(tmp_path: Path) -> None:
    # A pattern of every colour that is shifted from frame to frame, about as hard as a robot's camera on a floor.
    y, x = np.mgrid[:120, :160]
    pattern = np.stack([x * 255 // 159, y * 255 // 119, (x + y) % 256], -1).astype(np.uint8)
    write_video(np.stack([np.roll(pattern, 3 * shift, 1) for shift in range(20)]), tmp_path / "colours.gif", 20)
    assert (tmp_path / "colours.gif").stat().st_size < 20 * 120 * 160


@pytest.mark.parametrize("name", ["square.avi", "square", "mp4", "square.mp4.png"])
def test_other_endings_are_refused(tmp_path: Path, name: str) -> None:
    for attempt in (check_video_path, lambda path: write_video(moving_square(), path, 20)):
        with pytest.raises(InputError, match=r"an .mp4, .gif or .webp file; give --out a name .*" + name):
            attempt(tmp_path / name)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no folder .*nowhere for square.mp4; create it"):
        check_video_path(tmp_path / "nowhere" / "square.mp4")


@pytest.mark.parametrize("name", ["square.mp4", "square.gif"])
def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("old")
    with pytest.raises((ValueError, TypeError)):
        write_video(moving_square().astype(np.float64), tmp_path / name, 20)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "old"
