"""Cost of a step of a single environment, resets included, beside Gymnasium's own.

    python benchmarks/single_env.py

Environments of ``gymnasium.make`` take turns under random actions, one torch thread; CPU microseconds for each step,
medians over rounds. docs/performance.md has the table.
"""

import json
import statistics
import time
from pathlib import Path
from typing import Any

import gymnasium
import torch

import metarl  # noqa: F401 (registers the environments)

RESULTS = Path(__file__).parent / "results" / "single_env.json"
NAMES = ("CartPole-v1", "metarl/Navigation2D-v0", "metarl/GridNavi-v0", "HalfCheetah-v5", "metarl/HalfCheetahVel-v0")
ROUNDS, STEPS = 9, 2000


def microseconds(env: gymnasium.Env[Any, Any], actions: list[Any]) -> float:
    """Return the CPU microseconds per step."""
    began = time.process_time()
    for action in actions:
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset()
    return (time.process_time() - began) / len(actions) * 1e6


def main() -> None:
    """Measure, write, print."""
    torch.set_num_threads(1)
    envs = {name: gymnasium.make(name) for name in NAMES}
    for env in envs.values():
        env.reset(seed=0)
        env.action_space.seed(0)
    actions = {name: [env.action_space.sample() for _ in range(STEPS)] for name, env in envs.items()}
    rounds = [{name: microseconds(env, actions[name]) for name, env in envs.items()} for _ in range(ROUNDS)]
    medians = {name: statistics.median(each[name] for each in rounds) for name in NAMES}
    RESULTS.write_text(json.dumps(medians, indent=2) + "\n")
    print(table())


def table(path: Path = RESULTS) -> str:
    """Return what was measured as a Markdown table."""
    rows = [f"| `{name}` | {value:.0f} |" for name, value in json.loads(path.read_text()).items()]
    return "\n".join(["| environment | µs a step |", "|---|---|", *rows])


if __name__ == "__main__":
    main()
