"""Time that an iteration of each meta-learner spends on sampling, adaptation and update.

    python benchmarks/learner_updates.py
    python benchmarks/learner_updates.py --family navigation-2d --preset maml --learners maml-ppo reptile

HalfCheetahVel, by default 20 tasks x 20 episodes x 100 steps before and after adaptation, 80,000 env steps, and each
learner's default settings. An iteration is what ``metarl train`` does: draw tasks, collect, adapt, collect, update.
Reptile takes its last inner step within the update. The learners take turns in one process, round after round, and
train as they go; medians and the ratio of the medians of update and sampling are printed and written: absolute times
depend on the machine and on its neighbours.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import metarl  # noqa: F401 (registers families and learners)
from metarl.devices.runtime import keep_freed_memory
from metarl.errors import InputError
from metarl.families.family import FAMILIES
from metarl.learning.learner import LEARNERS
from metarl.rollouts.rollout import Rollout
from metarl.run.config import RunConfig, TrainConfig
from metarl.sampling.sampler import Sampler
from metarl.seeding import derive_seed

RESULTS = Path(__file__).parent / "results" / "learner_updates.json"
WORK = ("sampling", "adaptation", "update")


class Training:
    """A learner in training, iteration by iteration."""

    def __init__(self, name: str, family: str, run: RunConfig) -> None:
        config = TrainConfig(name, family, run)
        self._run, self._learner, self._split = run, config.make_learner(), config.split()
        self._sampler = Sampler(config.make_family())
        self._seconds: dict[str, float] = {}

    def iteration(self, number: int) -> dict[str, float]:
        """Run one iteration; return the seconds of each kind of work."""
        self._seconds = dict.fromkeys(WORK, 0.0)
        learner, tasks = self._learner, self._split.train_tasks(self._run.tasks_per_batch, number)
        state: Any = learner.begin(len(tasks))
        rollouts: list[Rollout] = []
        for step in range(learner.inner_steps + 1):
            if step > 0:
                state = self._timed("adaptation", learner.adapt, state, rollouts[-1])
            drawn = (tasks, self._run.episodes_per_task, derive_seed(number, step))
            rollouts.append(self._timed("sampling", self._sampler.collect, learner, state, *drawn))
        self._timed("update", learner.update, rollouts)
        return self._seconds

    def _timed(self, name: str, work: Callable[..., Any], *arguments: Any) -> Any:
        began = time.perf_counter()
        result = work(*arguments)
        self._seconds[name] += time.perf_counter() - began
        return result


def measure(trainings: dict[str, Training], rounds: int) -> dict[str, dict[str, float]]:
    """Time the learners alternately; return the medians in seconds, and the ratio of update and sampling."""
    times: dict[str, list[dict[str, float]]] = {name: [] for name in trainings}
    for number in range(rounds + 1):
        for name, training in trainings.items():
            times[name].append(training.iteration(number))
    results = {}
    for name, rows in times.items():  # the first round warms up
        medians = {work: statistics.median(row[work] for row in rows[1:]) for work in WORK}
        results[name] = {**medians, "update / sampling": medians["update"] / medians["sampling"]}
    return results


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    learners = ["maml-trpo", "maml-ppo", "maml-vpg", "reptile"]
    parser.add_argument("--learners", nargs="+", default=learners, choices=list(LEARNERS), metavar="LEARNER")
    parser.add_argument("--family", default="half-cheetah-vel", choices=list(FAMILIES), metavar="FAMILY")
    parser.add_argument("--preset", default="0-2-h100", help="of the family")
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--episodes", type=int, default=20, help="of each task before and after adaptation")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the numbers are written")
    options = parser.parse_args()
    if min(options.tasks, options.episodes, options.rounds) < 1:
        parser.error("--tasks, --episodes and --rounds must be at least 1")
    if not options.json.parent.is_dir():
        parser.error(f"--json: there is no folder {options.json.parent}")
    run = RunConfig(preset=options.preset, tasks_per_batch=options.tasks, episodes_per_task=options.episodes)
    keep_freed_memory()
    try:
        results = measure({name: Training(name, options.family, run) for name in options.learners}, options.rounds)
    except InputError as error:
        parser.error(str(error))
    print(f"{options.tasks} tasks x {options.episodes} episodes of {options.family} {options.preset}, seconds")
    print(f"{'':<12}{'sampling':>10}{'adaptation':>12}{'update':>10}{'update / sampling':>20}")
    for name, row in results.items():
        print(f"{name:<12}{row['sampling']:>10.3f}{row['adaptation']:>12.3f}{row['update']:>10.3f}", end="")
        print(f"{row['update / sampling']:>20.2f}")
    settings = {key: getattr(options, key) for key in ("family", "preset", "tasks", "episodes", "rounds")}
    settings["torch threads"] = torch.get_num_threads()
    options.json.write_text(json.dumps({**settings, "seconds": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
