"""The ledger's file: SQLite with one connection, one lock and one process; what it says of a full disk.

- WAL with synchronous=FULL: an act that was answered survives a power cut (about 4 ms a commit).
- secure_delete: what is erased is overwritten in the file, too; that it is noise is the vault's doing.
- A reserve is kept for the moment the disk is full: new alerts are then refused (the broker keeps them and sends them
  again), while people's answers and erasures still find room.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from appliance.storage.reserve import Reserve
from control.cases.adjudication import LedgerError

NAME = "ledger.sqlite"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS keys (record TEXT PRIMARY KEY, wrapped BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS deployments (
    name TEXT PRIMARY KEY, document TEXT NOT NULL, digest TEXT NOT NULL, added REAL NOT NULL, erased REAL,
    erasure TEXT, pictures TEXT) WITHOUT ROWID;  -- pictures: the record of those in use
CREATE TABLE IF NOT EXISTS receipts (
    digest TEXT PRIMARY KEY, deployment TEXT NOT NULL, at REAL NOT NULL, document TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pictures (
    record TEXT NOT NULL, name BLOB NOT NULL, shown INTEGER NOT NULL, deployment TEXT NOT NULL, sealed BLOB NOT NULL,
    PRIMARY KEY (record, name));
CREATE INDEX IF NOT EXISTS pictures_shown ON pictures (record, shown);
CREATE TABLE IF NOT EXISTS healths (
    deployment TEXT NOT NULL, unit TEXT NOT NULL, run INTEGER NOT NULL, document TEXT NOT NULL,
    PRIMARY KEY (deployment, unit, run)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS arrived (
    number INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, unit TEXT NOT NULL, deployment TEXT NOT NULL,
    chain TEXT NOT NULL, sequence INTEGER NOT NULL, previous TEXT NOT NULL, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS cases (
    number INTEGER PRIMARY KEY AUTOINCREMENT, alert_id TEXT NOT NULL UNIQUE, decoy INTEGER NOT NULL, unit TEXT NOT NULL,
    deployment TEXT NOT NULL, camera TEXT NOT NULL, category TEXT NOT NULL, captured REAL NOT NULL,
    observed REAL NOT NULL, received REAL NOT NULL, shown REAL, stale_after REAL NOT NULL, keep_until REAL NOT NULL,
    erased REAL, erasure TEXT, score REAL NOT NULL, threshold REAL NOT NULL, quality REAL NOT NULL,
    interocular REAL NOT NULL, frames INTEGER NOT NULL, track_seconds REAL NOT NULL, notes TEXT NOT NULL,
    has_probe INTEGER NOT NULL, state TEXT NOT NULL, required INTEGER NOT NULL, decided REAL, identifier BLOB,
    probe BLOB, reference BLOB);  -- the long columns last: others are read alone
CREATE INDEX IF NOT EXISTS cases_open ON cases (stale_after) WHERE state IN ('waiting', 'disputed');
CREATE INDEX IF NOT EXISTS cases_kept ON cases (keep_until) WHERE erased IS NULL;
CREATE INDEX IF NOT EXISTS cases_state ON cases (state, number);
CREATE INDEX IF NOT EXISTS cases_deployment ON cases (deployment, number);
CREATE TABLE IF NOT EXISTS judgements (
    number INTEGER PRIMARY KEY AUTOINCREMENT, alert_id TEXT NOT NULL, by TEXT NOT NULL, verdict TEXT NOT NULL,
    at REAL NOT NULL, seconds REAL NOT NULL, ruling INTEGER NOT NULL, undone REAL, note BLOB);
CREATE INDEX IF NOT EXISTS judgements_alert ON judgements (alert_id);
CREATE TABLE IF NOT EXISTS engagements (
    alert_id TEXT PRIMARY KEY, by TEXT NOT NULL, outcome TEXT NOT NULL, at REAL NOT NULL, recorded TEXT NOT NULL,
    followed BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS seen (
    alert_id TEXT NOT NULL, by TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (alert_id, by)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS erasures (
    digest TEXT PRIMARY KEY, at REAL NOT NULL, alerts INTEGER NOT NULL, deployments INTEGER NOT NULL,
    logged INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL,
    detail TEXT NOT NULL);
"""
_FULL = "{}: the disk is full; free some space: alerts wait at the broker until then ({})"
Result = TypeVar("Result")


class LedgerFile:
    """The open file. Thread-safe; a second process is refused. Raises LedgerError."""

    def __init__(self, store: Path) -> None:
        self.path = store / NAME
        self.lock = threading.RLock()
        store.mkdir(parents=True, exist_ok=True, mode=0o700)
        store.chmod(0o700)
        self._process = _only_process(store / "ledger.lock")
        self._reserve = Reserve(store / "ledger.reserve")
        try:
            self._db = self._opened()
        except sqlite3.Error as error:
            os.close(self._process)
            raise LedgerError(_advice(self.path, error)) from error

    def close(self) -> None:
        """Close the file; another process may open it then."""
        with self.lock:
            self._db.close()
            os.close(self._process)

    def read(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """What `work` finds, read in one piece. Raises LedgerError."""
        with self.lock:
            try:
                return work(self._db)
            except sqlite3.Error as error:
                raise LedgerError(_advice(self.path, error)) from error

    def write(self, work: Callable[[sqlite3.Connection], Result], *, needed: bool = True) -> Result:
        """Do `work` as one transaction, on disk when this returns, undone by any exception.

        `needed`: on a full disk, give up the reserve and try once more; work is then called a second time.
        """
        with self.lock:
            if not needed and not self._reserve.hold():
                raise LedgerError(_FULL.format(self.path, "its reserve is used up"))
            try:
                return self._transaction(work)
            except (sqlite3.Error, OSError) as error:
                if not (needed and _is_full(error)):
                    raise LedgerError(_advice(self.path, error)) from error
            self._reserve.release()
            self.checkpoint()
            try:
                return self._transaction(work)
            except (sqlite3.Error, OSError) as error:
                raise LedgerError(_advice(self.path, error)) from error
            finally:
                self.checkpoint()
                self._reserve.hold()

    def checkpoint(self) -> None:
        """Move the write-ahead log into the file and empty it. What does not fit stays in the log and is as safe."""
        with self.lock, suppress(sqlite3.OperationalError):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _transaction(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            result = work(self._db)
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        return result

    def _opened(self) -> sqlite3.Connection:
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA secure_delete = ON")
            db.executescript(_SCHEMA)
        except sqlite3.Error:
            db.close()
            raise
        return db


def reading(store: Path) -> sqlite3.Connection:
    """The file for reading only, also while the service has it open. Raises LedgerError."""
    path = store / NAME
    if not path.is_file():
        raise LedgerError(f"{path}: there is no ledger here; name the folder that 'serve' keeps", "unknown")
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        db.execute("BEGIN")
        db.execute("SELECT count(*) FROM meta").fetchone()
    except sqlite3.Error as error:
        raise LedgerError(_advice(path, error)) from error
    return db


def _only_process(path: Path) -> int:
    """Two processes on one store would each destroy the other's epoch key."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise LedgerError(f"{path}: {error.strerror}; the store needs a folder it may write") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise LedgerError(f"{path.parent}: another process uses this store; stop it first") from error
    return descriptor


def _is_full(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOSPC
    return "full" in str(error) or "disk I/O" in str(error)


def _advice(path: Path, error: BaseException) -> str:
    if _is_full(error):
        return _FULL.format(path, error)
    return f"{path}: cannot be used ({error}); check the disk, or restore ledger and vault together from one backup"
