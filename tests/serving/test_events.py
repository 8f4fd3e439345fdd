"""Server-sent events: those who do not keep up are cut off, and there are only so many."""

import asyncio
from typing import Any

import pytest

from metarl.serving.events import MAX_LISTENERS, MAX_WAITING, Events
from metarl.serving.problems import NotStored


def test_a_listener_that_does_not_keep_up_is_cut_off_and_others_go_on() -> None:
    async def listen() -> tuple[list[Any], Any]:
        events = Events()
        slow, quick = events.listen(), events.listen()
        waiting = [asyncio.ensure_future(anext(each)) for each in (slow, quick)]
        await asyncio.sleep(0)
        events.publish("first")
        firsts = [await each for each in waiting]
        for number in range(MAX_WAITING + 1):
            events.publish("next", number=number)
            assert (await anext(quick))["number"] == number
        taken = [event async for event in slow]
        return firsts, taken

    firsts, taken = asyncio.run(listen())
    assert firsts == [{"kind": "first"}] * 2
    assert [event["number"] for event in taken] == list(range(1, MAX_WAITING))


def test_only_so_many_listen() -> None:
    async def fill() -> None:
        events = Events()
        waiting = []
        for _ in range(MAX_LISTENERS):
            events.check_room()
            waiting.append(asyncio.ensure_future(anext(events.listen())))
            await asyncio.sleep(0)
        with pytest.raises(NotStored, match="64 pages are listening already; close one"):
            events.check_room()
        events.close()
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(fill())
