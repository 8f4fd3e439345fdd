"""A server of ``metarl serve`` in a process of its own, forked from this one, so that nothing is imported again."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from metarl.serving.app import Limits
from metarl.serving.server import listen, load_served, open_database, serve
from metarl.serving.service import Service

OPEN = Limits()


class ServedProcess:
    """A server that is listening by the time this object is made.

    Attributes:
        url: where it listens.
        pid: its process.

    Args:
        run: directory of the run.
        database: URL of the database.
        limits: what it accepts.
        port: on which it is to listen; 0 takes a free one.
        open_tasks: tasks that stay in memory.
        window: seconds for which the first request for an action waits for others.
    """

    def __init__(
        self,
        run: str,
        database: str,
        limits: Limits = OPEN,
        port: int = 0,
        open_tasks: int = 100,
        window: float = 0.001,
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        if (child := os.fork()) == 0:
            code = 70
            try:
                learner = load_served(run, None, "latest")
                service = Service(learner, open_database(database, learner), window, open_tasks, 1000)
                serve(service, limits, listen("127.0.0.1", self.port))
                code = 0
            finally:
                os._exit(code)
        self.pid = child
        self._wait()

    def kill(self) -> None:
        """Kill the server at once."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def stop(self) -> int:
        """Ask the server to stop; return its exit code."""
        os.kill(self.pid, signal.SIGTERM)
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)

    def _wait(self) -> None:
        for _ in range(1200):
            ended, _ = os.waitpid(self.pid, os.WNOHANG)
            assert not ended, "the server has ended"
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError("the server does not listen")


@contextmanager
def served_process(run: str, database: str, limits: Limits = OPEN, window: float = 0.001) -> Iterator[ServedProcess]:
    """Serve a run in a process of its own until the block ends."""
    server = ServedProcess(run, database, limits, window=window)
    try:
        yield server
    finally:
        server.stop()


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
