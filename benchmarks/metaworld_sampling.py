"""Meta-World's batched worlds against the package's own vector environment and against bare physics.

    python benchmarks/metaworld_sampling.py

200 worlds of ML10's training environments, 20 of each, under the same random actions, in one process on two threads:

- ours: ``TaskVectorEnv.step``, with observations, rewards and success;
- package: the ``SyncVectorEnv`` that ``metaworld.make_ml_envs`` makes;
- physics: nothing but the mocap body, the gripper's effort and five calls of ``mj_step``, on ``mujoco.batch``.

The three take turns, round after round, each from a reset that is not counted. Printed are medians of env steps per
CPU-second (user and system of the whole process, so that threads count) and per second; and, apart, what a reset costs.
"""

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from mujoco.batch import Batch

from metarl.envs.manipulation.arms import STATE, SUBSTEPS
from metarl.envs.manipulation.package import load_package
from metarl.envs.manipulation.starts import prototype
from metarl.envs.manipulation.worlds import ACTION_SCALE
from metarl.envs.wrapped.meta_world import MetaWorldML10
from metarl.runtime import keep_freed_memory
from metarl.vector_env import TaskVectorEnv

EACH = 20
WORLDS = 10 * EACH
Step = Callable[[np.ndarray], object]


class Ours:
    """Our worlds."""

    def __init__(self) -> None:
        tasks = MetaWorldML10().own_split()["train"][:WORLDS]  # whose environments take turns
        self._env = TaskVectorEnv(MetaWorldML10(), WORLDS, autoreset_mode=AutoresetMode.DISABLED)
        self._env.set_tasks(tasks)

    def reset(self) -> Step:
        """Start episodes; return a function that steps them."""
        self._env.reset(seed=0)
        return lambda actions: self._env.step(torch.from_numpy(actions))


class Package:
    """The package's vector environment."""

    def __init__(self) -> None:
        self._env: Any = load_package().make_ml_envs("ML10", seed=0, meta_batch_size=WORLDS, total_tasks_per_cls=EACH)

    def reset(self) -> Step:
        """Start episodes; return a function that steps them."""
        self._env.reset()
        step: Step = self._env.step
        return step


class Physics:
    """The same models and starts as ours, with physics only."""

    def __init__(self, threads: int) -> None:
        tasks = MetaWorldML10().own_split()["train"][:WORLDS]
        self._parts = []
        for environment in tasks["environment"].unique().tolist():
            origin = prototype(environment, (), True, "v2")
            rows = tasks["placement"][tasks["environment"] == environment].numpy()
            batch = Batch(origin.model, len(rows), threads)
            batch.expand("body_pos")
            self._parts.append((batch, [origin.start(row) for row in rows], origin))

    def reset(self) -> Step:
        """Set the initial states of episodes; return a function that steps them."""
        for batch, starts, _ in self._parts:
            for name in STATE:
                batch.bind(name)[:] = np.stack([start.rows[name].numpy() for start in starts])
            batch.expand("body_pos")[:] = np.stack([start.rows["body_pos"].numpy() for start in starts])
        return self._step

    def _step(self, actions: np.ndarray) -> None:
        for part, (batch, starts, origin) in enumerate(self._parts):
            own = actions[part * len(starts) : (part + 1) * len(starts)]
            hands, controls = batch.bind("mocap_pos"), batch.bind("ctrl")
            moved = hands[:, 0] + own[:, :3] * ACTION_SCALE
            hands[:, 0] = np.clip(moved, origin.low.numpy(), origin.high.numpy())
            controls[:, 0], controls[:, 1] = own[:, 3], -own[:, 3]
            batch.step(None, SUBSTEPS)


def measure(contestants: dict[str, Any], rounds: int, steps: int) -> dict[str, dict[str, float]]:
    """Time them alternately; return medians of env steps per CPU-second and per second, and seconds of resets."""
    found: dict[str, dict[str, list[float]]] = {name: {"cpu": [], "wall": [], "reset": []} for name in contestants}
    for seed in range(rounds + 1):
        actions = np.random.default_rng(seed).uniform(-1, 1, (steps, WORLDS, 4)).astype(np.float32)
        for name, contestant in contestants.items():
            began = time.process_time()
            step = contestant.reset()
            cpu, wall = time.process_time(), time.perf_counter()
            for action in actions:
                step(action)
            spent = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
            if seed > 0:  # the first round warms up
                found[name]["reset"].append(cpu - began)
                for clock, seconds in spent.items():
                    found[name][clock].append(steps * WORLDS / seconds)
    return {name: {key: statistics.median(values) for key, values in row.items()} for name, row in found.items()}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=50, help="of each round, at most 500")
    parser.add_argument("--json", type=Path, help="also write the numbers there")
    options = parser.parse_args()
    if options.rounds < 1 or not 1 <= options.steps <= 500:
        parser.error("--rounds must be at least 1, and --steps lie between 1 and 500")
    keep_freed_memory()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    contestants = {"ours": Ours(), "package": Package(), "physics": Physics(threads=2)}
    results = measure(contestants, options.rounds, options.steps)
    print(f"{'':<10}{'env steps per CPU-second':>26}{'per second':>14}{'reset, CPU s':>14}")
    for name, row in results.items():
        print(f"{name:<10}{row['cpu']:>26,.0f}{row['wall']:>14,.0f}{row['reset']:>14.3f}")
    ours, package, physics = (results[name]["cpu"] for name in ("ours", "package", "physics"))
    print(f"ours is {ours / package:.2f} times the package, and costs {physics / ours:.2f} times bare physics")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
