"""Learning curves of MAML-TRPO with the floor under a task's standard deviation of advantages, and without it.

    python benchmarks/deviation_floor.py

On four rooms and random mazes most tasks give no information at the start; 2D navigation, GridNavi and HalfCheetahVel
(0-2, 100 steps) are trained with the settings of docs/learning-results.md, HalfCheetahVel for an eighth of its
iterations. Three seeds each, evaluated on held-out tasks three times during training. Only ``deviation_floor``
differs, in training and in the evaluated adaptation. Measurements are kept beside the runs and never repeated, so
several processes can share the work with ``--only``. Finished runs are written; docs/adaptation.md has the result.
"""

import argparse
import dataclasses
import itertools
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from pydantic import TypeAdapter

from metarl.agents.gradient.maml_trpo import MamlTrpoConfig
from metarl.experiments.compare.figures import COLORS
from metarl.experiments.learning.comparisons import COMPARISONS
from metarl.experiments.learning.curve import NOTES, measure_run
from metarl.experiments.learning.records import SeedRun, read_run
from metarl.experiments.learning.variant import Variant
from metarl.learning.trust_region import TrustRegionConfig
from metarl.numerics.statistics import interval, mean
from metarl.rollouts.returns import DEVIATION_FLOOR
from metarl.run.config import RunConfig, TrainConfig

RESULTS = Path(__file__).parent / "results" / "deviation_floor.json"
PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "deviation-floor.png"
SEEDS, TASKS, KEPT = (1, 2, 3), 40, (1, 2, 3)
FLOORS = {"with the floor": DEVIATION_FLOOR, "without": 0.0}
SETTINGS = MamlTrpoConfig(inner_lr=3.0, trust_region=TrustRegionConfig(max_kl=0.05))
CHEETAH = COMPARISONS["half-cheetah-vel"]["maml-trpo"].config
CONFIGS = {
    "four-rooms": TrainConfig("maml-trpo", "four-rooms", RunConfig(60), SETTINGS),
    "random-mazes": TrainConfig("maml-trpo", "random-mazes", RunConfig(45), SETTINGS),
    "navigation-2d": COMPARISONS["navigation-2d"]["maml-trpo"].config,
    "gridnavi": COMPARISONS["gridnavi"]["maml-trpo"].config,
    "half-cheetah-vel": dataclasses.replace(CHEETAH, run=dataclasses.replace(CHEETAH.run, iterations=100)),
}
VARIANTS = {family: Variant(config, steps=3, evaluations=3) for family, config in CONFIGS.items()}


def place(runs: Path, family: str, label: str, seed: int) -> Path:
    """Return the directory of a run."""
    return runs / f"{family}-{label.replace(' ', '-')}-seed{seed}"


def measure(family: str, label: str, seed: int, runs: Path) -> SeedRun:
    """Train and evaluate one run."""
    variant = VARIANTS[family]
    out = str(place(runs, family, label, seed))
    run = dataclasses.replace(variant.config.run, seed=seed, out=out, track="disabled")
    tasks = len(variant.config.split().held_out_tasks("test", TASKS))
    settings = dataclasses.replace(variant.config.settings, deviation_floor=FLOORS[label])
    return measure_run(dataclasses.replace(variant.config, run=run, settings=settings), variant, tasks)


def finished(runs: Path) -> dict[str, dict[str, list[SeedRun]]]:
    """Return the runs of each family, with the floor and without it, that have finished."""
    found: dict[str, dict[str, list[SeedRun]]] = {}
    for family, variant in VARIANTS.items():
        for label in FLOORS:
            each = [read_run(place(runs, family, label, seed) / NOTES) for seed in SEEDS]
            last = variant.config.run.iterations
            whole = [run for run in each if run is not None and run.points[-1].iteration == last]
            found.setdefault(family, {})[label] = whole
    return found


def read(path: Path = RESULTS) -> dict[str, dict[str, list[SeedRun]]]:
    """Return what was committed, as ``finished`` does."""
    return TypeAdapter(dict[str, dict[str, list[SeedRun]]]).validate_json(path.read_bytes())


def table(path: Path = RESULTS) -> str:
    """Return the returns on held-out tasks at the end of training, and what the floor changed, as a Markdown table."""
    steps = [0, *KEPT]
    after = " | ".join(f"after {step} steps" if step > 1 else "after 1 step" for step in KEPT)
    lines = [f"| family | | seeds | before adaptation | {after} |", "|---|---|---|---|" + "---|" * len(KEPT)]
    for family, labels in read(path).items():
        both = min(map(len, labels.values()))
        if both == 0:
            continue
        scores = {label: np.array([run.final_returns for run in runs]) for label, runs in labels.items()}
        with_it, without = (scores[label][:both] for label in FLOORS)
        rows = {**scores, "difference": with_it - without}
        for label, each in rows.items():
            cells = " | ".join(said(each[:, :, step]) for step in steps)
            lines.append(f"| {family if label == 'with the floor' else ''} | {label} | {len(each)} | {cells} |")
    return "\n".join(lines)


def said(scores: np.ndarray) -> str:
    """Return the mean of scores ``[seeds, tasks]`` with its 95 % interval; of a single seed only the mean."""
    if len(scores) == 1:
        return f"{scores.mean():z.2f}"
    estimate, low, high = (value.item() for value in interval(mean, scores))
    return f"{estimate:z.2f} [{low:z.2f}, {high:z.2f}]"


def draw(path: Path = PICTURE) -> None:
    """Draw the return on held-out tasks after each step of adaptation in the course of training."""
    content = {family: labels for family, labels in read().items() if min(map(len, labels.values())) > 0}
    figure = Figure(figsize=(12, 7), dpi=90, layout="constrained")
    for axes, (family, labels) in zip(figure.subplots(2, 3).flat, content.items(), strict=False):
        both = min(map(len, labels.values()))
        for (label, every), color in zip(labels.items(), COLORS, strict=False):
            runs = every[:both]
            iterations = [point.iteration for point in runs[0].points]
            for step, style in zip((1, 3), ("-", "--"), strict=True):
                returns = np.array([[point.returns[step] for point in run.points] for run in runs])
                what = f"{label}, {step} step{'s' if step > 1 else ''}"
                axes.plot(iterations, returns.mean(0), style, color=color, marker="o", markersize=4, label=what)
                axes.fill_between(iterations, returns.min(0), returns.max(0), color=color, alpha=0.12, linewidth=0)
        axes.set_title(f"{family}: mean and range of {len(runs)} seed{'s' if len(runs) > 1 else ''}", fontsize=10)
        axes.set_xlabel("iterations of training")
    for axes in figure.axes[len(content) :]:
        axes.remove()
    figure.axes[0].set_ylabel("return on held-out tasks")
    figure.axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, format="png")


def main() -> None:
    """Measure, seed by seed, and write the finished runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/deviation-floor"), help="folder of the run directories")
    parser.add_argument("--only", choices=VARIANTS, help="measure one family")
    parser.add_argument("--no-training", action="store_true", help="only write what was measured before")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for seed, family, label in itertools.product(SEEDS, [options.only] if options.only else VARIANTS, FLOORS):
        if not options.no_training:
            print(f"{family}, {label}, seed {seed}", flush=True)
            measure(family, label, seed, options.runs)
    content = TypeAdapter(dict[str, dict[str, list[SeedRun]]]).dump_json(finished(options.runs))
    RESULTS.write_bytes(content + b"\n")
    draw()
    print(table())


if __name__ == "__main__":
    main()
