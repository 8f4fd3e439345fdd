"""The server: a run and a database, served by uvicorn until it is stopped."""

import asyncio
import gc
import hashlib
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import uvicorn

from metarl.errors import InputError
from metarl.evaluation.evaluate import load_run
from metarl.run.directory import CheckpointChoice, RunDirectory
from metarl.run.identity import run_id
from metarl.serving.app import Limits, make_app
from metarl.serving.catalogue import learner_of
from metarl.serving.database import Database
from metarl.serving.models import SERVICES
from metarl.serving.served import Served
from metarl.serving.service import Service
from metarl.serving.statements import add

# Connections that are open at a time; more are refused with 503.
MAX_CONNECTIONS = 1024
# Seconds that a stop waits for requests, and streams of events, to end.
GRACE = 2
# Seconds after which a thread that computes gives way to the one that answers; Python's own 5 ms add up in an answer.
SWITCH = 0.0005


def load_served(path: str, device: str | None, checkpoint: CheckpointChoice) -> Served:
    """Return the learner of a run.

    Raises:
        InputError: as ``load_run``.
    """
    directory = RunDirectory(path)
    config, learner, iteration = load_run(path, device, checkpoint)
    digest = hashlib.sha256(directory.find_checkpoint(checkpoint).read_bytes()).hexdigest()
    run = run_id(directory.read_config()["tracking_id"])
    return Served(config, learner, config.make_family(), run, digest, iteration)


def open_database(url: str, served: Served) -> Database:
    """Return the database of a learner's tasks.

    Raises:
        InputError: as ``Database``, or when its tasks are another learner's.
    """
    database = Database(url)
    found = database.read_now(learner_of)
    own = (served.run, served.checkpoint)
    if found is None:
        database.write_now((add(SERVICES), {"id": 1, "run": served.run, "checkpoint": served.checkpoint}))
    elif found != own:
        database.close()
        what = "checkpoint of this run (--checkpoint)" if found[0] == served.run else f"run, {found[0]}"
        raise InputError(
            f"the tasks in {database.name} were acted in by another {what}, to which their states belong; serve that "
            "one, or give another --database"
        )
    return database


def read_token(path: str | None) -> str | None:
    """Return the token in a file, or None without a file.

    Raises:
        InputError: when the file cannot be read, or holds no token.
    """
    if path is None:
        return None
    try:
        token = Path(path).expanduser().read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the token from {path}: {getattr(error, 'strerror', None) or error}") from None
    if not token or len(token.split()) > 1 or not token.isascii():
        raise InputError(f"{path} must hold one line, the token, in ASCII and without spaces")
    return token


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; 0 takes a free port.

    Raises:
        InputError: when the address or the port is not available.
    """
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=kind, backlog=MAX_CONNECTIONS)
    except OSError as error:
        reason = str(error.strerror).partition(" (while")[0]
        raise InputError(f"cannot listen at {host}:{port}: {reason}; choose another --port") from None


def serve(service: Service, limits: Limits, listener: socket.socket) -> None:
    """Serve until a signal comes."""
    torch.set_num_threads(1)
    sys.setswitchinterval(SWITCH)
    gc.collect()
    gc.freeze()  # a full collection would otherwise look through all modules, and stop every request for 0.2 s
    config = uvicorn.Config(
        make_app(service, limits),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=GRACE,
    )
    _Server(config, service).run([listener])


class _Server(uvicorn.Server):
    """Ends the streams of events at a signal, which would otherwise never end, and returns once all is done."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at SIGINT and SIGTERM."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop)
        yield

    def _stop(self) -> None:
        self._service.events.close()
        self.should_exit = True
