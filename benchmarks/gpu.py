"""All measurements on a GPU, in a few calls; the results of each part are written as soon as it is done.

    python benchmarks/gpu.py --out $OUT                     # on the GPU: tests, stepping, then two learners
    python benchmarks/gpu.py --out $OUT --parts learners    # one part
    python benchmarks/gpu.py --out /tmp/x --device cpu --tiny --parts stepping learners    # a rehearsal without one

- ``tests``: ``pytest -m gpu``; its output is in tests.txt.
- ``stepping``: benchmarks/env_steps.py, every family with several numbers of worlds; in stepping.json.
- ``learners``: iterations on HalfCheetahVel of MAML-TRPO (20 tasks x 20 episodes x 100 steps before and after
  adaptation, and the published 40 x 20 x 200) and of RL², and of RL² on GridNavi at the published size: seconds of
  sampling, adaptation and update, medians after two warm-up iterations, and the peak memory; in learners.json.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

import metarl
from metarl.agents.gradient.maml_trpo import MamlTrpoConfig
from metarl.agents.in_context.rl2 import Rl2Config
from metarl.devices.choice import resolve_device
from metarl.experiments.published import varibad_gridnavi

ROOT = Path(__file__).parents[1]
PARTS = ("tests", "stepping", "learners")
WARM_UP, MEASURED = 2, 5
Case = tuple[str, str, int, int, int | None, Any]


def cases(tiny: bool) -> dict[str, Case]:
    """Return learner, family, tasks, episodes of each, horizon and settings of what is measured, by name."""
    if tiny:
        return {
            "maml-trpo": ("maml-trpo", "half-cheetah-vel", 2, 2, 5, MamlTrpoConfig(hidden_sizes=(4,))),
            "rl2": ("rl2", "gridnavi", 2, 2, 5, Rl2Config(hidden_size=4)),
        }
    published = varibad_gridnavi.EXPERIMENT.run
    return {
        "maml-trpo 80,000 steps": ("maml-trpo", "half-cheetah-vel", 20, 20, 100, MamlTrpoConfig()),
        "maml-trpo published": ("maml-trpo", "half-cheetah-vel", 40, 20, 200, MamlTrpoConfig()),
        "rl2 half-cheetah-vel": ("rl2", "half-cheetah-vel", 40, 4, 200, Rl2Config(hidden_size=128)),
        "rl2 gridnavi": (
            "rl2",
            "gridnavi",
            published.tasks_per_batch,
            published.episodes_per_task,
            None,
            Rl2Config(episodes_per_trial=varibad_gridnavi.EXPERIMENT.settings.episodes_per_trial),
        ),
    }


def seconds(work: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Return how long work takes, including the device's last kernel, and what it returns."""
    began = time.perf_counter()
    done = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began, done


def measure(case: Case, device: torch.device) -> dict[str, float]:
    """Return medians of the parts of an iteration, in seconds, its env steps, and the peak memory in MiB."""
    name, family, tasks, episodes, horizon, settings = case
    config = metarl.TrainConfig(name, family, metarl.RunConfig(device=str(device), horizon=horizon), settings)
    learner, sampler, split = config.make_learner(), metarl.Sampler(config.make_family(), device), config.split()
    spent: dict[str, list[float]] = {"sampling": [], "adaptation": [], "update": []}
    steps = 0
    for iteration in range(WARM_UP + MEASURED):
        session = sampler.session(learner, split.train_tasks(tasks, iteration), episodes)
        rollouts, sampling, adaptation = [], 0.0, 0.0
        for step in range(learner.inner_steps + 1):
            if step:
                adaptation += seconds(session.adapt, device)[0]
            took, rollout = seconds(partial(sampler.run, session, 100 * iteration + step), device)
            sampling += took
            rollouts.append(rollout)
        update, _ = seconds(partial(learner.update, rollouts), device)
        for part, value in (("sampling", sampling), ("adaptation", adaptation), ("update", update)):
            spent[part].append(value)
        steps = sum(rollout.env_steps for rollout in rollouts)
    medians = {part: statistics.median(values[WARM_UP:]) for part, values in spent.items()}
    total = sum(medians.values())
    memory = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else 0.0
    return {
        **medians,
        "iteration": total,
        "env steps": steps,
        "env steps per second": steps / total,
        "sampled per second": steps / medians["sampling"],
        "memory [MiB]": memory,
    }


def tests(out: Path, options: argparse.Namespace) -> None:
    """Run the tests that need a GPU."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "--durations=10"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    (out / "tests.txt").write_text(done.stdout + done.stderr)
    print(done.stdout[-3000:], flush=True)


def stepping(out: Path, options: argparse.Namespace) -> None:
    """Measure stepping."""
    command = [sys.executable, "benchmarks/env_steps.py", "--device", options.device, "--out", str(out / "stepping")]
    if options.tiny:
        command += ["--worlds", "32", "--families", "navigation-2d"]
    subprocess.run(command, cwd=ROOT, check=True)


def learners(out: Path, options: argparse.Namespace) -> None:
    """Measure learners."""
    device = resolve_device(options.device)
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    found: dict[str, Any] = {"machine": machine, "torch": torch.__version__, "learners": {}}
    for name, case in cases(options.tiny).items():
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        found["learners"][name] = row = measure(case, device)
        print(f"{name:<26}" + "  ".join(f"{key} {value:,.4g}" for key, value in row.items()), flush=True)
        (out / "learners.json").write_text(json.dumps(found, indent=1) + "\n")


def main() -> None:
    """Run the parts one after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--tiny", action="store_true", help="sizes at which nothing is measured, to try the program")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for part in options.parts:
        {"tests": tests, "stepping": stepping, "learners": learners}[part](options.out.resolve(), options)


if __name__ == "__main__":
    main()
