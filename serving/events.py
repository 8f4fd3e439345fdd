"""What happens to tasks, told to pages that listen; one that does not keep up is cut off."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from metarl.serving.problems import NotStored

MAX_LISTENERS, MAX_WAITING = 64, 256


class Events:
    """The listeners, each with a queue."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[dict[str, Any] | None]] = set()

    def publish(self, kind: str, **content: Any) -> None:
        """Tell all listeners."""
        for each in list(self._queues):
            try:
                each.put_nowait({"kind": kind, **content})
            except asyncio.QueueFull:
                self._queues.discard(each)
                each.get_nowait()
                each.put_nowait(None)

    def close(self) -> None:
        """End all streams."""
        for each in self._queues:
            if not each.full():
                each.put_nowait(None)

    def check_room(self) -> None:
        """Raise ``NotStored`` when there are as many listeners as there may be."""
        if len(self._queues) >= MAX_LISTENERS:
            raise NotStored(f"{MAX_LISTENERS} pages are listening already; close one")

    async def listen(self) -> AsyncIterator[dict[str, Any]]:
        """Yield what happens from now on."""
        own: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(MAX_WAITING)
        self._queues.add(own)
        try:
            while (event := await own.get()) is not None:
                yield event
        finally:
            self._queues.discard(own)
