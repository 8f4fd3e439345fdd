"""The files that commands write to a run directory, and the list of their paths."""

from pathlib import Path
from typing import Any

from metarl.evaluation.figures import draw_adaptation_curve
from metarl.run.adaptation_curve import AdaptationCurve
from metarl.run.config import TrainConfig
from metarl.run.config_file import config_hash
from metarl.run.directory import RunDirectory
from metarl.storage.files import write_json
from metarl.tracking.tracking import where_tracked


def save_evaluation(
    directory: RunDirectory, config: TrainConfig, curve: AdaptationCurve, iteration: int, seed: int, out: RunDirectory
) -> None:
    """Write the results and the adaptation curve of an evaluation.

    Args:
        directory: directory of the run.
        config: configuration of the run.
        curve: the adaptation curve.
        iteration: number of iterations that the learner was trained for.
        seed: seed of environments and actions.
        out: the directory to write to, usually the run's own.
    """
    picture, numbers = evaluation_files(out, curve)
    write_json(numbers, describe_evaluation(directory, config, curve, iteration, seed))
    draw_adaptation_curve(curve, picture, f"{config.learner} on {config.family} ({config.preset})")


def describe_evaluation(
    directory: RunDirectory, config: TrainConfig, curve: AdaptationCurve, iteration: int, seed: int
) -> dict[str, Any]:
    """Return the content of an evaluation's file; arguments as ``save_evaluation``."""
    return {
        "learner": config.learner,
        "family": config.family,
        "preset": config.preset,
        "horizon": config.make_family().horizon,
        "split_hash": config.split_hash,
        "config_hash": config_hash(directory.read_config()),
        "device": config.run.device,
        "iteration": iteration,
        "seed": seed,
        **curve.to_json(),
    }


def evaluation_files(directory: RunDirectory, curve: AdaptationCurve) -> tuple[Path, Path]:
    """Return the paths of figure and results of an evaluation; on test tasks the names have no suffix."""
    return directory.evaluated("" if curve.part == "test" else curve.part)


def list_files(directory: RunDirectory, curve: AdaptationCurve | None = None) -> str:
    """Return the paths of the files to look at after an evaluation or a training run, one per line."""
    picture, numbers = evaluation_files(directory, curve) if curve else (directory.curve, directory.evaluation)
    found = [("picture", picture), ("numbers", numbers), ("metrics", directory.metrics)]
    lines = [f"{name:<10}{path}" for name, path in found if path.exists()]
    return "\n".join(lines + where_tracked(directory.path))
