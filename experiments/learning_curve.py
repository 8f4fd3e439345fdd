"""Adaptation on held-out tasks while training goes on: the curve behind every learning claim in the docs.

    python experiments/learning_curve.py navigation-2d --out experiments/results

Each variant is trained with every seed, stopped at even intervals, evaluated on the same 40 test tasks, and resumed.
All evaluations are reported; none of them steers anything. Writes NAME.json and NAME.png.
"""

import dataclasses
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from matplotlib.figure import Figure

from metarl.config import TrainConfig
from metarl.errors import InputError
from metarl.evaluation import evaluate
from metarl.experiments import maml_half_cheetah_vel, maml_navigation_2d
from metarl.experiments.cli import guarded, parse
from metarl.family import find_by_name
from metarl.run_directory import RunDirectory, write_json, write_whole
from metarl.training import resume, train

NAVIGATION, CHEETAH = maml_navigation_2d.EXPERIMENT, maml_half_cheetah_vel.EXPERIMENT
VARIANTS = {
    "navigation-2d": {
        "curvature on 1/4 of the episodes": NAVIGATION,
        "curvature on all episodes": dataclasses.replace(
            NAVIGATION, settings=dataclasses.replace(NAVIGATION.settings, curvature_fraction=1.0)
        ),
    },
    "half-cheetah-vel": {
        "horizon 100, 20 tasks": dataclasses.replace(
            CHEETAH, run=dataclasses.replace(CHEETAH.run, preset="0-2-h100", tasks_per_batch=20)
        ),
    },
}


@dataclass(frozen=True)
class Options:
    """Measure adaptation on held-out tasks while training goes on."""

    name: tyro.conf.Positional[str]
    """navigation-2d or half-cheetah-vel."""
    seeds: tuple[int, ...] = (1, 2, 3)
    """Training runs of each variant."""
    iterations: int = 100
    """Outer updates of each run."""
    every: int = 10
    """Iterations between evaluations."""
    tasks: int = 40
    """Test tasks of each evaluation."""
    out: str = "experiments/results"
    """Folder of the two files."""

    def __post_init__(self) -> None:
        if not self.seeds:
            raise InputError("a learning curve needs at least one seed")
        for name in ("every", "tasks"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.iterations < self.every:
            raise InputError(f"iterations ({self.iterations}) must be at least every ({self.every}): one evaluation")


def measure_run(config: TrainConfig, options: Options, folder: str) -> dict[str, Any]:
    """Train one run in stages; return what each evaluation gave, and the CPU seconds that training took."""
    points: list[dict[str, float]] = []
    seconds = 0.0
    for iterations in range(options.every, options.iterations + 1, options.every):
        began = time.process_time()
        if points:
            resume(folder, iterations)
        else:
            run = dataclasses.replace(config.run, iterations=iterations, out=folder, track="disabled")
            train(dataclasses.replace(config, run=run))
        seconds += time.process_time() - began
        curve = evaluate(folder, options.tasks, steps=1)
        env_steps = int(RunDirectory(folder).read_metrics()[-1]["env_steps"])
        before, after = curve.returns.mean(0).tolist()
        low, high = curve.interval(curve.returns[:, 1])
        points.append(
            {"iteration": iterations, "env_steps": env_steps, "before": before, "after": after}
            | {"after_low": low, "after_high": high, "training_cpu_seconds": seconds}
        )
        print(f"  iteration {iterations}: {before:.2f} before, {after:.2f} after [{low:.2f}, {high:.2f}]", flush=True)
    return {"seed": config.run.seed, "points": points}


def draw(record: dict[str, Any], path: Path) -> None:
    """Draw return after one adaptation step against training env steps: the mean over seeds, and each seed."""
    figure = Figure(figsize=(7, 4.5), dpi=150, layout="constrained")
    axes = figure.subplots()
    for color, (name, runs) in zip(("tab:blue", "tab:orange"), record["variants"].items(), strict=False):
        steps = np.array([point["env_steps"] for point in runs[0]["points"]]) / 1e6
        for key, style in (("after", "-"), ("before", ":")):
            seeds = np.array([[point[key] for point in run["points"]] for run in runs])
            axes.plot(steps, seeds.mean(0), style, color=color, linewidth=2, label=f"{name}: {key} adaptation")
            axes.fill_between(steps, seeds.min(0), seeds.max(0), color=color, alpha=0.2, linewidth=0)
    axes.set_xlabel("training env steps (millions)")
    axes.set_ylabel(f"return on {record['tasks']} held-out tasks")
    axes.set_title(f"MAML-TRPO on {record['name']}: mean and range of {len(runs)} seeds", loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    write_whole(path, lambda part: figure.savefig(part, format="png"))


def run(options: Options) -> None:
    """Measure every variant with every seed."""
    chosen = find_by_name(VARIANTS, options.name, "learning curve", "--help")
    out = Path(options.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {out}: {error.strerror}; choose another --out") from None
    variants: dict[str, Any] = {}
    for variant, config in chosen.items():
        variants[variant] = []
        for seed in options.seeds:
            print(f"{variant}, seed {seed}", flush=True)
            seeded = dataclasses.replace(config, run=dataclasses.replace(config.run, seed=seed))
            with tempfile.TemporaryDirectory() as folder:
                variants[variant].append(measure_run(seeded, options, folder))
    first = next(iter(chosen.values()))
    record = {
        "command": f"python experiments/learning_curve.py {' '.join(sys.argv[1:])}",
        "name": options.name,
        "tasks": options.tasks,
        "torch_threads": torch.get_num_threads(),
        "config": first.to_json(),
        "variants": variants,
    }
    write_json(out / f"{options.name}.json", record)
    draw(record, out / f"{options.name}.png")


if __name__ == "__main__":
    sys.exit(guarded(lambda: run(parse(Options, "learning_curve.py", sys.argv[1:]))))
