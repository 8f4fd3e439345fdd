"""What one seed of each published experiment costs: env steps, and minutes of the processor's time.

    python benchmarks/published_costs.py [NAME ...]

Each is trained for a few iterations with one torch thread; their mean, without the first, times the number of
iterations is written to experiments/published/costs.json, which ``metarl reproduce`` reads.
"""

import argparse
import dataclasses
import json
import tempfile
import time

from metarl.callbacks import Callback, Training
from metarl.experiments.published import COSTS, MODULES, find_published
from metarl.runtime import single_torch_thread
from metarl.training import train

ITERATIONS = 3


class Clock(Callback):
    """Notes the processor's time, that of all threads, and the env steps after each iteration; stops the run."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.env_steps = 0.0

    def on_iteration(self, training: Training) -> None:
        """Note them, and stop after the last iteration."""
        self.seconds.append(time.process_time())
        self.env_steps = training.row["env_steps"] or 0.0
        if training.iteration == ITERATIONS:
            training.stop("this is enough")


def measure(name: str) -> tuple[int, float]:
    """Return env steps and minutes of the whole experiment."""
    config, clock = find_published(name).config, Clock()
    with tempfile.TemporaryDirectory() as folder, single_torch_thread():
        run = dataclasses.replace(config.run, out=f"{folder}/run", track="disabled")
        train(dataclasses.replace(config, run=run), callbacks=[clock])
    seconds = (clock.seconds[-1] - clock.seconds[0]) / (ITERATIONS - 1)
    iterations = config.run.iterations
    return round(clock.env_steps / ITERATIONS * iterations), round(seconds * iterations / 60, 1)


def main() -> None:
    """Measure, print, and write what was measured beside what was measured before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="by default all")
    names = parser.parse_args().names
    if unknown := set(names) - set(MODULES):
        parser.error(f"no published experiment is called {', '.join(sorted(unknown))}")
    costs = json.loads(COSTS.read_text()) if COSTS.exists() else {}
    for name in names or MODULES:
        costs[name] = measure(name)
        print(f"{name:<32}{costs[name][0]:>14,} env steps{costs[name][1]:>8,.1f} CPU min", flush=True)
        lines = ",\n".join(f'  "{each}": {json.dumps(costs[each])}' for each in sorted(costs))
        COSTS.write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
