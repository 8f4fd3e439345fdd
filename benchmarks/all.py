"""The costs that decide how long training takes, each as a ratio within one run, against the committed table.

    python -m benchmarks.all

Ratios to bare physics are those of ``maml_trpo_iteration.py``, in seconds. The others are the CPU seconds, on one
thread, of the parts of an iteration (sampling with adaptation, update) on GridNavi, 256 trials of 60 steps and each
learner's default settings, over those of one fixed piece of work in plain torch: ``torch.nn.GRU`` reads as many trials,
forwards and backwards. All take turns, round after round, and medians are divided.

The table is written to benchmarks/results/all.json. Whatever is slower by more than a tenth than in the committed
table is named: run it again on a quiet machine before you believe it.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from torch import nn

from benchmarks.maml_trpo_iteration import measure as measure_maml_trpo
from benchmarks.memory_step import EPISODES, TASKS, Iterations, learner_of
from metarl.agents.in_context.rl2 import Rl2Config
from metarl.agents.in_context.varibad_config import VariBadConfig
from metarl.devices.runtime import keep_freed_memory, single_torch_thread

RESULTS = Path(__file__).parent / "results" / "all.json"
TRIALS, STEPS, INPUTS, UNITS = 16 * TASKS, 60, 9, 64
TOLERANCE = 1.1
MEMORIES = ("gru", "lstm", "min-gru")


def reference() -> float:
    """Return the CPU seconds of a fixed piece of work."""
    layer, entries = nn.GRU(INPUTS, UNITS, batch_first=True), torch.ones(TRIALS, STEPS, INPUTS)
    began = time.process_time()
    layer(entries)[0].sum().backward()
    return time.process_time() - began


def measure_trials(rounds: int) -> dict[str, float]:
    """Return the parts of an iteration of learners that remember, each divided by the reference."""
    configs = {f"rl2, {memory}": Rl2Config(memory=memory, episodes_per_trial=EPISODES) for memory in MEMORIES}
    one_pass = Rl2Config(episodes_per_trial=EPISODES, epochs=1)
    learners = {
        **{name: learner_of("rl2", config) for name, config in configs.items()},
        "rl2, one pass": learner_of("rl2", one_pass),
        "varibad": learner_of("varibad", VariBadConfig(episodes_per_trial=EPISODES)),
    }
    runs = {name: Iterations(learner, TRIALS, time.process_time) for name, learner in learners.items()}
    times: dict[str, list[float]] = {"reference": []}
    for turn in range(rounds + 1):
        with single_torch_thread():
            rows = {name: run.next() for name, run in runs.items()}
            times["reference"].append(reference())
        for name, row in rows.items():
            times.setdefault(f"{name}: sampling", []).append(row["sampling"] + row["adaptation"])
            times.setdefault(f"{name}: update", []).append(row["update"])
        if turn == 0:  # the first round warms up
            times = {name: [] for name in times}
    medians = {name: statistics.median(values) for name, values in times.items()}
    unit = medians.pop("reference")
    return {name: seconds / unit for name, seconds in medians.items()}


def measure_physics(rounds: int) -> dict[str, float]:
    """Return sampling and a whole iteration of MAML-TRPO, divided by bare physics."""
    medians = measure_maml_trpo(rounds, fraction=0.25, tasks=20, horizon=100)
    unit = medians.pop("bare physics")
    return {f"maml-trpo: {name}": seconds / unit for name, seconds in medians.items()}


def main() -> None:
    """Measure, print, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the table is written")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    committed: dict[str, float] = json.loads(RESULTS.read_text())["ratios"] if RESULTS.exists() else {}
    keep_freed_memory()
    ratios = {**measure_physics(options.rounds), **measure_trials(options.rounds)}
    print(f"{'':<26}{'ratio':>8}{'committed':>12}")
    for name, ratio in ratios.items():
        print(f"{name:<26}{ratio:>8.2f}" + (f"{committed[name]:>12.2f}" if name in committed else ""))
    for name in sorted(ratios.keys() & committed.keys()):
        if ratios[name] > TOLERANCE * committed[name]:
            print(f"slower by {ratios[name] / committed[name] - 1:.0%}: {name}")
    options.json.write_text(json.dumps({"rounds": options.rounds, "ratios": ratios}, indent=2) + "\n")


if __name__ == "__main__":
    main()
