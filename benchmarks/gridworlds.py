"""Steps per second of the gridworlds: every preset of every family, through ``TaskVectorEnv``.

    python benchmarks/gridworlds.py

8192 worlds with random tasks and random actions on the CPU. A step includes reward, end and observation; all worlds are
reset together at the horizon, as the sampler does, and that time counts. The presets alternate, round after round, and
medians are printed, because the load of the machine changes from minute to minute. Actions are drawn beforehand.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from gymnasium.vector import AutoresetMode

from metarl.devices.runtime import keep_freed_memory
from metarl.envs.grid.engine import GridFamily
from metarl.families.family import FAMILIES, make_family
from metarl.seeding import generator
from metarl.worlds.vector_env import TaskVectorEnv

RESULTS = Path(__file__).parent / "results" / "gridworlds.json"


class Episodes:
    """Worlds of one preset and the actions of one episode."""

    def __init__(self, name: str, preset: str, worlds: int) -> None:
        family = make_family(name, preset)
        self.label = f"{name} {preset}"
        self.steps = worlds * family.horizon
        self.numbers = int(torch.tensor(family.observation_space.shape).prod())
        self._env = TaskVectorEnv(family, worlds, autoreset_mode=AutoresetMode.DISABLED)
        self._env.set_tasks(family.sample_tasks(worlds, generator("tasks")))
        self._env.action_space.seed(0)
        self._actions = [torch.as_tensor(self._env.action_space.sample()) for _ in range(family.horizon)]

    def seconds(self) -> float:
        """Run one episode in every world; return the seconds it took."""
        began = time.perf_counter()
        self._env.reset(seed=0)
        for actions in self._actions:
            self._env.step(actions)
        return time.perf_counter() - began


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, help="of torch; by default one for each core")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the numbers are written")
    options = parser.parse_args()
    if min(options.worlds, options.rounds, options.threads or 1) < 1:
        parser.error("--worlds, --rounds and --threads must be at least 1")
    if options.threads:
        torch.set_num_threads(options.threads)
    keep_freed_memory()
    grids = [name for name, family in FAMILIES.items() if issubclass(family, GridFamily)]
    runs = [Episodes(name, preset, options.worlds) for name in grids for preset in FAMILIES[name].presets]
    times: dict[str, list[float]] = {run.label: [] for run in runs}
    for turn in range(options.rounds + 1):
        for run in runs:
            seconds = run.seconds()
            if turn > 0:  # the first round warms up
                times[run.label].append(seconds)
    print(f"{options.worlds:,} worlds, {torch.get_num_threads()} torch threads, million steps a second")
    speeds = {run.label: run.steps / statistics.median(times[run.label]) for run in runs}
    for run in runs:
        print(f"{run.label:<32}{speeds[run.label] / 1e6:8.1f}   {run.numbers:4} numbers observed")
    rounded = {label: round(speed) for label, speed in speeds.items()}
    settings = {"worlds": options.worlds, "torch threads": torch.get_num_threads(), "rounds": options.rounds}
    options.json.write_text(json.dumps({**settings, "steps a second": rounded}, indent=2) + "\n")


if __name__ == "__main__":
    main()
