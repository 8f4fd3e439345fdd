"""Meta-World's batched worlds against the package's own vector environment and against bare physics.

    python benchmarks/metaworld_sampling.py

200 worlds of ML10's training environments, 20 of each, under the same random actions, in one process on two threads:

- ours: ``TaskVectorEnv.step``, with observations, rewards and success;
- package: the ``SyncVectorEnv`` that ``metaworld.make_ml_envs`` makes;
- physics: nothing but the mocap body, the gripper's effort and five calls of ``mj_step``, on ``mujoco.batch``.

The three take turns, round after round, each from a reset that is not counted. Medians of env steps per CPU-second
(user and system of the whole process, so that threads count) and per second, what a reset costs, and by how much the
process has grown when a contestant has been made and used for a round, are printed, written to a file, and put into the
pages of the manual that show them.
"""

import argparse
import json
import os
import re
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

from metarl.devices.runtime import keep_freed_memory
from metarl.envs.manipulation.arms import STATE, SUBSTEPS
from metarl.envs.manipulation.initial_states import prototype
from metarl.envs.manipulation.package import load_package
from metarl.envs.manipulation.worlds import ACTION_SCALE
from metarl.envs.wrapped.meta_world import MetaWorldML10
from metarl.worlds.vector_env import TaskVectorEnv

RESULTS = Path(__file__).parent / "results" / "metaworld_sampling.json"
PAGES = [Path(__file__).parents[1] / "docs" / name for name in ("performance.md", "meta-world.md")]
MARKERS = re.compile(r"(<!-- metaworld_sampling -->\n).*?(<!-- /metaworld_sampling -->)", re.DOTALL)
EACH = 20
WORLDS = 10 * EACH
Step = Callable[[np.ndarray], object]


class Ours:
    """Our worlds."""

    def __init__(self) -> None:
        tasks = MetaWorldML10().own_split()["train"][:WORLDS]  # environments are interleaved
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
    """The models and initial states of our worlds, with physics only."""

    def __init__(self, threads: int) -> None:
        tasks = MetaWorldML10().own_split()["train"][:WORLDS]
        self._parts = []
        for environment in tasks["environment"].unique().tolist():
            origin = prototype(environment, (), True, "v2")
            rows = tasks["placement"][tasks["environment"] == environment].numpy()
            batch = Batch(origin.model, len(rows), threads)
            batch.expand("body_pos")
            self._parts.append((batch, [origin.initial_state(row) for row in rows], origin))

    def reset(self) -> Step:
        """Set the initial states of episodes; return a function that steps them."""
        for batch, initial_states, _ in self._parts:
            for name in STATE:
                batch.bind(name)[:] = np.stack([start.rows[name].numpy() for start in initial_states])
            batch.expand("body_pos")[:] = np.stack([start.rows["body_pos"].numpy() for start in initial_states])
        return self._step

    def _step(self, actions: np.ndarray) -> None:
        for part, (batch, initial_states, origin) in enumerate(self._parts):
            own = actions[part * len(initial_states) : (part + 1) * len(initial_states)]
            hands, controls = batch.bind("mocap_pos"), batch.bind("ctrl")
            moved = hands[:, 0] + own[:, :3] * ACTION_SCALE
            hands[:, 0] = np.clip(moved, origin.low.numpy(), origin.high.numpy())
            controls[:, 0], controls[:, 1] = own[:, 3], -own[:, 3]
            batch.step(None, SUBSTEPS)


def measure(makers: dict[str, Callable[[], Any]], rounds: int, steps: int) -> dict[str, dict[str, float]]:
    """Time the contestants alternately; return for each the medians of the module's quantities, and its memory."""
    contestants: dict[str, Any] = {}
    memory: dict[str, float] = {}
    found: dict[str, dict[str, list[float]]] = {name: {"cpu": [], "wall": [], "reset": []} for name in makers}
    for seed in range(rounds + 1):
        actions = np.random.default_rng(seed).uniform(-1, 1, (steps, WORLDS, 4)).astype(np.float32)
        for name, make in makers.items():
            before = _resident_mib()
            if seed == 0:  # the first round warms up
                contestants[name] = make()
            began = time.process_time()
            step = contestants[name].reset()
            cpu, wall = time.process_time(), time.perf_counter()
            for action in actions:
                step(action)
            spent = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
            memory.setdefault(name, _resident_mib() - before)
            if seed > 0:
                found[name]["reset"].append(cpu - began)
                for clock, seconds in spent.items():
                    found[name][clock].append(steps * WORLDS / seconds)
    medians = {name: {key: statistics.median(values) for key, values in row.items()} for name, row in found.items()}
    return {name: {**row, "mib": memory[name]} for name, row in medians.items()}


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def table(results: dict[str, dict[str, float]]) -> str:
    """Return the numbers as a Markdown table."""
    package, physics = (results[name]["cpu"] for name in ("package", "physics"))
    lines = ["| | env steps per CPU-second | × package | cost, × physics | env steps per second | reset, CPU s | MiB |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name, row in results.items():
        ratios = f"{row['cpu'] / package:.2f} | {physics / row['cpu']:.2f}"
        lines.append(
            f"| {name} | {row['cpu']:,.0f} | {ratios} | {row['wall']:,.0f} | {row['reset']:.3f} | {row['mib']:,.0f} |"
        )
    return "\n".join(lines)


def fill_page(page: str, results: Path) -> str:
    """Return a page with the table between its markers replaced by that of the results file."""
    text = table(json.loads(results.read_text())) if results.exists() else "Not measured on this version yet."
    return MARKERS.sub(lambda found: f"{found[1]}\n{text}\n\n{found[2]}", page)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=50, help="of each round, at most 500")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the numbers are written")
    options = parser.parse_args()
    if options.rounds < 1 or not 1 <= options.steps <= 500:
        parser.error("--rounds must be at least 1, and --steps lie between 1 and 500")
    if not options.json.parent.is_dir():
        parser.error(f"--json: there is no folder {options.json.parent}")
    keep_freed_memory()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    makers = {"ours": Ours, "package": Package, "physics": lambda: Physics(threads=2)}
    results = measure(makers, options.rounds, options.steps)
    print(table(results))
    options.json.write_text(json.dumps(results, indent=2) + "\n")
    if options.json == RESULTS:
        for page in PAGES:
            page.write_text(fill_page(page.read_text(), RESULTS))


if __name__ == "__main__":
    main()
