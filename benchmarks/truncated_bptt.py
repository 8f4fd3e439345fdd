"""Cost of an update of RL² on long trials: backpropagation through whole trials, and through chunks of them.

    python benchmarks/truncated_bptt.py
    python -m benchmarks.tables

A GRU of 256 units, and 16 trials of ten episodes of 500 steps in sparse-point, as long as those of Meta-World. An
update is one epoch of 4 or 16 minibatches. All take turns, round after round, each update in a new process, which also
measures by how many MB its peak memory grew. Medians of CPU seconds on one thread, and of memory, are written.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from pathlib import Path

import torch

from metarl.agents.in_context.rl2 import Rl2Config
from metarl.devices.runtime import keep_freed_memory
from metarl.rollouts.rollout import Rollout
from metarl.run.config import RunConfig, TrainConfig
from metarl.sampling.sampler import Sampler

RESULTS = Path(__file__).parent / "results" / "truncated_bptt.json"
TASKS, EPISODES, HORIZON, UNITS = 16, 10, 500, 256
# Steps through which gradients flow back, 0 for all, and minibatches.
CASES = ((0, 4), (0, 16), (500, 4), (500, 16), (100, 4), (100, 16))


def configuration(steps: int, minibatches: int) -> TrainConfig:
    """Return the configuration of a case."""
    own = Rl2Config(hidden_size=UNITS, episodes_per_trial=EPISODES, epochs=1, minibatches=minibatches, bptt_steps=steps)
    return TrainConfig("rl2", "sparse-point", RunConfig(horizon=HORIZON), own)


def collected() -> list[Rollout]:
    """Return the episodes of one trial of each task."""
    config = configuration(*CASES[0])
    sampler = Sampler(config.make_family())
    session = sampler.session(config.make_learner(), config.split().train_tasks(TASKS, 0), 1)
    rollouts = [sampler.run(session, 0)]
    for number in range(1, EPISODES):
        session.adapt()
        rollouts.append(sampler.run(session, number))
    return rollouts


def measured(case: tuple[int, int], rollouts: list[Rollout]) -> tuple[float, float]:
    """Return the CPU seconds and MB of an update."""
    learner = configuration(*case).make_learner()
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    learner.update(rollouts)
    seconds = time.process_time() - began
    return seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def table() -> str:
    """Return the committed results as a table."""
    rows = json.loads(RESULTS.read_text())["rows"]
    lines = ["| `bptt_steps` | minibatches | CPU s | MB |", "|---|---|---|---|"]
    for row in rows:
        lines.append(f"| {row['steps']} | {row['minibatches']} | {row['seconds']:.2f} | {row['MB']:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    keep_freed_memory()
    torch.set_num_threads(1)
    rollouts = collected()
    found: dict[tuple[int, int], list[tuple[float, float]]] = {case: [] for case in CASES}
    for _ in range(options.rounds):
        for case, each in found.items():
            with multiprocessing.get_context("fork").Pool(1) as process:
                each.append(process.apply(measured, (case, rollouts)))
    rows = []
    for (steps, minibatches), each in found.items():
        seconds, memory = (statistics.median(column) for column in zip(*each, strict=True))
        rows.append({"steps": steps, "minibatches": minibatches, "seconds": seconds, "MB": memory})
    RESULTS.write_text(json.dumps({"rounds": options.rounds, "rows": rows}, indent=2) + "\n")
    print(table())


if __name__ == "__main__":
    main()
