"""Members of staff: accounts, roles, passwords, one-time tokens and sessions, in `people.sqlite`.

Nobody is ever given a password by somebody else: an account begins with a one-time token, and its holder chooses. The
first supervisor begins the same way, with the token that the service prints while nobody has an account.

Passwords are kept as passwords.py says. Tokens of sessions and invitations are 160 bits or more and are kept as SHA-256
only: who reads the file can take over nobody.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from pydantic import Field, ValidationError

from appliance.records import Record
from control.people.passwords import Cost, Passwords, PeopleError, acceptable
from control.records import Member, Role

__all__ = ["Cost", "People", "PeopleError"]
FILE = "people.sqlite"
INVITATION_SECONDS = 24 * 3600.0
_TOUCH_SECONDS = 20.0  # a session's last use is written this seldom: a write costs a sync of the disk
ROLES: tuple[Role, ...] = get_args(Role)
_TABLES = """
CREATE TABLE IF NOT EXISTS member (
    name TEXT PRIMARY KEY, role TEXT NOT NULL, password TEXT, added REAL NOT NULL, signed_in REAL);
CREATE TABLE IF NOT EXISTS invitation (
    digest BLOB PRIMARY KEY, name TEXT REFERENCES member(name) ON DELETE CASCADE, ends REAL NOT NULL);
CREATE TABLE IF NOT EXISTS session (
    digest BLOB PRIMARY KEY, name TEXT NOT NULL REFERENCES member(name) ON DELETE CASCADE,
    begun REAL NOT NULL, seen REAL NOT NULL);
"""


class Account(Record):
    """One member as the list of members shows it. `ready` is False until a password was chosen."""

    name: str
    role: Role
    added: float
    signed_in: float | None
    ready: bool
    sessions: int


class Session(Record):
    """A signed-in member. `token` is what the browser's cookie holds and nobody else keeps."""

    member: Member
    token: str = Field(repr=False)
    idle_ends: float
    ends: float


class Invitation(Record):
    """What a one-time token is good for. An empty name: its holder chooses one (the first supervisor)."""

    name: str
    role: Role


class People:
    """The accounts of one control room. Thread-safe; several processes may use one file."""

    def __init__(
        self, store: Path, *, clock: Callable[[], float] = time.time, cost: Cost | None = None,
        idle: float = 30 * 60.0, absolute: float = 12 * 3600.0,
    ) -> None:  # fmt: skip
        self._clock, self._idle, self._absolute = clock, idle, absolute
        self._lock, self._passwords = threading.RLock(), Passwords(cost or Cost())
        store.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(store / FILE, os.O_CREAT | os.O_RDWR, 0o600))
        self._sql = sqlite3.connect(store / FILE, check_same_thread=False, isolation_level=None, timeout=10)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", "foreign_keys=ON"):
            self._sql.execute(f"PRAGMA {pragma}")
        self._sql.executescript(_TABLES)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._sql.close()

    # accounts

    def accounts(self) -> list[Account]:
        """Every account, by name."""
        rows = self._all(
            "SELECT m.name, role, added, signed_in, password IS NOT NULL, count(s.digest) FROM member m "
            "LEFT JOIN session s ON s.name = m.name AND s.seen > ? AND s.begun > ? GROUP BY m.name ORDER BY m.name",
            self._clock() - self._idle, self._clock() - self._absolute,
        )  # fmt: skip
        names = ("name", "role", "added", "signed_in", "ready", "sessions")
        return [Account.model_validate(dict(zip(names, row, strict=True))) for row in rows]

    def nobody(self) -> bool:
        """Whether no account has a password yet."""
        return self._one("SELECT 1 FROM member WHERE password IS NOT NULL") is None

    def add(self, name: str, role: Role, password: str) -> Member:
        """An account with a password, for scripts and rehearsals. Raises PeopleError."""
        member = _member(name, role)
        encoded = self._passwords.hash(acceptable(password, member.name))
        with self._lock:
            self._insert(member)
            self._do("UPDATE member SET password = ? WHERE name = ?", encoded, member.name)
        return member

    def invite(self, name: str, role: Role) -> str:
        """A new account without a password; the result is its one-time token. Raises PeopleError."""
        member = _member(name, role)
        with self._lock:
            self._insert(member)
            return self._invitation(member.name)

    def reset(self, name: str) -> str:
        """The password is void and every session ends; the result is a one-time token. Raises PeopleError."""
        with self._lock:
            self._known(name)
            self._do("UPDATE member SET password = NULL WHERE name = ?", name)
            self._do("DELETE FROM session WHERE name = ?", name)
            return self._invitation(name)

    def change_role(self, name: str, role: Role) -> Member:
        """Another role; the member signs in again under it. Raises PeopleError."""
        with self._lock:
            self._known(name)
            self._keeps_a_supervisor(name, role)
            self._do("UPDATE member SET role = ? WHERE name = ?", _member(name, role).role, name)
            self._do("DELETE FROM session WHERE name = ?", name)
        return _member(name, role)

    def remove(self, name: str) -> None:
        """The account, its sessions and tokens are gone; what it did stays in ledger and log. Raises PeopleError."""
        with self._lock:
            self._known(name)
            self._keeps_a_supervisor(name, None)
            self._do("DELETE FROM member WHERE name = ?", name)

    # one-time tokens

    def setup_token(self) -> str | None:
        """A fresh token for the first supervisor, which voids the one before; None once anybody has a password."""
        with self._lock:
            return self._invitation(None) if self.nobody() else None

    def invitation(self, token: str) -> Invitation | None:
        """What a token is good for, or None."""
        row = self._one("SELECT name FROM invitation WHERE digest = ? AND ends > ?", _typed(token), self._clock())
        if row is None:
            return None
        found = self._one("SELECT role FROM member WHERE name = ?", row[0])
        if row[0] is None:
            return Invitation(name="", role="supervisor") if self.nobody() else None
        return Invitation(name=row[0], role=found[0]) if found else None

    def accept(self, token: str, password: str, name: str = "") -> Member:
        """Choose a password, and a name where the token has none. The token is used up. Raises PeopleError."""
        good = self.invitation(token)
        if good is None:
            raise PeopleError("this token is used up, too old or mistyped; ask a supervisor for a new one "
                              "(or 'bluelamp-control people reset')")  # fmt: skip
        member = _member(good.name or name, good.role)
        encoded = self._passwords.hash(acceptable(password, member.name))
        with self._lock:
            if not good.name:
                self._insert(member)
            if self._do("DELETE FROM invitation WHERE digest = ?", _typed(token)) != 1:
                raise PeopleError("this token was used a moment ago; sign in, or ask for a new one")
            self._do("UPDATE member SET password = ? WHERE name = ?", encoded, member.name)
        return member

    # sessions

    def sign_in(self, name: str, password: str) -> Session:
        """A new session. An unknown name costs the same time as a wrong password. Raises PeopleError."""
        name = name.strip().lower()
        row = self._one("SELECT role, password FROM member WHERE name = ?", name)
        stored = row[1] if row else None
        if not self._passwords.matches(password, stored) or row is None:
            raise PeopleError("name or password is wrong; after too many tries you will have to wait")
        if self._passwords.outdated(row[1]):
            self._do("UPDATE member SET password = ? WHERE name = ?", self._passwords.hash(password), name)
        return self._begin(Member(name=name, role=row[0]))

    def resume(self, token: str, *, active: bool = True) -> Session | None:
        """The session of a token, or None where it ended. `active`: a human did something, so idleness begins anew."""
        now, digest = self._clock(), _digest(token)
        row = self._one(
            "SELECT s.name, role, begun, seen FROM session s JOIN member m ON m.name = s.name WHERE digest = ?", digest
        )
        if row is None:
            return None
        name, role, begun, seen = row
        if now - seen > self._idle or now - begun > self._absolute:
            self.sign_out(token)
            return None
        if active and now - seen > _TOUCH_SECONDS:
            self._do("UPDATE session SET seen = ? WHERE digest = ?", now, digest)
            seen = now
        idle_ends = min(seen + self._idle, begun + self._absolute)
        member = Member(name=name, role=role)
        return Session(member=member, token=token, idle_ends=idle_ends, ends=begun + self._absolute)

    def sign_out(self, token: str) -> None:
        """End a session."""
        self._do("DELETE FROM session WHERE digest = ?", _digest(token))

    # private

    def _begin(self, member: Member) -> Session:
        now, token = self._clock(), secrets.token_urlsafe(32)
        with self._lock:
            self._do("DELETE FROM session WHERE seen < ? OR begun < ?", now - self._idle, now - self._absolute)
            self._do("INSERT INTO session VALUES (?, ?, ?, ?)", _digest(token), member.name, now, now)
            self._do("UPDATE member SET signed_in = ? WHERE name = ?", now, member.name)
        ends = now + self._absolute
        return Session(member=member, token=token, idle_ends=min(now + self._idle, ends), ends=ends)

    def _insert(self, member: Member) -> None:
        try:
            self._do("INSERT INTO member VALUES (?, ?, NULL, ?, NULL)", member.name, member.role, self._clock())
        except sqlite3.IntegrityError as error:
            raise PeopleError(f"{member.name}: there is such an account; choose another name, or reset it") from error

    def _invitation(self, name: str | None) -> str:
        token = base64.b32encode(os.urandom(20)).decode()
        self._do("DELETE FROM invitation WHERE name IS ? OR ends < ?", name, self._clock())
        self._do("INSERT INTO invitation VALUES (?, ?, ?)", _typed(token), name, self._clock() + INVITATION_SECONDS)
        return "-".join(token[i : i + 4] for i in range(0, len(token), 4))

    def _known(self, name: str) -> None:
        if self._one("SELECT 1 FROM member WHERE name = ?", name) is None:
            raise PeopleError(f"{name}: no such account; 'bluelamp-control people list' names them")

    def _keeps_a_supervisor(self, name: str, role: Role | None) -> None:
        others = "SELECT 1 FROM member WHERE role = 'supervisor' AND password IS NOT NULL AND name <> ?"
        is_one = "SELECT 1 FROM member WHERE role = 'supervisor' AND password IS NOT NULL AND name = ?"
        if role != "supervisor" and self._one(is_one, name) and self._one(others, name) is None:
            raise PeopleError(f"{name} is the last supervisor; make another one first")

    def _one(self, query: str, *values: object) -> tuple[Any, ...] | None:
        with self._lock:
            return self._sql.execute(query, values).fetchone()  # type: ignore[no-any-return]

    def _all(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._sql.execute(query, values).fetchall()

    def _do(self, query: str, *values: object) -> int:
        with self._lock:
            return self._sql.execute(query, values).rowcount


def _member(name: str, role: Role) -> Member:
    try:
        return Member(name=name.strip().lower(), role=role)
    except ValidationError as error:
        if role not in ROLES:
            raise PeopleError(f"{role}: no such role; roles are {', '.join(ROLES)}") from error
        raise PeopleError("a name has 2 to 39 of a-z, 0-9, dot, dash and underscore, and begins with a letter "
                          "or digit") from error  # fmt: skip


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _typed(token: str) -> bytes:
    """A one-time token as humans type it: case, dashes and spaces do not matter."""
    return _digest("".join(c for c in token.upper() if c.isalnum()))
