"""What would be gained if sampling did two things at once, on two of this machine's cores.

    python benchmarks/overlap.py

Halves: the sampler steps half of the tasks in one thread while the policy acts for the other half in another, each with
a MuJoCo thread of its own, against all tasks in one batch with two MuJoCo threads. MAML-TRPO's policies on
HalfCheetahVel, 40 tasks x 20 episodes; both give the same numbers.

Ahead: the next batch is collected in another process during the update, each with one thread, against collecting and
then updating, with one torch thread or two, whichever is faster. Nothing is transferred between the processes, so this
is the most that could be gained by training on episodes one iteration old. Each learner has its default settings.

Contestants alternate; medians of seconds.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from unittest.mock import patch

import torch

from metarl.devices.processes import Shard
from metarl.devices.runtime import keep_freed_memory
from metarl.rollouts.rollout import Rollout
from metarl.run.config import RunConfig, TrainConfig
from metarl.sampling.sampler import Sampler

RESULTS = Path(__file__).parent / "results" / "overlap.json"
CORES = 2
TASKS, EPISODES = 40, 20
AHEAD = {"rl2": "gridnavi", "varibad": "gridnavi", "recurrent-sac": "gridnavi", "pearl": "half-cheetah-vel"}


def halves(rounds: int, horizon: int) -> dict[str, float]:
    """Return the seconds of a collection in one batch and in two halves."""
    torch.set_num_threads(1)
    config = TrainConfig("maml-trpo", "half-cheetah-vel", RunConfig(horizon=horizon))
    learner, tasks, family = config.make_learner(), config.split().train_tasks(TASKS, 0), config.make_family()
    whole, middle = Sampler(family), TASKS // 2
    parts = [Shard(0, middle, TASKS), Shard(middle, TASKS, TASKS)]
    samplers = [Sampler(family) for _ in parts]

    def half(number: int) -> Rollout:
        given = tasks[parts[number].rows]
        return samplers[number].collect(learner, learner.begin(middle), given, EPISODES, 0, shard=parts[number])

    seconds: dict[str, list[float]] = {"whole": [], "halves": []}
    with ThreadPoolExecutor(CORES) as threads:
        for turn in range(rounds + 1):
            began = time.perf_counter()
            together = whole.collect(learner, learner.begin(TASKS), tasks, EPISODES, 0)
            ended = time.perf_counter()
            # Engines are made at the first turn; this decides how many MuJoCo threads they have.
            with patch.dict(os.environ, LOCAL_WORLD_SIZE=str(CORES)):
                divided = list(threads.map(half, range(CORES)))
            if turn > 0:
                seconds["whole"].append(ended - began)
                seconds["halves"].append(time.perf_counter() - ended)
    assert torch.equal(together.rewards, torch.cat([rollout.rewards for rollout in divided]))
    return {name: statistics.median(each) for name, each in seconds.items()}


class Collector:
    """Collects the trials of an iteration.

    Args:
        name: learner, with its default settings.
        threads: number of torch threads.
    """

    def __init__(self, name: str, threads: int) -> None:
        torch.set_num_threads(threads)
        config = TrainConfig(name, AHEAD[name])
        self.learner, self._run = config.make_learner(), config.run
        self._sampler, self._split = Sampler(config.make_family()), config.split()

    def collect(self, iteration: int) -> list[Rollout]:
        """Return the rollouts of an iteration."""
        tasks = self._split.train_tasks(self._run.tasks_per_batch, iteration)
        session = self._sampler.session(self.learner, tasks, self._run.episodes_per_task)
        rollouts = []
        for step in range(self.learner.inner_steps + 1):
            if step > 0:
                session.adapt()
            rollouts.append(self._sampler.run(session, 100 * iteration + step))
        return rollouts


def collect_on_request(pipe: Connection, name: str) -> None:
    """Collect whenever something is received, in a process of its own, and answer when it is done."""
    collector = Collector(name, 1)
    while (iteration := pipe.recv()) is not None:
        collector.collect(iteration)
        pipe.send(iteration)


def ahead(name: str, rounds: int) -> dict[str, float]:
    """Return the seconds of an iteration whose parts follow each other, and of one in which they overlap."""
    collector, (ours, theirs) = Collector(name, CORES), get_context("spawn").Pipe()
    with patch.dict(os.environ, LOCAL_WORLD_SIZE=str(CORES), OMP_NUM_THREADS="1"):
        process = get_context("spawn").Process(target=collect_on_request, args=(theirs, name), daemon=True)
        process.start()
        ours.send(-1)
        ours.recv()
    overlapped: list[float] = []
    parts: dict[int, list[tuple[float, float]]] = {threads: [] for threads in range(1, CORES + 1)}
    for turn in range(rounds + 1):
        for threads, seconds in parts.items():
            torch.set_num_threads(threads)
            began = time.perf_counter()
            rollouts = collector.collect(turn)
            collected = time.perf_counter()
            collector.learner.update(rollouts)
            seconds.append((collected - began, time.perf_counter() - collected))
        torch.set_num_threads(1)
        began = time.perf_counter()
        ours.send(turn)
        collector.learner.update(rollouts)
        ours.recv()
        overlapped.append(time.perf_counter() - began)
    ours.send(None)
    process.join()
    # The first turn warms up.
    medians = [tuple(map(statistics.median, zip(*seconds[1:], strict=True))) for seconds in parts.values()]
    sampling, update = min(medians, key=sum)
    return {"sampling": sampling, "update": update, "overlapped": statistics.median(overlapped[1:])}


def table(path: Path = RESULTS) -> str:
    """Return the results as a Markdown table."""
    content = json.loads(path.read_text())
    lines = [
        "| | sampling, s | update, s | one after the other, s | overlapped, s | gain |",
        "|---|---|---|---|---|---|",
    ]
    whole, divided = content["halves"]["whole"], content["halves"]["halves"]
    lines.append(
        f"| maml-trpo, halves of a batch | {whole:.2f} | | {whole:.2f} | {divided:.2f} | {whole / divided:.2f} |"
    )
    for name, row in content["ahead"].items():
        parts = row["sampling"] + row["update"]
        cells = [row["sampling"], row["update"], parts, row["overlapped"], parts / row["overlapped"]]
        lines.append(f"| {name}, next batch during the update | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--horizon", type=int, default=100, help="steps of an episode of HalfCheetahVel's halves")
    options = parser.parse_args(arguments)
    keep_freed_memory()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    found = {name: ahead(name, options.rounds) for name in AHEAD}
    RESULTS.write_text(json.dumps({"halves": halves(options.rounds, options.horizon), "ahead": found}, indent=1) + "\n")
    print(table())


if __name__ == "__main__":
    main()
