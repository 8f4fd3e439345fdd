"""What a person reads after an evaluation: the table, and where the files are."""

from pathlib import Path

from metarl.config import TrainConfig
from metarl.evaluation import AdaptationCurve
from metarl.figures import draw_adaptation_curve
from metarl.run_directory import RunDirectory, write_json
from metarl.tracking import where_tracked


def table(curve: AdaptationCurve) -> str:
    """Return the adaptation table: return before, after each step, and the difference, with 95 % intervals.

    Where the family tells success, its rate stands in a column of its own.
    """
    columns = curve.returns.shape[1]
    rows = [("before adaptation" if step == 0 else f"after step {step}", step) for step in range(columns)]
    told = [(name, curve.env_steps[step], curve.returns[:, step], _rate(curve, step)) for name, step in rows]
    if columns > 1:
        told.append(("difference", curve.env_steps[-1], curve.gains, ""))
    header = f"{'':<20}{'env steps per task':>20}{'mean return':>14}   {'95 % interval over tasks':<26}"
    lines = [header + ("" if curve.success is None else "success")]
    for name, spent, values, rate in told:
        low, high = curve.interval(values)
        sign = "+" if name == "difference" else ""
        interval = f"[{low:.2f}, {high:.2f}]"
        lines.append(f"{name:<20}{spent:>20,.0f}{values.mean():>{sign}14.2f}   {interval:<26}{rate}")
    return "\n".join(line.rstrip() for line in lines)


def _rate(curve: AdaptationCurve, step: int) -> str:
    return "" if curve.success is None else f"{100 * curve.success[:, step].mean():.1f} %"


def save_evaluation(
    directory: RunDirectory, config: TrainConfig, curve: AdaptationCurve, iteration: int, seed: int
) -> None:
    """Write evaluation.json and the adaptation curve into the run directory; of other tasks, beside those."""
    picture, numbers = files_of(directory, curve)
    record = {
        "learner": config.learner,
        "family": config.family,
        "preset": config.preset,
        "horizon": config.make_family().horizon,
        "split_hash": config.split().fingerprint(),
        "iteration": iteration,
        "seed": seed,
    }
    write_json(numbers, {**record, **curve.to_json()})
    draw_adaptation_curve(curve, picture, f"{config.learner} on {config.family} ({config.preset})")


def files_of(directory: RunDirectory, curve: AdaptationCurve) -> tuple[Path, Path]:
    """Return the picture and the numbers of an evaluation."""
    return directory.evaluated("" if curve.part == "test" else curve.part)


def where(directory: RunDirectory, curve: AdaptationCurve | None = None) -> str:
    """Return the paths of what there is to look at, after an evaluation or a training."""
    picture, numbers = files_of(directory, curve) if curve else (directory.curve, directory.evaluation)
    found = [("picture", picture), ("numbers", numbers), ("metrics", directory.metrics)]
    lines = [f"{name:<10}{path}" for name, path in found if path.exists()]
    return "\n".join(lines + where_tracked(directory.path))
