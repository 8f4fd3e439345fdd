"""The sampler against EnvPool, and random bodies against the fixed body, in env steps per CPU-second.

    pip install envpool==1.2.5 && python benchmarks/mujoco_sampling.py

512 worlds, episodes of 200 steps, actions drawn at random. Ours is ``Sampler.collect`` with everything it does: drawing
the actions and their distribution, rewards, observations, storage; it counts the steps inside episodes, which end when
a body falls. EnvPool's is ``step`` under actions drawn beforehand, counting the steps that are not resets, on as many
threads as there are cores; its version 4 environments do not compute contact forces (``--envpool-version v5`` does).
The two take turns in one process, round after round. Medians by CPU time (user and system of the whole process, so
that threads count) and by wall time are printed.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import metarl  # noqa: F401 (registers the families)
from metarl.devices.runtime import keep_freed_memory
from metarl.families.family import make_family
from metarl.learning.learner import Actor
from metarl.numerics.distributions import DiagonalGaussian
from metarl.sampling.sampler import Sampler
from metarl.seeding import generator

TASKS, EPISODES, HORIZON = 32, 16, 200
WORLDS = TASKS * EPISODES
AGAINST_ENVPOOL = {
    "half-cheetah-vel": "HalfCheetah",
    "ant-vel": "Ant",
    "walker2d-vel": "Walker2d",
    "humanoid-dir": "Humanoid",
}
AGAINST_FIXED = {"hopper-rand-params": "hopper-vel", "walker2d-rand-params": "walker2d-vel"}
Steps = Callable[[int], int]


class RandomActor(Actor):
    """Draws standard normal actions, whatever it observes."""

    def __init__(self, actions: int) -> None:
        self._actions = actions

    def act(
        self, working: Any, observations: Tensor, generator: torch.Generator, deterministic: bool = False
    ) -> tuple[Tensor, DiagonalGaussian]:
        """Return actions ``[N, E, A]`` and their distribution."""
        zeros = torch.zeros(*observations.shape[:2], self._actions)
        distribution = DiagonalGaussian(zeros, zeros)
        return distribution.sample(generator), distribution


def ours(name: str, **settings: Any) -> Steps:
    """Return a function of a seed that samples 512 episodes and returns their steps."""
    family = make_family(name, **settings)
    sampler, tasks = Sampler(family), family.sample_tasks(TASKS, generator(0, "tasks"))
    actor = RandomActor(int(np.prod(family.action_space.shape or ())))
    return lambda seed: sampler.collect(actor, None, tasks, EPISODES, seed).env_steps


def envpools(env_id: str) -> Steps:
    """Return a function that takes 200 steps in 512 EnvPool environments and counts those that were not resets."""
    import envpool

    env = envpool.make(
        env_id, env_type="gymnasium", num_envs=WORLDS, num_threads=os.cpu_count(), max_episode_steps=HORIZON
    )
    env.reset()
    high, shape = env.action_space.high[0], (HORIZON, WORLDS, *env.action_space.shape)

    def work(seed: int) -> int:
        drawn = np.clip(np.random.default_rng(seed).standard_normal(shape), -1, 1) * high
        resets = 0
        for actions in drawn:
            _, _, terminated, truncated, _ = env.step(actions)
            resets += int((terminated | truncated).sum())
        return HORIZON * WORLDS - resets

    return work


def compare(first: Steps, second: Steps, rounds: int) -> dict[str, float]:
    """Time two functions alternately; return the medians of their steps per CPU-second and per second."""
    figures: dict[str, list[float]] = {name: [] for name in ("cpu 1", "wall 1", "cpu 2", "wall 2")}
    for seed in range(rounds + 1):
        for number, work in ((1, first), (2, second)):
            cpu, wall = time.process_time(), time.perf_counter()
            steps = work(seed)
            if seed > 0:  # the first round warms up
                figures[f"cpu {number}"].append(steps / (time.process_time() - cpu))
                figures[f"wall {number}"].append(steps / (time.perf_counter() - wall))
    return {name: statistics.median(values) for name, values in figures.items()}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--envpool-version", choices=["v4", "v5"], default="v4")
    parser.add_argument("--json", type=Path, help="also write the numbers there")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    if find_spec("envpool") is None:
        parser.error("EnvPool is not installed; pip install envpool==1.2.5")
    keep_freed_memory()
    results: dict[str, dict[str, float]] = {}
    print(f"{'':<52}{'steps per CPU-second':^28}{'ratio':>8}{'wall ratio':>12}")
    pairs = [
        *((name, f"EnvPool {env}-{options.envpool_version}") for name, env in AGAINST_ENVPOOL.items()),
        *AGAINST_FIXED.items(),
    ]
    for name, other in pairs:
        if other.startswith("EnvPool"):
            second = envpools(other.split()[1])
        else:
            # The same time step for both bodies.
            frame_skip = {"substeps": 5} if other == "walker2d-vel" else {}
            second = ours(other, **frame_skip)
        row = compare(ours(name), second, options.rounds)
        results[f"{name} / {other}"] = row
        print(
            f"{name:<22} against {other:<21}{row['cpu 1']:>14,.0f}{row['cpu 2']:>14,.0f}"
            f"{row['cpu 1'] / row['cpu 2']:>8.2f}{row['wall 1'] / row['wall 2']:>12.2f}",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
