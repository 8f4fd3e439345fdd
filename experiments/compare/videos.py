"""The videos of a comparison: each learner's episodes of the first task before and after adaptation."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

from metarl.evaluation.recording import record_run, task_text
from metarl.evaluation.video import write_video
from metarl.experiments.compare.comparison import Comparison, Entry
from metarl.experiments.compare.figures import slug

MOST_FRAMES = 60


@dataclass(frozen=True)
class Video:
    """A GIF in the report's folder, with alternative text."""

    name: str
    alt: str
    caption: str


def record_video(comparison: Comparison, entry: Entry, folder: Path) -> Video:
    """Record an episode of the first task before adaptation and one after the last step, with the entry's first run.

    Raises:
        InputError: if this machine cannot render.
    """
    run, task, protocol = entry.runs[0], comparison.tasks[:1], comparison.protocol
    recording = record_run(
        run.config,
        run.learner,
        task,
        entry.last,
        protocol.episodes if run.learner.pools_episodes else None,  # None is the run's default
        protocol.seed,
        protocol.deterministic,
        shown=(0, entry.last),
    )
    frames = replace(recording, title=f"{entry.label} on {recording.title}").frames()
    stride = math.ceil(len(frames) / MOST_FRAMES)
    kept = [*range(0, len(frames) - 1, stride), len(frames) - 1]
    name = f"behaviour-{slug(entry.label)}.gif"
    write_video(frames[kept], folder / name, recording.fps / stride)
    returns = ", ".join(f"{take.label} return {take.returns[-1]:.2f}" for take in recording.takes)
    alt = f"{entry.label} on {run.config.family_name}, {task_text(task[0])}: an episode each, {returns}."
    return Video(name, alt, f"{entry.label}, seed {run.config.run.seed}: {returns}.")
