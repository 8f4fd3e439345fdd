"""The program of ``make demo``: training, adaptation to held-out tasks, and the improvement.

Two real runs under ``runs/demo-DATE``: 2D navigation with the MAML paper's settings until adaptation works well, and
HalfCheetahVel until adaptation starts to help, with a small fraction of the published budget.
"""

import dataclasses
import sys
import time
from datetime import datetime
from pathlib import Path

from metarl.agents.gradient.maml_trpo import MamlTrpoConfig
from metarl.config import RunConfig, TrainConfig
from metarl.experiments.commands.main import main
from metarl.experiments.commands.parsing import guarded
from metarl.experiments.commands.train import report
from metarl.loop_tools import StopRequest
from metarl.processes import ONE_PROCESS
from metarl.training import train

EXPERIMENTS = {
    "navigation-2d": TrainConfig("maml-trpo", "navigation-2d", RunConfig(iterations=50), MamlTrpoConfig(inner_lr=0.5)),
    "half-cheetah-vel": TrainConfig("maml-trpo", "half-cheetah-vel", RunConfig(iterations=140, preset="0-2-h100")),
}


def run(out: Path) -> None:
    """Train and evaluate each experiment in its own folder."""
    for name, experiment in EXPERIMENTS.items():
        config = dataclasses.replace(experiment, run=dataclasses.replace(experiment.run, out=str(out / name)))
        print(f"\n=== {config.learner} on {name}: {config.run.iterations} iterations ===", flush=True)
        began = time.monotonic()
        stop = StopRequest()
        report(train(config, stop), ONE_PROCESS, stop)
        print(f"training took {time.monotonic() - began:.0f} s; now adapting to held-out tasks:\n", flush=True)
        if main(["evaluate", str(out / name)]) != 0:
            sys.exit(1)


if __name__ == "__main__":
    sys.exit(guarded(lambda: run(Path("runs") / f"demo-{datetime.now():%Y%m%d-%H%M%S}")))
