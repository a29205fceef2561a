"""Waiting: longer after each failure, and never longer than there is nothing to do."""

from __future__ import annotations

import os
import select


class Backoff:
    """Waits that double, with jitter so that a fleet does not come back in step. Seconds."""

    def __init__(self, first: float, longest: float) -> None:
        self._first, self._longest, self._next = first, longest, first

    def next(self) -> float:
        """How long to wait now."""
        wait = self._next * (0.75 + os.urandom(1)[0] / 512)
        self._next = min(self._next * 2, self._longest)
        return wait

    def reset(self) -> None:
        """Begin again with the shortest wait."""
        self._next = self._first


class Wake:
    """Lets another thread end a wait in select: `fileno()` becomes readable after `set()`."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._read

    def set(self) -> None:
        """End the wait now, or the next one."""
        try:
            os.write(self._write, b"x")
        except BlockingIOError:
            return  # already set many times over

    def clear(self) -> None:
        """Ready for the next wait."""
        try:
            os.read(self._read, 4096)
        except BlockingIOError:
            return

    def wait(self, seconds: float) -> None:
        """Sleep until `set()` or the time is over."""
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        poll.poll(max(0.0, seconds) * 1000)
        self.clear()
