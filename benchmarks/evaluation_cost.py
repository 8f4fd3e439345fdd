"""How long an evaluation takes, against the bare physics of the same steps in the same process.

    python benchmarks/evaluation_cost.py

``metarl.adaptation_curve`` of MAML-TRPO on HalfCheetahVel: by default 40 tasks, before adaptation and after each of 3
adaptation steps, 20 episodes x 100 steps each, 320,000 env steps. "Bare" is mujoco.batch.Batch stepping 800
half-cheetahs under exactly the actions of that evaluation, and nothing else. The two take turns, round after round;
medians and their ratio are printed and written: absolute times depend on the machine and on its neighbours.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mujoco.batch import Batch

from metarl.devices.runtime import keep_freed_memory
from metarl.envs.simulation.batched import gymnasium_model
from metarl.evaluation.evaluate import adaptation_curve
from metarl.rollouts.rollout import Rollout
from metarl.run.config import RunConfig, TrainConfig
from metarl.sampling.sampler import Sampler

RESULTS = Path(__file__).parent / "results" / "evaluation_cost.json"
FRAME_SKIP = 5


class RecordingSampler(Sampler):
    """A sampler that keeps the actions of its rollouts: ``[T, worlds, A]`` each."""

    actions: list[np.ndarray]

    def run(self, *arguments: Any, **options: Any) -> Rollout:
        """Run a round of a session, and keep the actions."""
        rollout = super().run(*arguments, **options)
        self.actions.append(rollout.actions.flatten(0, 1).transpose(0, 1).clamp(-1, 1).double().numpy())
        return rollout


def bare_physics(rollouts: list[np.ndarray]) -> None:
    """Step half-cheetahs with the controls ``[T, worlds, A]`` of each rollout."""
    batch = Batch(gymnasium_model("half_cheetah"), rollouts[0].shape[1])
    qpos, ctrl = batch.bind("qpos"), batch.bind("ctrl")
    for controls in rollouts:
        batch.reset()
        qpos[:] += np.random.default_rng(0).uniform(-0.1, 0.1, qpos.shape)
        for step in controls:
            ctrl[:] = step
            batch.step(nstep=FRAME_SKIP)


def measure(config: TrainConfig, tasks: int, steps: int, rounds: int) -> dict[str, float]:
    """Time evaluation and bare physics alternately; return the medians in seconds."""
    learner, sampler = config.make_learner(), RecordingSampler(config.make_family())
    held_out = config.split().held_out_tasks("test", tasks)
    times: dict[str, list[float]] = {"bare physics": [], "evaluation": []}
    for seed in range(rounds + 1):
        sampler.actions = []
        began = time.perf_counter()
        adaptation_curve(learner, sampler, held_out, steps, config.run.episodes_per_task, seed=seed)
        middle = time.perf_counter()
        bare_physics(sampler.actions)
        if seed > 0:  # the first round warms up
            times["evaluation"].append(middle - began)
            times["bare physics"].append(time.perf_counter() - middle)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=40)
    parser.add_argument("--steps", type=int, default=3, help="of adaptation")
    parser.add_argument("--episodes", type=int, default=20, help="of each task before and after each step")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the numbers are written")
    options = parser.parse_args()
    if min(options.tasks, options.episodes, options.rounds) < 1 or options.steps < 0:
        parser.error("--tasks, --episodes and --rounds must be at least 1, --steps at least 0")
    if not options.json.parent.is_dir():
        parser.error(f"--json: there is no folder {options.json.parent}")
    keep_freed_memory()
    run = RunConfig(preset="0-2-h100", episodes_per_task=options.episodes)
    seconds = measure(TrainConfig("maml-trpo", "half-cheetah-vel", run), options.tasks, options.steps, options.rounds)
    ratio = seconds["evaluation"] / seconds["bare physics"]
    settings = {key: getattr(options, key) for key in ("tasks", "steps", "episodes", "rounds")}
    print(f"{options.tasks} tasks, {options.steps} steps, {torch.get_num_threads()} torch threads")
    print(f"bare physics {seconds['bare physics']:.3f} s, evaluation {seconds['evaluation']:.3f} s, ratio {ratio:.2f}")
    threads = {"torch threads": torch.get_num_threads()}
    options.json.write_text(json.dumps({**settings, **threads, "seconds": seconds, "ratio": ratio}, indent=2) + "\n")


if __name__ == "__main__":
    main()
