"""Sampling speed of SB3's DQN in GridNavi: with our batch of worlds, and with SB3's DummyVecEnv of single ones.

    python benchmarks/sb3_collection.py

256 worlds each, stepped by SB3's own ``learn``. "collecting" is DQN acting by its network and filling its replay
buffer, without gradient steps; "random" is the same with the random actions of its warm-up; "learning" takes a gradient
step for every 64 environment steps. The single environments are those of ``gymnasium.make("metarl/GridNavi-v0")``. Both
alternate, round after round, and medians are printed, because the load of the machine changes from minute to minute.
"""

import argparse
import json
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from metarl.agents.baselines.sb3.vec_env import Sb3VecEnv
from metarl.devices.runtime import keep_freed_memory
from metarl.families.family import FAMILIES, make_family
from metarl.worlds.vector_env import TaskVectorEnv

FAMILY = "gridnavi"
NEVER = 10**9
# Arguments of DQN for each kind of work.
WORK: dict[str, dict[str, Any]] = {
    "collecting": {"learning_starts": 0, "gradient_steps": 0},
    "random": {"learning_starts": NEVER, "gradient_steps": 1},
    "learning": {"learning_starts": 0, "gradient_steps": 4},
}


def batched(worlds: int) -> VecEnv:
    """Return one batch of worlds."""
    return Sb3VecEnv(TaskVectorEnv(make_family(FAMILY), worlds))


def single(worlds: int) -> VecEnv:
    """Return the same number of single environments, stepped one after another."""
    return DummyVecEnv([partial(gymnasium.make, FAMILIES[FAMILY].env_id) for _ in range(worlds)])


class Agent:
    """DQN on some environments, doing one kind of work."""

    def __init__(self, env: VecEnv, work: str, steps: int) -> None:
        self._steps = steps * env.num_envs
        self._model = DQN("MlpPolicy", env, train_freq=1, exploration_fraction=0.01, device="cpu", **WORK[work])
        self._model.set_logger(Logger(None, []))

    def rate(self) -> float:
        """Run for some steps of every world; return the environment steps per second."""
        began, before = time.perf_counter(), self._model.num_timesteps
        self._model.learn(self._steps, log_interval=NEVER, reset_num_timesteps=False)
        return (self._model.num_timesteps - before) / (time.perf_counter() - began)


def measure(worlds: int, steps: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return the median rates of both environments, and their ratio, for each kind of work."""
    ours, theirs, results = batched(worlds), single(worlds), {}
    for work in WORK:
        agents = {"Sb3VecEnv": Agent(ours, work, steps), "DummyVecEnv": Agent(theirs, work, steps)}
        rates = [{name: agent.rate() for name, agent in agents.items()} for _ in range(rounds + 1)]
        medians = {name: statistics.median(turn[name] for turn in rates[1:]) for name in agents}
        results[work] = {**medians, "ratio": medians["Sb3VecEnv"] / medians["DummyVecEnv"]}
    return results


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=256)
    parser.add_argument("--steps", type=int, default=30, help="of every world in a round")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="also write the numbers there")
    options = parser.parse_args()
    if min(options.worlds, options.steps, options.rounds) < 1:
        parser.error("--worlds, --steps and --rounds must be at least 1")
    keep_freed_memory()
    torch.set_num_threads(1)
    results = measure(options.worlds, options.steps, options.rounds)
    print(f"SB3's DQN in {options.worlds} worlds of {FAMILY}, environment steps a second, one torch thread")
    print(f"{'':<12}{'Sb3VecEnv':>12}{'DummyVecEnv':>14}{'ratio':>8}")
    for work, row in results.items():
        print(f"{work:<12}{row['Sb3VecEnv']:>12,.0f}{row['DummyVecEnv']:>14,.0f}{row['ratio']:>8.1f}")
    if options.json:
        options.json.write_text(json.dumps({"worlds": options.worlds, **results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
