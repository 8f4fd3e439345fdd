"""The files in a run directory that commands write and print the paths of."""

from pathlib import Path

from metarl.config import TrainConfig
from metarl.config_file import config_hash
from metarl.evaluation import AdaptationCurve
from metarl.figures import draw_adaptation_curve
from metarl.files import write_json
from metarl.run_directory import RunDirectory
from metarl.tracking.tracking import where_tracked


def save_evaluation(
    directory: RunDirectory, config: TrainConfig, curve: AdaptationCurve, iteration: int, seed: int, out: RunDirectory
) -> None:
    """Write the numbers and the adaptation curve of an evaluation of a run.

    Args:
        directory: of the run.
        config: of the run.
        curve: what was measured.
        iteration: iterations that the learner had been trained for.
        seed: of environments and actions.
        out: the folder to write into, mostly the run's own.
    """
    picture, numbers = evaluation_files(out, curve)
    record = {
        "learner": config.learner,
        "family": config.family,
        "preset": config.preset,
        "horizon": config.make_family().horizon,
        "split_hash": config.split().fingerprint(),
        "config_hash": config_hash(directory.read_config()),
        "device": config.run.device,
        "iteration": iteration,
        "seed": seed,
    }
    write_json(numbers, {**record, **curve.to_json()})
    draw_adaptation_curve(curve, picture, f"{config.learner} on {config.family} ({config.preset})")


def evaluation_files(directory: RunDirectory, curve: AdaptationCurve) -> tuple[Path, Path]:
    """Return the picture and the numbers of an evaluation; those on test tasks have the plain names."""
    return directory.evaluated("" if curve.part == "test" else curve.part)


def list_files(directory: RunDirectory, curve: AdaptationCurve | None = None) -> str:
    """Return the paths of what there is to look at, after an evaluation or a training, one a line."""
    picture, numbers = evaluation_files(directory, curve) if curve else (directory.curve, directory.evaluation)
    found = [("picture", picture), ("numbers", numbers), ("metrics", directory.metrics)]
    lines = [f"{name:<10}{path}" for name, path in found if path.exists()]
    return "\n".join(lines + where_tracked(directory.path))
