"""The durable outbox: sealed containers in SQLite until the broker has acknowledged them.

- WAL with synchronous=FULL: a commit that returned survives a power cut (about 4 ms; NORMAL may lose the last ones).
- A row and the chain state it implies are one transaction: neither is ever there without the other.
- The identifier of a container is unique, also after its row is gone, so a resend after a lost reply is stored once.
- Time: a row's age is measured with the boot-time clock of the boot that stored it. A jump of the wall clock, however
  far, expires nothing; only across a reboot is the wall clock believed.
- secure_delete: what was forwarded is overwritten, ciphertext or not.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from appliance.courier.advice import FULL, advice
from appliance.courier.salvage import is_damage, salvage
from appliance.courier.schema import EXPIRE, MOVE_CHAIN, SCHEMA
from appliance.errors import CourierError, SealError
from appliance.limits import LIMITS
from appliance.records import Header
from appliance.storage.reserve import Reserve
from appliance.trust import seal

_SOUND_BYTES = 64_000_000  # up to this size a file is read whole at the start; a larger one would delay it too long
_LOG_PAGES = 64  # a short write-ahead log: on a full disk it must fit into the database once more
_AT_ONCE = 8  # rows deleted in one transaction: overwritten, they must fit into the reserve
_SEEN_KEPT = 10_000  # identifiers remembered after their rows are gone


class OutboxError(CourierError):
    """The envelope was not stored; its maker must keep it and try again."""


@dataclass(frozen=True)
class ChainPoint:
    """The last alert stored for a deployment: its chain, its sequence number, SHA-256 of its container."""

    chain: str
    sequence: int
    previous: str


@dataclass(frozen=True)
class Row:
    """A stored container. `number` orders rows as they came; in `remaining` seconds it will be of no use."""

    number: int
    header: Header
    container: bytes
    remaining: float


@dataclass(frozen=True)
class Clock:
    """Wall clock (UTC seconds), boot-time clock (seconds, runs on in sleep) and the identity of this boot."""

    wall: Callable[[], float] = time.time
    boot: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME)
    boot_id: str = ""

    def identity(self) -> str:
        """This boot, told apart from all others."""
        path = Path("/proc/sys/kernel/random/boot_id")
        return self.boot_id or (path.read_text().strip() if path.exists() else "unknown")


class Outbox:
    """Sealed containers on their way. Thread-safe; one process at a time."""

    def __init__(
        self, path: Path, *, rows: int = LIMITS.outbox_rows, clock: Clock | None = None,
        say: Callable[[str], None] = print, patience: float = 5.0,
    ) -> None:  # fmt: skip
        self._path, self._limit, self._say = path, rows, say
        self._clock, self._patience = clock or Clock(), patience
        self._boot = self._clock.identity()
        self._lock = threading.RLock()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._reserve = Reserve(path.with_name(path.name + ".reserve"))
        self._db = self._open_or_replace()

    def put(self, container: bytes, header: Header) -> bool:
        """Store a container; True once it is on disk, False where it was there before. Raises OutboxError."""

        def work() -> int:
            with self._lock, self._storing():
                if not self._has_free_pages() and not self._reserve.hold():
                    raise OutboxError(FULL.format(self._path))
                if self._db.execute("SELECT 1 FROM seen WHERE id = ?", (header.id,)).fetchone():
                    return 0
                if self._depth() >= self._limit:
                    raise OutboxError(
                        f"the outbox holds {self._limit} envelopes and is full; check the way to the broker"
                    )
                self._insert(container, header, self._boot, self._clock.boot())
                return 1

        return bool(self._make_room(work, deletes=False))

    def rows(self, after: int, limit: int) -> list[Row]:
        """At most `limit` rows with a greater number than `after`, oldest first. Raises CourierError."""
        with self._lock, self._reading():
            found = self._db.execute(
                "SELECT number, container, created, expires, boot, stored FROM envelopes WHERE number > ? "
                "ORDER BY number LIMIT ?", (after, limit),
            ).fetchall()  # fmt: skip
        return [row for n, blob, *when in found if (row := self._row(n, blob, self._remaining(*when))) is not None]

    def _row(self, number: int, container: bytes, remaining: float) -> Row | None:
        """A row whose container was damaged on disk is dropped and counted: nobody could verify it."""
        try:
            return Row(number, seal.take_apart(container, LIMITS.envelope_bytes).header, container, remaining)
        except SealError as error:
            self._say(
                f"outbox {self._path}: envelope {number} was damaged on disk and is lost ({error}); check the disk"
            )
            try:
                self.delete([number], lost=1)
            except OutboxError as failure:
                self._say(str(failure))
            return None

    def delete(self, numbers: Iterable[int], *, lost: int = 0) -> None:
        """Forget rows the broker has acknowledged. Raises OutboxError; then some are still there."""
        gone = [(number,) for number in numbers]
        for start in range(0, len(gone), _AT_ONCE):
            self._make_room(partial(self._delete, gone[start : start + _AT_ONCE], lost))

    def _delete(self, gone: list[tuple[int]], lost: int) -> int:
        with self._lock, self._storing():
            if lost:
                self._add("lost", lost)
            self._db.execute("DELETE FROM seen WHERE number <= (SELECT max(number) FROM seen) - ?", (_SEEN_KEPT,))
            return self._db.executemany("DELETE FROM envelopes WHERE number = ?", gone).rowcount

    def set_aside(self, number: int, reason: str) -> None:
        """Move a row that cannot be sent to the dead letters, with the reason. Raises OutboxError."""
        self._make_room(partial(self._set_aside, number, reason))

    def _set_aside(self, number: int, reason: str) -> int:
        with self._lock, self._storing():
            self._db.execute(
                "INSERT INTO dead_letters SELECT number, id, ?, container FROM envelopes WHERE number = ?",
                (reason, number),
            )
            return self._db.execute("DELETE FROM envelopes WHERE number = ?", (number,)).rowcount

    def dead_letters(self) -> list[tuple[str, str]]:
        """Identifier and reason of each row that could not be sent. Raises CourierError."""
        with self._lock, self._reading():
            return self._db.execute("SELECT id, reason FROM dead_letters ORDER BY number").fetchall()

    def expire(self) -> int:
        """Drop and count the rows whose time is over; the result is how many. Raises OutboxError."""
        total = 0
        while over := self._make_room(self._expire):
            total += over
        return total

    def _expire(self) -> int:
        times = (self._boot, self._clock.boot(), self._boot, self._clock.wall(), _AT_ONCE)
        with self._lock, self._storing():
            over = self._db.execute(EXPIRE, times).rowcount
            if over:
                self._add("expired", over)
            return over

    def _make_room(self, work: Callable[[], int], *, deletes: bool = True) -> int:
        """Work; where the disk is full once more, with a shorter log and, to delete, the space kept in reserve."""
        with self._lock:
            try:
                return work()
            except OutboxError as error:
                if "disk is full" not in str(error):
                    raise
                size = self._reserve.size
                self._reserve.release()
                self._checkpoint()  # the log's pages may need the reserve to get into the database
                if not deletes and not self._has_free_pages() and self._reserve.hold() and self._reserve.size < size:
                    raise
            try:
                return work()
            finally:
                self._checkpoint()
                self._reserve.hold()

    def _has_free_pages(self) -> bool:
        """Whether the file itself has room: then it need not grow, and no reserve is needed to delete from it."""
        (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
        return bool(free >= _LOG_PAGES)

    def _checkpoint(self) -> None:
        """Shorten the write-ahead log. What does not fit yet stays in it and is as safe there."""
        with suppress(sqlite3.OperationalError):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def chain(self, deployment: str) -> ChainPoint | None:
        """Where a deployment's chain of alerts stands. Raises CourierError."""
        with self._lock, self._reading():
            found = self._db.execute(
                "SELECT chain, sequence, previous FROM chains WHERE deployment = ?", (deployment,)
            ).fetchone()
        return ChainPoint(*found) if found else None

    def count(self, name: str) -> int:
        """A counter that survives restarts: `expired`, `lost` (rows of a damaged file that could not be saved)."""
        with self._lock, self._reading():
            found = self._db.execute("SELECT value FROM counts WHERE name = ?", (name,)).fetchone()
        return int(found[0]) if found else 0

    def depth(self) -> int:
        """How many rows wait. Raises CourierError."""
        with self._lock, self._reading():
            return self._depth()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _depth(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM envelopes").fetchone()[0])

    def _insert(self, container: bytes, header: Header, boot: str, stored: float) -> None:
        cursor = self._db.execute(
            "INSERT INTO envelopes (id, created, expires, boot, stored, container) VALUES (?, ?, ?, ?, ?, ?)",
            (header.id, header.created, header.expires, boot, stored, container),
        )
        self._db.execute("INSERT INTO seen VALUES (?, ?)", (header.id, cursor.lastrowid))
        if header.kind == "alert" and header.chain:
            point = (header.deployment, header.chain, header.sequence, hashlib.sha256(container).hexdigest())
            self._db.execute(MOVE_CHAIN, point)

    def _add(self, name: str, amount: int) -> None:
        self._db.execute(
            "INSERT INTO counts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
            (name, amount),
        )

    def _remaining(self, created: float, expires: float, boot: str, stored: float) -> float:
        if boot == self._boot:
            return expires - created - (self._clock.boot() - stored)
        return expires - self._clock.wall()

    @contextmanager
    def _storing(self) -> Iterator[None]:
        """One transaction, undone by any exception."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._undo()
            self._damaged(error)
            raise OutboxError(advice(self._path, error)) from error
        except BaseException:
            self._undo()
            raise

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            self._damaged(error)
            raise CourierError(advice(self._path, error)) from error

    def _undo(self) -> None:
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except sqlite3.Error as error:
            self._say(f"outbox: cannot roll back ({error})")

    def _damaged(self, error: sqlite3.Error) -> None:
        """A damaged file is replaced at once: the next attempt meets a sound one."""
        if is_damage(error):
            self._db.close()
            self._db = self._replace(str(error))

    def _open_or_replace(self) -> sqlite3.Connection:
        try:
            return self._open()
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise CourierError(advice(self._path, error)) from error
            return self._replace(str(error))

    def _open(self) -> sqlite3.Connection:
        try:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            raise CourierError(f"{self._path}: {error.strerror}; the outbox needs a folder it may write") from error
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=self._patience)
        try:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")  # a second courier on the same file is told so
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA secure_delete = ON")
            db.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
            if self._path.stat().st_size <= _SOUND_BYTES:
                (sound,) = db.execute("PRAGMA quick_check(1)").fetchone()
                if sound != "ok":
                    raise sqlite3.DatabaseError(f"malformed: {sound}")
            db.executescript(SCHEMA)
        except sqlite3.Error:
            db.close()
            raise
        return db

    def _replace(self, reason: str) -> sqlite3.Connection:
        """Move the damaged file aside, start a new one, and save from the old whatever still reads."""
        aside = self._path.with_name(f"{self._path.name}.damaged-{int(self._clock.wall())}-{os.getpid()}")
        for suffix in ("", "-wal", "-shm"):
            source = self._path.with_name(self._path.name + suffix)
            if source.exists():
                source.rename(aside.with_name(aside.name + suffix))
        self._db = db = self._open()
        saved = 0
        for container, header, boot, stored in salvage(aside):
            self._insert(container, header, boot, stored)
            saved += 1
        self._say(
            f"outbox {self._path} was damaged ({reason}): moved to {aside.name}, {saved} envelope(s) saved from it; "
            "check the disk"
        )
        return db
