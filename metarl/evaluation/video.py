"""Writing videos: MP4 that browsers play, and animated GIF and WebP."""

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from metarl.errors import InputError
from metarl.families.pictures import WHITE
from metarl.storage.files import write_whole

# Hundredths of a second: an animation's shortest frame (browsers slow down shorter ones), and its last one.
SHORTEST = 2
LAST_FRAME = 100
WEBP_QUALITY = 40
PALETTE_FRAMES = 16
# Pillow's palette look-up has only this resolution, so white would become whatever is closest to 252.
NEARLY_WHITE = 248


def check_video_path(path: Path | str) -> None:
    """Check, before anything is recorded, that the video can be written.

    Raises:
        InputError: if the name does not end in .mp4, .gif or .webp, or its folder is missing.
    """
    path = Path(path)
    if path.suffix.lower() not in WRITERS:
        raise InputError(f"a video is an .mp4, .gif or .webp file; give --out a name with that ending, not {path}")
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent} for {path.name}; create it, or choose another --out")


def write_video(frames: np.ndarray, path: Path | str, fps: float) -> None:
    """Write frames as MP4 (H.264, yuv420p), GIF or WebP, depending on the extension.

    If height or width is odd, which H.264 cannot encode, the last row or column is repeated. GIF and WebP are pictures
    that loop and hold their last frame for a second; a GIF has 256 colours. A single frame makes a still picture.

    Args:
        frames: uint8 ``[T, H, W, 3]``.
        path: path of the file.
        fps: frames per second; in GIF and WebP at most 50.

    Raises:
        InputError: if the name does not end in .mp4, .gif or .webp, or its folder is missing.
    """
    check_video_path(path)
    path = Path(path)
    write_whole(path, lambda part: WRITERS[path.suffix.lower()](frames, part, fps))


def _write_mp4(frames: np.ndarray, path: Path, fps: float) -> None:
    import av

    height, width = frames.shape[1:3]
    with av.open(str(path), "w", format="mp4", container_options={"movflags": "faststart"}) as file:
        stream = file.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000), options={"crf": "20"})
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        for frame in frames:
            even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            file.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
        file.mux(stream.encode())


def _write_gif(frames: np.ndarray, path: Path, fps: float) -> None:
    sampled = frames[:: math.ceil(len(frames) / PALETTE_FRAMES)]
    palette = Image.fromarray(np.concatenate(sampled)).quantize(256)  # shared by all frames, or colours would flicker
    colours = np.array(palette.getpalette()).reshape(-1, 3)
    colours[(colours >= NEARLY_WHITE).all(1)] = WHITE
    palette.putpalette(colours.flatten().tolist())
    first, *others = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    durations = _durations(len(frames), fps)
    first.save(path, format="gif", save_all=True, append_images=others, duration=durations, loop=0)


def _write_webp(frames: np.ndarray, path: Path, fps: float) -> None:
    first, *others = [Image.fromarray(frame) for frame in frames]
    still = {"quality": WEBP_QUALITY}
    moving = {"save_all": True, "append_images": others, "duration": _durations(len(frames), fps), "loop": 0}
    first.save(path, format="webp", **still, **(moving if others else {}))


def _durations(frames: int, fps: float) -> list[int]:
    """Return how long each frame of an animation is shown, in milliseconds."""
    return [10 * max(SHORTEST, round(100 / fps))] * (frames - 1) + [10 * LAST_FRAME]


WRITERS = {".mp4": _write_mp4, ".gif": _write_gif, ".webp": _write_webp}
