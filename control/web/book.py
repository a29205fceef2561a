"""The log as an auditor reads it: verified as a whole, and again whenever it grew."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

from securesystemslib.signer import Key

from appliance.errors import SealError
from appliance.trust import audit


@dataclass(frozen=True)
class Reading:
    """What verifying found: every entry, or why the log must not be believed. `at` is UTC seconds."""

    entries: tuple[audit.Entry, ...]
    refusal: str
    at: float


class Book:
    """One log. Leafing through it does not verify it again; a changed byte, length or time does. Thread-safe."""

    def __init__(self, path: Path, key: Key) -> None:
        self._path, self._key = path, key
        self._lock = threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._reading = Reading((), "", 0.0)

    def read(self) -> Reading:
        """The newest reading. About 0.2 ms an entry where the log changed since."""
        with self._lock:
            stamp = self._now()
            if stamp is None or stamp != self._stamp:
                self._reading, self._stamp = self._verified(), stamp
            return self._reading

    def _verified(self) -> Reading:
        try:
            return Reading(tuple(audit.verify(self._path, [self._key])), "", time.time())
        except SealError as error:
            return Reading((), str(error), time.time())

    def _now(self) -> tuple[int, int, int] | None:
        """What changes with the file, its rename included; None where there is none yet."""
        if not self._path.exists():
            return None
        found = self._path.stat()
        return found.st_ino, found.st_size, found.st_mtime_ns
