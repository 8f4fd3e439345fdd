"""The runs of a comparison side by side, each trained and evaluated by a process of its own."""

import sys
from collections.abc import Sequence
from pathlib import Path

from metarl.experiments.commands.seeds import Job
from metarl.run.config import TrainConfig
from metarl.run.directory import RunDirectory


def aside(label: str, config: TrainConfig, words: Sequence[str]) -> Job:
    """Return the job that trains and evaluates one run.

    Args:
        label: of the variant.
        config: of the run, with its seed and directory.
        words: arguments of ``learning/curve.py`` for the variant, without ``--seeds``.
    """
    directory, seed = RunDirectory(str(config.run.out)), str(config.run.seed)
    command = [sys.executable, "-m", "metarl.experiments.learning.curve", *words, "--seeds", seed, "--runs-only"]

    def progress() -> tuple[int, int]:
        return len(directory.read_metrics()), config.run.iterations

    log = Path(f"{directory.path}.log")
    return Job(f"{label}, seed {seed}", lambda device: command, log, progress)
