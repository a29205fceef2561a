"""The ledger's file and the keys of its records, opened together. Erasing goes in this order, and a power cut at any
point leaves less and never more; the next opening finishes the rest:
 1 a new epoch's key is on disk
 2 in one transaction: the erased records' keys and ciphertext are taken out, the living keys wrapped anew
 3 the write-ahead log is emptied into the file
 4 the old epoch's key is overwritten and removed: what was wrapped under it is noise, wherever a copy is
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from control.ledger.ledger_file import LedgerFile
from control.ledger.vault import DataKey, Epoch, Vault

Result = TypeVar("Result")


class Strongroom:
    """A store's file and vault. Thread-safe through the file's lock. Raises LedgerError, KeyFileError."""

    def __init__(self, store: Path) -> None:
        self.file = LedgerFile(store)
        self._vault = Vault(store / "vault")
        try:
            self._epoch = self._opened()
        except BaseException:
            self.file.close()
            raise

    def close(self) -> None:
        """Close both."""
        self.file.close()

    def new_key(self, db: sqlite3.Connection, record: str) -> DataKey:
        """A key for a new record, written down wrapped."""
        key, wrapped = self._epoch.new_key(record)
        db.execute("INSERT INTO keys VALUES (?, ?)", (record, wrapped))
        return key

    def key(self, db: sqlite3.Connection, record: str) -> DataKey | None:
        """The key of a record, or None once it is erased."""
        found = db.execute("SELECT wrapped FROM keys WHERE record = ?", (record,)).fetchone()
        return None if found is None else self._epoch.unwrap(record, found[0])

    def erase(self, forget: Callable[[sqlite3.Connection], Result]) -> Result:
        """Steps 1 to 4; `forget` takes records and their keys out of the file. Raises LedgerError, OSError."""

        def work(db: sqlite3.Connection) -> tuple[Epoch, Result]:
            result = forget(db)
            following = self._vault.make(self._epoch.number + 1)  # 1
            rows = db.execute("SELECT record, wrapped FROM keys").fetchall()
            renewed = [(following.wrap(self._epoch.unwrap(record, wrapped)), record) for record, wrapped in rows]
            db.executemany("UPDATE keys SET wrapped = ? WHERE record = ?", renewed)
            db.execute("UPDATE meta SET value = ? WHERE name = 'epoch'", (following.number,))
            return following, result

        with self.file.lock:
            self._epoch, result = self.file.write(work)  # 2
            self.file.checkpoint()  # 3
            self._vault.keep_only(self._epoch.number)  # 4
        return result

    def _opened(self) -> Epoch:
        number = self.file.read(epoch_number)
        if number is None:
            number = 1
            self._vault.make(number)
            self.file.write(lambda db: db.execute("INSERT INTO meta VALUES ('epoch', 1)"))
        epoch = self._vault.load(number)
        self._vault.keep_only(number)
        self.file.checkpoint()
        return epoch


def epoch_number(db: sqlite3.Connection) -> int | None:
    """The epoch that the file is in; None in a new one."""
    found = db.execute("SELECT value FROM meta WHERE name = 'epoch'").fetchone()
    return int(found[0]) if found else None
