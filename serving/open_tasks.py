"""The tasks in memory: a bounded number, of which the least recently used one goes first."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from metarl.serving.live_task import LiveTask
from metarl.serving.metrics import Metrics
from metarl.serving.problems import BadRequest, OutOfOrder


@dataclass
class _Entry:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    live: LiveTask | None = None
    users: int = 0


class OpenTasks:
    """Tasks in memory, each used by one request at a time.

    Args:
        limit: how many stay.
        load: rebuilds a task from the database.
        metrics: where they are counted.
    """

    def __init__(self, limit: int, load: Callable[[str], Awaitable[LiveTask]], metrics: Metrics) -> None:
        self._limit, self._load, self._metrics = limit, load, metrics
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    @asynccontextmanager
    async def hold(self, task: str) -> AsyncIterator[LiveTask]:
        """Hold a task while a request works on it.

        A failure on the way leaves it in an unknown state, so it is then rebuilt for the next request; a refusal has
        changed nothing.
        """
        async with self._locked(task) as entry:
            if entry.live is None:
                entry.live = await self._load(task)
            try:
                yield entry.live
            except (BadRequest, OutOfOrder):
                raise
            except BaseException:
                entry.live = None
                raise

    @asynccontextmanager
    async def closed(self, task: str) -> AsyncIterator[None]:
        """Keep a task out of memory while it is deleted."""
        async with self._locked(task) as entry:
            entry.live = None
            yield

    def forget(self, task: str) -> None:
        """Drop a task that is being held; the next request rebuilds it."""
        self._entries[task].live = None

    @asynccontextmanager
    async def _locked(self, task: str) -> AsyncIterator[_Entry]:
        entry = self._entries.setdefault(task, _Entry())
        self._entries.move_to_end(task)
        entry.users += 1
        try:
            async with entry.lock:
                yield entry
        finally:
            entry.users -= 1
            self._shrink(task if entry.live is None else None)

    def _shrink(self, empty: str | None) -> None:
        if empty is not None and empty in self._entries and not self._entries[empty].users:
            del self._entries[empty]
        if len(self._entries) > self._limit:
            idle = [task for task, entry in self._entries.items() if not entry.users]
            for task in idle[: len(self._entries) - self._limit]:
                del self._entries[task]
        self._metrics.open_tasks.set(len(self._entries))
