"""The output of ``metarl evaluate``: a line about the run, and the table of returns by adaptation step."""

import numpy as np

from metarl.families.references import Reference
from metarl.numerics.statistics import conditional_value_at_risk
from metarl.run.adaptation_curve import AdaptationCurve
from metarl.run.config import TrainConfig
from metarl.run.directory import RunDirectory

# Maximum number of steps shown in the table.
MOST_ROWS = 12


def adaptation_table(curve: AdaptationCurve, reference: Reference | None = None) -> str:
    """Return the table of returns before adaptation, after each step, and the difference, with 95 % intervals.

    The last column but success is the mean of the worst 5 % of tasks.
    If there are many steps, some are shown, evenly spaced. In-context learners have a row for the return of the whole
    trial. If the family defines success, the success rate has its own column. Reference returns come last.
    """
    last = curve.returns.shape[1] - 1
    header = f"{'':<20}{'env steps per task':>20}{'mean return':>14}   "
    header += f"{'95 % interval over tasks':<26}{'CVaR 0.95':>10}"
    lines = [header + ("" if curve.success is None else "   success")]
    for step in sorted({round(step) for step in np.linspace(0, last, min(last + 1, MOST_ROWS))}):
        name, spent = f"after step {step}" if step else "before adaptation", f"{curve.env_steps[step]:,.0f}"
        rate = "" if curve.success is None else f"   {100 * curve.success[:, step].mean():.1f} %"
        lines.append(_row(curve, name, spent, curve.returns[:, step]) + rate)
    if last:
        lines.append(_row(curve, "difference", f"{curve.env_steps[-1]:,.0f}", curve.gains, "+"))
    if last and curve.of_trials:
        lines.append(_row(curve, "whole trial", "", curve.returns.sum(1)))
    lines += [f"{name:<40}{value:>14.2f}" for name, value in (reference.lines.items() if reference else ())]
    return "\n".join(line.rstrip() for line in lines)


def _row(curve: AdaptationCurve, name: str, spent: str, values: np.ndarray, sign: str = "") -> str:
    low, high = curve.interval(values)
    interval = f"[{low:z.2f}, {high:z.2f}]"
    worst = conditional_value_at_risk(values[None]).item()
    return f"{name:<20}{spent:>20}{values.mean():>{sign}z14.2f}   {interval:<26}{worst:>z10.2f}"


def describe_training(directory: RunDirectory, config: TrainConfig, iteration: int) -> str:
    """Return a line with learner, family and, if metrics.csv has it, the length of training."""
    what = f"{config.learner} on {config.family} ({config.preset}), seed {config.run.seed}"
    rows = directory.read_metrics()[:iteration]
    if not rows or len(rows) < iteration:
        return f"{what}, trained for {iteration} iterations"
    minutes = sum(float(row["time_iteration"]) for row in rows) / 60
    steps = int(rows[-1]["env_steps"])
    return f"{what}, trained for {iteration} iterations, {steps:,} env steps, {minutes:,.1f} min"
