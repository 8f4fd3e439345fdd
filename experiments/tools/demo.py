"""The program of ``make demo``: training, adaptation to held-out tasks, and the improvement.

Two runs under ``runs/demo-DATE``: 2D navigation, trained from the start with the MAML paper's settings, and the shipped
run of HalfCheetahVel, continued for some iterations. Both adapt to tasks that they were not trained on; the video is
of the half-cheetah's task with the median gain.
"""

import json
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from metarl.agents.gradient.maml_trpo import MamlTrpoConfig
from metarl.devices.processes import ONE_PROCESS
from metarl.evaluation.evaluate import load_run
from metarl.experiments.commands.main import main
from metarl.experiments.commands.parsing import guarded
from metarl.experiments.commands.train import report
from metarl.run.config import RunConfig, TrainConfig
from metarl.training.loop_tools import StopRequest
from metarl.training.train import train

SHIPPED, FURTHER = "hub:maml-trpo-half-cheetah-vel", 5


def run(out: Path) -> None:
    """Train, evaluate and render."""
    navigation, cheetah = out / "navigation-2d", out / "half-cheetah-vel"
    config = TrainConfig(
        "maml-trpo", "navigation-2d", RunConfig(iterations=50, out=str(navigation)), MamlTrpoConfig(inner_lr=0.5)
    )
    stop = StopRequest()
    announce("maml-trpo on navigation-2d: 50 iterations from the start")
    report(train(config, stop), ONE_PROCESS, stop)
    evaluate(navigation)
    trained, _, _ = load_run(SHIPPED)
    further = replace(trained.run, iterations=FURTHER, seed=2, out=str(cheetah), track="auto", start_from=SHIPPED)
    announce(f"{SHIPPED}, trained for {trained.run.iterations} iterations: {FURTHER} more")
    report(train(replace(trained, run=further), stop), ONE_PROCESS, stop)
    evaluate(cheetah)
    print(flush=True)
    task = typical_task(cheetah / "evaluation.json")
    # Where there is no OpenGL, its line says what to install.
    main(["render", str(cheetah), "--steps", "3", "--task", *task])


def announce(what: str) -> None:
    """Print a heading."""
    print(f"\n=== {what} ===", flush=True)


def evaluate(path: Path) -> None:
    """Adapt to held-out tasks and print the table."""
    print("now adapting to held-out tasks:\n", flush=True)
    if main(["evaluate", str(path)]) != 0:
        sys.exit(1)


def typical_task(evaluation: Path) -> list[str]:
    """Return the evaluated task with the median gain, as ``--task`` takes it."""
    content = json.loads(evaluation.read_text())
    gains = [returns[-1] - returns[0] for returns in content["returns"]]
    task = content["tasks"][sorted(range(len(gains)), key=gains.__getitem__)[len(gains) // 2]]
    return [f"{name}={value}" for name, value in task.items()]


if __name__ == "__main__":
    sys.exit(guarded(lambda: run(Path("runs") / f"demo-{datetime.now():%Y%m%d-%H%M%S}")))
