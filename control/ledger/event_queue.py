"""What consoles must hear of: written with the act it tells of, rung when that act is on disk, in order."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable

from control.ledger.ledger_file import LedgerFile
from control.records import Event

Listener = Callable[[Event], None]


class Bell:
    """Events of one ledger. Thread-safe. A listener returns soon, raises nothing, and may ask the ledger."""

    def __init__(self, file: LedgerFile, clock: Callable[[], float]) -> None:
        self._file, self._clock = file, clock
        self._order = threading.RLock()  # never awaited while the file's lock is held
        self._listeners: list[Listener] = []
        self._rung = self.newest()

    def write(self, db: sqlite3.Connection, kind: str, subject: str, detail: str = "") -> int:
        """Write an event within a transaction; `ring` tells of it later. Returns its sequence number."""
        query = "INSERT INTO events (at, kind, subject, detail) VALUES (?, ?, ?, ?)"
        return int(db.execute(query, (self._clock(), kind, subject, detail)).lastrowid or 0)

    def ring(self) -> None:
        """Tell the listeners of what was written since, in the order of its sequence numbers."""
        with self._order:
            for event in self.after(self._rung, -1):
                self._rung = event.sequence
                for listener in list(self._listeners):
                    listener(event)

    def after(self, sequence: int, limit: int) -> list[Event]:
        """Events later than a sequence number, oldest first; a limit of -1 is none."""
        query = "SELECT sequence, at, kind, subject, detail FROM events WHERE sequence > ? ORDER BY sequence LIMIT ?"
        rows = self._file.read(lambda db: db.execute(query, (sequence, limit)).fetchall())
        return [Event(sequence=n, at=at, kind=kind, subject=subject, detail=detail)
                for n, at, kind, subject, detail in rows]  # fmt: skip

    def newest(self) -> int:
        """The last sequence number given, also where its event is forgotten by now; 0 where there was none."""
        query = "SELECT seq FROM sqlite_sequence WHERE name = 'events'"
        found = self._file.read(lambda db: db.execute(query).fetchone())
        return int(found[0]) if found else 0

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Ring for this listener too, until the returned function is called."""
        with self._order:
            self._listeners.append(listener)

        def end() -> None:
            with self._order:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return end
