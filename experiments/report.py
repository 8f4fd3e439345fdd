"""What a person reads after an evaluation: the table, and where the files are."""

from pathlib import Path

from metarl.config import TrainConfig
from metarl.evaluation import AdaptationCurve
from metarl.figures import draw_adaptation_curve
from metarl.run_directory import RunDirectory, write_json


def table(curve: AdaptationCurve) -> str:
    """Return the adaptation table: return before, after each step, and the difference, with 95 % intervals."""
    rows = [("before adaptation", curve.env_steps[0], curve.returns[:, 0])]
    for step in range(1, curve.returns.shape[1]):
        rows.append((f"after step {step}", curve.env_steps[step], curve.returns[:, step]))
    if len(rows) > 1:
        rows.append(("difference", curve.env_steps[-1], curve.gains))
    lines = [f"{'':<20}{'env steps per task':>20}{'mean return':>14}   95 % interval over tasks"]
    for name, spent, values in rows:
        low, high = curve.interval(values)
        sign = "+" if name == "difference" else ""
        lines.append(f"{name:<20}{spent:>20,.0f}{values.mean():>{sign}14.2f}   [{low:.2f}, {high:.2f}]")
    return "\n".join(lines)


def save_evaluation(
    directory: RunDirectory, config: TrainConfig, curve: AdaptationCurve, iteration: int, seed: int
) -> None:
    """Write evaluation.json and the adaptation curve into the run directory."""
    record = {
        "learner": config.learner,
        "family": config.family,
        "preset": config.preset,
        "horizon": config.make_family().horizon,
        "split_hash": config.split().fingerprint(),
        "iteration": iteration,
        "seed": seed,
    }
    write_json(directory.evaluation, {**record, **curve.to_json()})
    draw_adaptation_curve(curve, directory.curve, f"{config.learner} on {config.family} ({config.preset})")


def where(directory: RunDirectory, tracked: Path | None) -> str:
    """Return the paths of what there is to look at."""
    found = [("picture", directory.curve), ("numbers", directory.evaluation), ("metrics", directory.metrics)]
    lines = [f"{name:<10}{path}" for name, path in found if path.exists()]
    return "\n".join(lines + ([f"{'W&B run':<10}{tracked}"] if tracked else []))
