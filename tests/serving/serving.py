"""Servers for tests in this process, without a socket; ``benchmarks.served_process`` has those of their own."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.served_process import OPEN
from metarl.agents.gradient.maml_trpo import MamlTrpoConfig
from metarl.client import Client, RemoteTask
from metarl.run.config import RunConfig, TrainConfig
from metarl.serving.app import Limits, make_app
from metarl.serving.server import load_served, open_database
from metarl.serving.service import Service
from metarl.training.train import train
from metarl.worlds.numpy_env import TaskEnv
from tests.runs import tiny

UNKNOWN = "0" * 32
Trace = list[tuple[Any, Any, float]]


@cache
def trained(folder: Path, learner: str) -> str:
    """Return a run of a learner in 2D navigation (of DQN in GridNavi) that was trained for two iterations."""
    train(tiny(learner, folder / learner))
    return str(folder / learner)


def other(out: Path) -> str:
    """Return another run of MAML-TRPO."""
    run = RunConfig(iterations=1, tasks_per_batch=2, episodes_per_task=2, horizon=6, track="disabled", out=str(out))
    return str(train(TrainConfig("maml-trpo", "navigation-2d", run, MamlTrpoConfig(hidden_sizes=(4,)))).path)


class InProcess(httpx.BaseTransport):
    """Requests to an application in this process, whose event loop has a thread of its own."""

    def __init__(self, app: Any, address: str) -> None:
        self._asgi, self._loop = httpx.ASGITransport(app, client=(address, 1)), asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return asyncio.run_coroutine_threadsafe(self._answer(request), self._loop).result()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        asked = httpx.Request(request.method, request.url, headers=request.headers, content=request.read())
        answer = await self._asgi.handle_async_request(asked)
        return httpx.Response(answer.status_code, headers=answer.headers, content=await answer.aread())


@dataclass
class Server:
    """A server in this process.

    Attributes:
        http: requests to it.
        client: metarl's client of it.
        service: what its routes call.
    """

    http: httpx.Client
    client: Client
    service: Service

    def post(self, path: str, **content: Any) -> httpx.Response:
        return self.http.post(path, json=content)


@contextmanager
def served(
    run: str, database: str, limits: Limits = OPEN, open_tasks: int = 100, max_tasks: int = 1000
) -> Iterator[Server]:
    """Serve a run in this process."""
    learner = load_served(run, None, "latest")
    service = Service(learner, open_database(database, learner), 0.0, open_tasks, max_tasks)
    http = httpx.Client(transport=InProcess(make_app(service, limits), "127.0.0.1"), base_url="http://metarl")
    try:
        yield Server(http, Client("http://metarl", limits.token, 0.0, http), service)
    finally:
        http.close()
        service.close()


def lived(task: RemoteTask, env: TaskEnv, start: int, **first: Any) -> Trace:
    """Step one episode of a task over HTTP from one of the env's starts; return its actions, observations, rewards."""
    observation, _ = env.reset(seed=start)
    trace: Trace = []
    action, ended = task.act(observation, **first), False
    while not ended:
        observation, reward, terminated, truncated, _ = env.step(np.asarray(action, env.action_space.dtype))
        trace.append((action, observation.tolist(), reward))
        ended = task.feedback(reward, terminated, truncated, observation).ended
        action = None if ended else task.act()
    return trace


def same(one: Trace, two: Trace) -> bool:
    """Return whether two episodes are equal, bit for bit."""
    return len(one) == len(two) and all(
        np.array_equal(first[0], second[0]) and first[1:] == second[1:] for first, second in zip(one, two, strict=True)
    )
