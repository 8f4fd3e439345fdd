"""Duration of a MAML-TRPO iteration, relative to the bare physics of the same steps in the same process.

    python benchmarks/maml_trpo_iteration.py

HalfCheetahVel, by default 20 tasks x 20 episodes x 100 steps x 2 phases, 64-64 tanh: 80,000 env steps. "Bare" is
mujoco.batch.Batch stepping 400 half-cheetahs as often (frame skip 5) under random controls, with nothing else and
with MuJoCo's profiler on, as the package comes; metarl turns that off, unless ``--without profiler`` says otherwise.
The three alternate, round after round, and medians and ratios of medians are printed: absolute times depend on the
machine and on its neighbours. ``--without`` turns off one of the optimisations that docs/performance.md names.
"""

import argparse
import json
import os
import resource
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import metarl  # isort: skip (before torch, whose idle workers then give up early)

import numpy as np
import torch
from mujoco.batch import Batch

import metarl.envs.simulation.batched
import metarl.sampling.sampler
from metarl.agents.gradient.maml_trpo import MamlTrpoConfig
from metarl.devices.native import SWITCH
from metarl.devices.runtime import keep_freed_memory
from metarl.envs.simulation.batched import gymnasium_model
from metarl.networks.activations import ACTIVATIONS
from metarl.run.config import RunConfig, TrainConfig
from metarl.sampling.sampler import Sampler

EPISODES, FRAME_SKIP = 20, 5
WITHOUT = ("compiled", "malloc", "profiler", "tanh", "threads")


def bare_physics(tasks: int, horizon: int) -> Callable[[int], None]:
    """Return a function that steps the physics of one iteration."""
    batch = Batch(gymnasium_model("half_cheetah"), tasks * EPISODES)
    qpos, ctrl = batch.bind("qpos"), batch.bind("ctrl")
    controls = np.random.default_rng(0).uniform(-1, 1, (horizon, *ctrl.shape))

    def steps(seed: int) -> None:
        for _ in range(2):
            batch.reset()
            qpos[:] += np.random.default_rng(seed).uniform(-0.1, 0.1, qpos.shape)
            for step in range(horizon):
                ctrl[:] = controls[step]
                batch.step(nstep=FRAME_SKIP)

    return steps


def measure(rounds: int, fraction: float, tasks: int, horizon: int) -> dict[str, float]:
    """Time bare physics, sampling alone and whole iterations alternately; return medians in seconds."""
    settings = MamlTrpoConfig(curvature_fraction=fraction)
    config = TrainConfig("maml-trpo", "half-cheetah-vel", RunConfig(preset="0-2-h100", horizon=horizon), settings)
    learner, split, sampler = config.make_learner(), config.split(), Sampler(config.make_family())
    physics = bare_physics(tasks, horizon)

    def sampling(seed: int) -> None:
        for _ in range(2):
            sampler.collect(learner, learner.begin(tasks), split.train_tasks(tasks, seed), EPISODES, seed)

    def iteration(seed: int) -> None:
        drawn, state = split.train_tasks(tasks, seed), learner.begin(tasks)
        support = sampler.collect(learner, state, drawn, EPISODES, seed)
        query = sampler.collect(learner, learner.adapt(state, support), drawn, EPISODES, seed + 1)
        learner.update([support, query])

    times: dict[str, list[float]] = {"bare physics": [], "sampling": [], "iteration": []}
    for seed in range(rounds + 1):
        for name, work in (("bare physics", physics), ("sampling", sampling), ("iteration", iteration)):
            began = time.perf_counter()
            work(seed)
            if seed > 0:  # the first round warms up
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--horizon", type=int, default=100)
    parser.add_argument("--curvature-fraction", type=float, default=0.25)
    parser.add_argument("--json", type=Path, help="also write the numbers there")
    parser.add_argument("--without", nargs="*", choices=WITHOUT, default=[])
    options = parser.parse_args()
    if min(options.rounds, options.tasks) < 1:
        parser.error("--rounds and --tasks must be at least 1")
    if "malloc" not in options.without:
        keep_freed_memory()
    if "threads" in options.without:
        vars(metarl.sampling.sampler)["single_torch_thread"] = nullcontext
    if "tanh" in options.without:
        ACTIVATIONS["tanh"] = torch.tanh
    if "profiler" in options.without:
        vars(metarl.envs.simulation.batched)["unprofiled"] = nullcontext
    if "compiled" in options.without:
        os.environ[SWITCH] = "0"
    medians = measure(options.rounds, options.curvature_fraction, options.tasks, options.horizon)
    bare = medians["bare physics"]
    print(f"{options.tasks * EPISODES * options.horizon * 2:,} env steps, {torch.get_num_threads()} torch threads")
    for name, seconds in medians.items():
        print(f"{name:<14}{seconds:8.3f} s   {seconds / bare:5.2f} x bare physics")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory   {peak:8.0f} MiB")
    if options.json:
        options.json.write_text(json.dumps({**medians, "peak_mib": peak}, indent=2) + "\n")


if __name__ == "__main__":
    main()
