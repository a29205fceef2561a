"""From the ledger's threads to every browser that listens: server-sent events that resume where they broke off.

A browser hears that something happened and to which case, never what: it asks again for what its member may see.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from sse_starlette.event import ServerSentEvent
from starlette.concurrency import run_in_threadpool

from control.records import Event

BEHIND = 500  # events; a browser that missed more loads everything anew


class Source(Protocol):
    """What the feed needs of the ledger."""

    def events(self, after: int, limit: int = 500) -> list[Event]: ...
    def newest(self) -> int: ...
    def listen(self, callback: Callable[[Event], None]) -> Callable[[], None]: ...


class Feed:
    """Wakes the streams of one console. `close` ends them all, so that the server can stop. Thread-safe."""

    def __init__(self, source: Source, most: int) -> None:
        self._source, self._most = source, most
        self._lock = threading.Lock()
        self._listening: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}
        self._closed = False
        self._end = source.listen(self._heard)

    @property
    def full(self) -> bool:
        """Whether as many browsers listen as may."""
        return len(self._listening) >= self._most

    def close(self) -> None:
        """End every stream; any thread may call this."""
        self._closed = True
        self._end()
        self._wake()

    async def stream(self, after: int, beat: float, lives: Callable[[], bool]) -> AsyncIterator[ServerSentEvent]:
        """Every event after number `after`, as it comes; a sign of life every `beat` seconds while `lives` holds."""
        with self._listener() as wake:
            newest = await run_in_threadpool(self._source.newest)
            if after > newest or newest - after > BEHIND:
                after = newest
                yield _message("reset", newest)
            else:
                yield _message("hello", after)
            checked = time.monotonic()
            while not self._closed:
                wake.clear()
                for event in await run_in_threadpool(self._source.events, after, BEHIND):
                    after = event.sequence
                    yield _message("change", after, kind=event.kind, subject=event.subject)
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(wake.wait(), beat)
                if time.monotonic() - checked < beat:
                    continue
                checked = time.monotonic()
                if not await run_in_threadpool(lives):
                    yield _message("ended", after)
                    return
                yield _message("beat", after)

    @contextmanager
    def _listener(self) -> Iterator[asyncio.Event]:
        wake = asyncio.Event()
        with self._lock:
            self._listening[wake] = asyncio.get_running_loop()
        try:
            yield wake
        finally:
            with self._lock:
                self._listening.pop(wake, None)

    def _heard(self, event: Event) -> None:
        self._wake()

    def _wake(self) -> None:
        """From any thread. A loop that was closed meanwhile has no listeners left that matter."""
        with self._lock:
            listening = list(self._listening.items())
        for wake, loop in listening:
            if not loop.is_closed():
                loop.call_soon_threadsafe(wake.set)


def _message(name: str, sequence: int, **data: str) -> ServerSentEvent:
    return ServerSentEvent(json.dumps({"sequence": sequence, **data}), event=name, id=str(sequence), retry=1000)
