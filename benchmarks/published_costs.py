"""What one seed of each published experiment costs: env steps, and CPU minutes.

    python -m benchmarks.published_costs [NAME ...]

Each is trained for a few iterations with one torch thread, and off-policy learners with few of their updates; the mean
without the first iteration, extrapolated to all updates and iterations, is written to
experiments/published/costs.json, which ``metarl reproduce`` reads. Env steps are those of an untrained policy, whose
episodes may be shorter.
"""

import argparse
import dataclasses
import json
import tempfile
import time

from metarl.devices.runtime import single_torch_thread
from metarl.experiments.published import COSTS, MODULES, find_published
from metarl.run.config import TrainConfig
from metarl.training.callbacks import Callback, Training
from metarl.training.train import train

ITERATIONS = 3
FEW = 10


class Clock(Callback):
    """Notes the CPU time of all threads and the env steps after each iteration; stops the run."""

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
    """Return env steps and CPU minutes of the whole experiment."""
    config = find_published(name).config
    updates = getattr(config.settings, "updates_per_iteration", FEW)
    steps, seconds = iteration(config)
    if updates > FEW:  # the time of an update from the difference between few and twice as many
        seconds += (updates - FEW) / FEW * (iteration(config, 2)[1] - seconds)
    return round(steps * config.run.iterations), round(seconds * config.run.iterations / 60, 1)


def iteration(config: TrainConfig, times: int = 1) -> tuple[float, float]:
    """Return env steps and seconds of an iteration, with at most ``times * FEW`` updates of an off-policy learner."""
    clock, settings = Clock(), config.settings
    if getattr(settings, "updates_per_iteration", 0) > FEW:
        settings = dataclasses.replace(settings, updates_per_iteration=times * FEW)
    with tempfile.TemporaryDirectory() as folder, single_torch_thread():
        run = dataclasses.replace(config.run, out=f"{folder}/run", track="disabled")
        train(dataclasses.replace(config, run=run, settings=settings), callbacks=[clock])
    return clock.env_steps / ITERATIONS, (clock.seconds[-1] - clock.seconds[0]) / (ITERATIONS - 1)


def main() -> None:
    """Measure, print, and write the costs beside those measured before."""
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
