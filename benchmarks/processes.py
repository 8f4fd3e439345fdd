"""Cost of dividing one training run among processes: MAML-TRPO on HalfCheetahVel with one process and with several.

    python benchmarks/processes.py
    python benchmarks/processes.py --processes 1 2 --rounds 5 --horizon 200

The same iteration, at the published size, on every number of processes, each with one torch and one MuJoCo thread.
The numbers of processes take turns, so that whatever else the machine does affects all alike. Efficiency is the time of
one process over that of P processes, over P. Exchanges, and the bytes that a process gives to them, are those of an
iteration; seconds in them include waiting for the slowest process.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

RESULT = "benchmark: "


@dataclass(frozen=True)
class Options:
    """Measure iterations on several numbers of processes."""

    processes: tuple[int, ...] = (1, 2)
    """Numbers of processes; the first is the reference."""
    rounds: int = 3
    """How often each of them runs, in turn."""
    iterations: int = 4
    """Iterations of a run; the first is not counted."""
    horizon: int = 200
    """Steps of an episode."""
    tasks: int = 40
    """Tasks of an iteration."""
    episodes: int = 20
    """Episodes of each task in each rollout."""
    out: str = "benchmarks/results/processes.json"
    """File of the results."""
    worker: bool = False
    """Run as one of the processes."""


def work(options: Options) -> None:
    """Train as one of the processes, and let the first print what it measured."""
    import torch

    from metarl.agents.gradient.maml_trpo import MamlTrpoConfig
    from metarl.devices.distributed import DistributedProcesses, processes_here
    from metarl.run.config import RunConfig, TrainConfig
    from metarl.sampling.sampler import Sampler
    from metarl.seeding import derive_seed

    torch.set_num_threads(1)
    run = RunConfig(horizon=options.horizon, tasks_per_batch=options.tasks, episodes_per_task=options.episodes)
    config = TrainConfig("maml-trpo", "half-cheetah-vel", run, MamlTrpoConfig())
    with processes_here() as processes:
        learner, sampler, split = config.make_learner(), Sampler(config.make_family()), config.split()
        learner.processes, shard = processes, processes.shard(options.tasks)
        found = []
        for iteration in range(options.iterations):
            processes.all(True)  # so that all begin together
            before = measures(processes)
            began, began_cpu = time.perf_counter(), time.process_time()
            tasks = split.train_tasks(options.tasks, 1, iteration)[shard.rows]
            session = sampler.session(learner, tasks, options.episodes, shard)
            rollouts = []
            for step in range(learner.inner_steps + 1):
                if step > 0:
                    session.adapt()
                rollouts.append(sampler.run(session, derive_seed(1, "rollout", iteration, step)))
            learner.update(rollouts)
            seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
            spent = [after - value for after, value in zip(measures(processes), before, strict=True)]
            found.append([seconds, cpu, *spent])
        if processes.rank == 0:
            print(RESULT + json.dumps(found[1:]), flush=True)
    assert processes.size == 1 or isinstance(processes, DistributedProcesses)


def measures(processes: object) -> list[float]:
    """Return exchanges, bytes and seconds in exchanges so far."""
    return [float(getattr(processes, name, 0)) for name in ("exchanges", "bytes_given", "seconds")]


def run_once(options: Options, count: int) -> list[list[float]]:
    """Run a training on ``count`` processes; return the measures of each iteration but the first."""
    words = ["--worker", "--iterations", options.iterations, "--horizon", options.horizon]
    words += ["--tasks", options.tasks, "--episodes", options.episodes]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", count, __file__]
    # LOCAL_WORLD_SIZE is what decides the simulator's threads: as many as cores, or one with a process per core.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    cores = sorted(os.sched_getaffinity(0))[:count]
    done = subprocess.run(
        ["taskset", "-c", ",".join(map(str, cores)), *map(str, command), *map(str, words)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith(RESULT))
    found: list[list[float]] = json.loads(line.removeprefix(RESULT))
    return found


def main(options: Options) -> None:
    """Measure, print a table and write it."""
    rows: dict[int, list[list[float]]] = {count: [] for count in options.processes}
    for _ in range(options.rounds):
        for count in options.processes:
            rows[count] += run_once(options, count)
    reference, table = options.processes[0], {}
    for count, found in rows.items():
        seconds, cpu, exchanges, given, waiting = (statistics.median(column) for column in zip(*found, strict=True))
        table[str(count)] = {"seconds": seconds, "cpu_seconds_of_the_first": cpu, "exchanges": exchanges}
        table[str(count)] |= {"bytes": given, "milliseconds_in_exchanges": 1e3 * waiting}
    for count in rows:
        ideal = table[str(reference)]["seconds"] * reference / count
        row = table[str(count)]
        row["efficiency"] = ideal / row["seconds"]
        print(
            f"{count} processes: {row['seconds']:.2f} s an iteration, efficiency {row['efficiency']:.0%}, "
            f"{row['exchanges']:.0f} exchanges of {row['bytes'] / 1e3:.0f} kB in all, "
            f"{row['milliseconds_in_exchanges']:.1f} ms in them"
        )
    Path(options.out).write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    given = tyro.cli(Options)
    if given.worker:
        work(given)
    else:
        main(given)
