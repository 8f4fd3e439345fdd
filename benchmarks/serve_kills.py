"""Servers that are killed while tasks act in them: nothing that was answered may be lost, and no action may change.

    python -m benchmarks.serve_kills            # 20 kills of a server of each of two learners

Each server has some clients, each with a task of its own. It is killed (SIGKILL) at a random moment and started again,
over and over. The episodes are compared with those of a server that nobody killed: actions, returns and adaptations
must be the same, bit for bit.
"""

import argparse
import random
import tempfile
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.served_process import ServedProcess, free_port
from metarl.client import Client
from metarl.evaluation.evaluate import load_run
from metarl.run.config import RunConfig, TrainConfig
from metarl.training.train import train
from metarl.worlds.numpy_env import TaskEnv

FORKED = get_context("fork")
LEARNERS = ("maml-trpo", "rl2")
PATIENCE = 120.0
# What a client saw of an episode: actions, what feedback answered, and the task's history at the end.
Seen = list[Any]


def drive(url: str, run: str, number: int, episodes: int, stop: Event | None = None) -> Seen:
    """Act in the episodes of a new task; return all that was answered.

    With ``stop``, further episodes follow until it is set.
    """
    config, _, _ = load_run(run)
    env = TaskEnv(config.make_family(), config.split().held_out_tasks("test", number + 1)[number:])
    seen: Seen = []
    with made(Client(url, patience=PATIENCE), number) as task:
        while len(seen) < episodes or not (stop is None or stop.is_set()):
            observation, _ = env.reset(seed=len(seen))
            episode: list[Any] = []
            ended = False
            while not ended:
                action = task.act(observation)
                observation, reward, terminated, truncated, _ = env.step(np.asarray(action, env.action_space.dtype))
                outcome = task.feedback(reward, terminated, truncated, observation)
                ended = outcome.ended
                episode.append((np.asarray(action).tolist(), outcome.returns, outcome.adaptation_steps))
            seen.append(episode)
        returns = [each["returns"][0] for each in task.state()["history"]]
    assert returns == [episode[-1][1][0] for episode in seen], "an episode that was answered is not there"
    return seen


def _drive_into(end: Connection, url: str, run: str, number: int, done: Event) -> None:
    end.send(drive(url, run, number, 3, done))


def made(client: Client, number: int) -> Any:
    """Make a task; it may have been made even though the server was killed before it answered."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return client.task(f"client {number}", seed=number)
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def survive(run: str, folder: Path, kills: int, clients: int = 4, seed: int = 0) -> int:
    """Kill a run's server over and over; return how many steps were answered in all.

    Raises:
        AssertionError: when something differs from a server that nobody killed.
    """
    draw, port = random.Random(seed), free_port()
    database = f"sqlite:///{folder / 'killed.sqlite'}"
    server, done = ServedProcess(run, database, port=port), FORKED.Event()
    # Processes, as a process with threads cannot be forked safely.
    ends = [FORKED.Pipe(duplex=False) for _ in range(clients)]
    for number, (_, end) in enumerate(ends):
        FORKED.Process(target=_drive_into, args=(end, server.url, run, number, done), daemon=True).start()
    for _ in range(kills):
        time.sleep(draw.uniform(0.05, 1.0))
        server.kill()
        server = ServedProcess(run, database, port=port)
    done.set()
    found: list[Seen] = [end.recv() for end, _ in ends]
    assert server.stop() == 0
    whole = ServedProcess(run, f"sqlite:///{folder / 'whole.sqlite'}")
    for number, seen in enumerate(found):
        assert drive(whole.url, run, number, len(seen)) == seen, f"client {number} was answered otherwise"
    whole.stop()
    return sum(len(episode) for seen in found for episode in seen)


def main() -> None:
    """Train small learners, kill their servers, and print the outcomes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for learner in LEARNERS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            run = RunConfig(iterations=2, tasks_per_batch=4, episodes_per_task=2, horizon=20, track="disabled")
            run = RunConfig(**{**vars(run), "out": str(folder / "run")})
            train(TrainConfig(learner, "navigation-2d", run))
            steps = survive(str(folder / "run"), folder, options.kills, seed=options.seed)
            print(f"{learner}: {options.kills} kills, {steps} steps by 4 clients, all as without kills", flush=True)


if __name__ == "__main__":
    main()
