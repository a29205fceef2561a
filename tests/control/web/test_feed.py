"""The stream to browsers: nothing missed, nothing told that is not for all, and it ends when it should."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from sse_starlette.event import ServerSentEvent

from control.records import Event
from control.web.feed import BEHIND, Feed


class Source:
    """A ledger's events, in memory."""

    def __init__(self) -> None:
        self.all: list[Event] = []
        self.callbacks: list[Callable[[Event], None]] = []
        self.lock = threading.Lock()

    def events(self, after: int, limit: int = 500) -> list[Event]:
        return self.all[after : after + limit]

    def newest(self) -> int:
        return len(self.all)

    def listen(self, callback: Callable[[Event], None]) -> Callable[[], None]:
        self.callbacks.append(callback)
        return lambda: self.callbacks.remove(callback)

    def say(self, subject: str) -> None:
        with self.lock:
            event = Event(sequence=len(self.all) + 1, at=time.time(), kind="case", subject=subject, detail="engage")
            self.all.append(event)
        for callback in list(self.callbacks):
            callback(event)


async def take(stream: AsyncIterator[ServerSentEvent], count: int) -> list[dict[str, Any]]:
    """The next events: their name, number and data."""
    taken = []
    for _ in range(count):
        event = await asyncio.wait_for(anext(stream), 5)  # type: ignore[call-overload]
        taken.append({"name": event.event, "id": event.id, **json.loads(event.data or "{}")})
    return taken


def alive() -> bool:
    return True


def test_a_browser_that_comes_back_gets_what_it_missed_and_then_what_comes_once_each() -> None:
    source = Source()
    feed = Feed(source, 10)
    for number in range(5):
        source.say(f"a-{number}")

    async def listen() -> list[dict[str, Any]]:
        stream = feed.stream(3, 60, alive)
        missed = await take(stream, 3)
        threads = [threading.Thread(target=source.say, args=[f"b-{n}"]) for n in range(20)]
        for thread in threads:
            thread.start()
        return missed + await take(stream, 20)

    got = asyncio.run(listen())
    assert [event["name"] for event in got] == ["hello"] + ["change"] * 22
    assert [event["sequence"] for event in got] == [3, *range(4, 26)]
    assert {event["subject"] for event in got[1:]} == {"a-3", "a-4", *(f"b-{n}" for n in range(20))}
    assert all(set(event) <= {"name", "id", "sequence", "kind", "subject"} for event in got)  # never the detail


def test_one_that_missed_too_much_or_knows_another_ledger_loads_anew() -> None:
    source = Source()
    feed = Feed(source, 10)
    for number in range(BEHIND + 1):
        source.say(str(number))

    async def first(after: int) -> dict[str, Any]:
        return (await take(feed.stream(after, 60, alive), 1))[0]

    assert asyncio.run(first(0))["name"] == "reset"
    assert asyncio.run(first(BEHIND + 500)) == {"name": "reset", "id": str(BEHIND + 1), "sequence": BEHIND + 1}
    assert asyncio.run(first(1))["name"] == "hello"


def test_it_gives_signs_of_life_and_ends_with_the_session() -> None:
    feed, lives = Feed(Source(), 10), [True, True, False]

    async def listen() -> list[str]:
        return [event.event or "" async for event in feed.stream(0, 0.01, lambda: lives.pop(0))]

    assert asyncio.run(listen()) == ["hello", "beat", "beat", "ended"]


def test_a_session_that_ended_ends_the_stream_in_a_flood_too() -> None:
    source = Source()
    feed, flooding = Feed(source, 10), threading.Event()

    def flood() -> None:
        while not flooding.is_set():
            source.say("x")
            time.sleep(0.002)

    async def listen() -> str:
        names = [event.event async for event in feed.stream(0, 0.05, lambda: False)]
        return names[-1] or ""

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        assert asyncio.run(asyncio.wait_for(listen(), 5)) == "ended"
    finally:
        flooding.set()
        thread.join()


def test_closing_ends_every_stream_at_once_and_listens_no_more() -> None:
    source = Source()
    feed = Feed(source, 10)

    async def listen() -> float:
        stream = feed.stream(0, 60, alive)
        await take(stream, 1)
        threading.Timer(0.05, feed.close).start()
        start = time.monotonic()
        async for _ in stream:
            pass
        return time.monotonic() - start

    assert asyncio.run(listen()) < 2
    assert source.callbacks == []
    source.say("nobody hears")


def test_as_many_listen_as_may() -> None:
    feed = Feed(Source(), 2)

    async def listen() -> list[bool]:
        streams, full = [feed.stream(0, 60, alive) for _ in range(2)], []
        for stream in streams:
            full.append(feed.full)
            await take(stream, 1)
        full.append(feed.full)
        await streams[0].aclose()  # type: ignore[attr-defined]
        return [*full, feed.full]

    assert asyncio.run(listen()) == [False, False, True, False]
