"""The encrypted store of references: one SQLite file whose rows only the base's key opens.

Each value is ChaCha20-Poly1305 with a fresh nonce; table and row name are the associated data, so no row can be put in
another's place. Row names are HMACs of identifiers: the file alone tells how many references there are and nothing
else. SQLite for its crash safety: what was committed is there after a power cut or a full disk.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from appliance.errors import EnrolmentError

_TABLES = ("reference", "image", "template", "outcome", "issued")
_NONCE = 12


class Store:
    """Named, encrypted rows in a few tables. Raises EnrolmentError where the disk is full or the file is damaged."""

    def __init__(self, path: Path, key: bytes) -> None:
        self.path = path
        self._aead = ChaCha20Poly1305(_derived(key, b"rows"))
        self._names = _derived(key, b"names")
        with _Trouble(path):
            self._sql = sqlite3.connect(path)
            path.chmod(0o600)
            self._sql.execute("PRAGMA journal_mode=WAL")
            self._sql.execute("PRAGMA synchronous=FULL")
            self._sql.execute("PRAGMA secure_delete=ON")
            for table in _TABLES:
                self._sql.execute(
                    f"CREATE TABLE IF NOT EXISTS {table} (name BLOB PRIMARY KEY, owner BLOB, value BLOB NOT NULL)"
                )
                self._sql.execute(f"CREATE INDEX IF NOT EXISTS {table}_owner ON {table} (owner)")

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.commit()
        self._sql.close()

    def put(self, table: str, name: str, value: bytes, owner: str = "") -> None:
        """Write one row; it is on disk after `commit`. `owner` groups rows for `owned` and `remove`."""
        row, nonce = self.row(table, name), os.urandom(_NONCE)
        sealed = nonce + self._aead.encrypt(nonce, value, table.encode() + row)
        with _Trouble(self.path):
            self._sql.execute(
                f"INSERT OR REPLACE INTO {_known(table)} VALUES (?, ?, ?)", (row, self.row("owner", owner), sealed)
            )

    def get(self, table: str, name: str) -> bytes | None:
        """One row's value, or None."""
        row = self.row(table, name)
        with _Trouble(self.path):
            found = self._sql.execute(f"SELECT value FROM {_known(table)} WHERE name = ?", (row,)).fetchone()
        return None if found is None else self._open(table, row, found[0])

    def has(self, table: str, name: str) -> bool:
        """Whether there is such a row; nothing is decrypted."""
        with _Trouble(self.path):
            query = f"SELECT 1 FROM {_known(table)} WHERE name = ?"
            return self._sql.execute(query, (self.row(table, name),)).fetchone() is not None

    def all(self, table: str) -> Iterator[bytes]:
        """Every row's value, in the order they were first written."""
        yield from self._values(table, f"SELECT name, value FROM {_known(table)} ORDER BY rowid", ())

    def owned(self, table: str, owner: str) -> Iterator[bytes]:
        """The values of one owner's rows, in the order they were first written."""
        query = f"SELECT name, value FROM {_known(table)} WHERE owner = ? ORDER BY rowid"
        yield from self._values(table, query, (self.row("owner", owner),))

    def remove(self, table: str, *, name: str | None = None, owner: str | None = None) -> int:
        """Delete a row, or all rows of an owner; their pages are overwritten. Returns how many."""
        column, row = ("name", self.row(table, name)) if name is not None else ("owner", self.row("owner", owner or ""))
        with _Trouble(self.path):
            return self._sql.execute(f"DELETE FROM {_known(table)} WHERE {column} = ?", (row,)).rowcount

    def row(self, table: str, name: str) -> bytes:
        """What the file calls a row: an HMAC, so that names do not stand in it. Touches no disk; any thread may ask."""
        return hmac.digest(self._names, table.encode() + b"\0" + name.encode(), "sha256")

    def rows(self, table: str) -> frozenset[bytes]:
        """What the file calls all rows of a table."""
        with _Trouble(self.path):
            return frozenset(r[0] for r in self._sql.execute(f"SELECT name FROM {_known(table)}"))

    def count(self, table: str) -> int:
        """How many rows a table has."""
        with _Trouble(self.path):
            return int(self._sql.execute(f"SELECT count(*) FROM {_known(table)}").fetchone()[0])

    def commit(self) -> None:
        """Make everything written so far last."""
        with _Trouble(self.path):
            self._sql.commit()

    def close(self) -> None:
        """Close without committing."""
        self._sql.close()

    def _values(self, table: str, query: str, values: tuple[Any, ...]) -> Iterator[bytes]:
        with _Trouble(self.path):
            for row, sealed in self._sql.execute(query, values):
                yield self._open(table, row, sealed)

    def _open(self, table: str, row: bytes, sealed: bytes) -> bytes:
        try:
            return self._aead.decrypt(sealed[:_NONCE], sealed[_NONCE:], table.encode() + row)
        except InvalidTag as error:
            raise EnrolmentError(f"{self.path}: a row does not open: it was altered, or store.key is another base's; "
                                 "restore both from one backup") from error  # fmt: skip


class _Trouble:
    """SQLite's errors as lines that say what to do."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, sqlite3.Error):
            return
        if "full" in str(error) or "disk I/O" in str(error):
            raise EnrolmentError(f"{self._path}: the disk is full or failing ({error}); make room and run the same "
                                 "command again: finished rows are kept") from error  # fmt: skip
        raise EnrolmentError(f"{self._path}: {error}; restore its backup, or wait for the other command") from error


def _known(table: str) -> str:
    if table not in _TABLES:
        raise ValueError(f"no table {table!r}")
    return table


def _derived(key: bytes, purpose: bytes) -> bytes:
    return HKDF(SHA256(), 32, None, b"bluelamp.store.v1 " + purpose).derive(key)


def digest(*parts: bytes) -> str:
    """SHA-256 over parts, each with its length: no two splittings give the same."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "big") + part)
    return whole.hexdigest()
