"""Draws the pictures of docs/gallery.md: one of each task family, moving where that shows more.

With names of families it draws only those: ``python experiments/manual/gallery.py ant-goal gridnavi``.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from metarl.evaluation.recording import record
from metarl.evaluation.video import write_video
from metarl.experiments.commands.show_family import picture_tasks, start_frames
from metarl.families.family import FAMILIES, make_family
from metarl.families.pictures import side_by_side
from metarl.families.solved import SolvedFamily
from metarl.run.config import RunConfig, TrainConfig

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "pictures" / "gallery"
# Nothing moves in these until a policy is good at them: four tasks at the start of an episode show more.
STILL = ("bandit", "tabular-mdp", "metaworld")
SIZE = (240, 180)
FRAMES, FRAMES_PER_SECOND = 30, 10
SEED = 1


def main(names: Sequence[str]) -> None:
    """Draw families, all of them if no name is given."""
    FOLDER.mkdir(exist_ok=True)
    for name in names or list(FAMILIES):
        frames = still(name) if name.startswith(STILL) else moving(name)
        write_video(np.stack([fitted(frame) for frame in frames]), FOLDER / f"{name}.webp", FRAMES_PER_SECOND)


def moving(name: str) -> np.ndarray:
    """Return frames ``[T, H, W, 3]`` of an episode of the optimal policy, or of random actions if none is known."""
    solved = issubclass(FAMILIES[name], SolvedFamily)
    config = TrainConfig("optimal" if solved else "random", name, RunConfig(seed=SEED))
    family = config.make_family()
    frames = record(config.make_learner(), family, picture_tasks(family, 1, SEED), 0, 1, SEED).takes[0].frames
    return frames[:: max(1, len(frames) // FRAMES)][:FRAMES]


def still(name: str) -> np.ndarray:
    """Return one frame ``[1, H, W, 3]``: the starts of episodes in four tasks."""
    family = make_family(name)
    frames = start_frames(family, picture_tasks(family, 4, SEED), SEED)
    rows = [side_by_side(frames[start : start + 2], 2) for start in (0, 2)]
    return np.concatenate(rows)[None]


def fitted(frame: np.ndarray) -> np.ndarray:
    """Return a frame ``[H, W, 3]`` in the middle of a white picture of the gallery's size."""
    picture = Image.fromarray(frame)
    picture.thumbnail(SIZE, Image.Resampling.LANCZOS)
    paper = Image.new("RGB", SIZE, "white")
    paper.paste(picture, ((SIZE[0] - picture.width) // 2, (SIZE[1] - picture.height) // 2))
    return np.asarray(paper)


if __name__ == "__main__":
    main(sys.argv[1:])
