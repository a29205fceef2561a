"""Counting failures by account and by address, so that guessing passwords takes years."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

_KEYS = 10_000  # the oldest is forgotten beyond: an attacker cannot take the memory


class Brake:
    """At most `tries` failures of one key in `seconds`; then it waits. Thread-safe, in memory."""

    def __init__(self, tries: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._tries, self._seconds, self._clock = tries, seconds, clock
        self._lock = threading.Lock()
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def wait(self, key: str) -> float:
        """Seconds until this key may try again; 0 where it may now."""
        with self._lock:
            times = self._failures.get(key)
            if times is None or len(times) < self._tries:
                return 0.0
            return max(0.0, times[0] + self._seconds - self._clock())

    def failed(self, key: str) -> None:
        """One more failure."""
        with self._lock:
            times = self._failures.pop(key, None) or deque(maxlen=self._tries)
            while times and times[0] < self._clock() - self._seconds:
                times.popleft()
            times.append(self._clock())
            self._failures[key] = times
            while len(self._failures) > _KEYS:
                self._failures.popitem(last=False)

    def clear(self, key: str) -> None:
        """It succeeded: its failures are forgotten."""
        with self._lock:
            self._failures.pop(key, None)
