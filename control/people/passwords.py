"""Passwords: which are good enough, what a guess costs, and whether one is right.

Argon2id with 64 MiB, 3 passes, 1 lane: the memory of RFC 9106's second recommended option, for machines without 2 GiB
to spare. Two computations with several lanes at once block each other for good in OpenSSL's thread pool. So a hash has
one lane, and a process computes one hash at a time: hashes from before still have four lanes.
"""

from __future__ import annotations

import os
import secrets
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from appliance.errors import BluelampError

LEAST, MOST = 12, 128  # characters
_DIFFERENT = 5  # characters that differ, at least
_WAIT = 5.0  # seconds; somebody who signs in waits no longer for others
_TURN = threading.Lock()  # of the whole process, as the thread pool is


class PeopleError(BluelampError):
    """An account, a token or a sign-in is refused; the text is for the one who asked."""

    exit_code = 12


@dataclass(frozen=True)
class Cost:
    """What one guess of a password costs."""

    memory_kib: int = 65536
    passes: int = 3
    lanes: int = 1


class Passwords:
    """Makes and checks hashes of one cost. Thread-safe."""

    def __init__(self, cost: Cost) -> None:
        self._cost = cost

    def hash(self, password: str) -> str:
        """A new hash with its own salt, in PHC form."""
        cost = self._cost
        with self._turn():
            return Argon2id(
                salt=os.urandom(16), length=32, iterations=cost.passes, lanes=cost.lanes, memory_cost=cost.memory_kib
            ).derive_phc_encoded(_bytes(password))

    def matches(self, password: str, stored: str | None) -> bool:
        """Whether it is right. Where there is nothing to compare with, it takes as long as a wrong one."""
        if len(password) > MOST:
            return False
        nobodys = self._nobody  # made before either kind of name is looked at, so that it tells nothing
        with self._turn():
            try:
                Argon2id.verify_phc_encoded(_bytes(password), stored or nobodys)
            except InvalidKey:
                return False
        return stored is not None

    def outdated(self, stored: str) -> bool:
        """Whether a hash was made at another cost."""
        cost = self._cost
        return not stored.startswith(f"$argon2id$v=19$m={cost.memory_kib},t={cost.passes},p={cost.lanes}$")

    @cached_property
    def _nobody(self) -> str:
        return self.hash(secrets.token_hex(16))

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One turn to compute. A flood of guesses must not hold every thread of the service."""
        if not _TURN.acquire(timeout=_WAIT):
            raise PeopleError("too many are signing in at once; try again in a moment")
        try:
            yield
        finally:
            _TURN.release()


def acceptable(password: str, name: str) -> str:
    """The password, where it may be one. Length over composition (NIST SP 800-63B). Raises PeopleError."""
    if not LEAST <= len(password) <= MOST:
        raise PeopleError(f"the password needs {LEAST} to {MOST} characters: take four random words")
    if name in password.lower():
        raise PeopleError("the password holds the name; choose four random words")
    if len(set(password)) < _DIFFERENT:
        raise PeopleError(f"the password needs at least {_DIFFERENT} different characters; choose four random words")
    return password


def _bytes(password: str) -> bytes:
    return unicodedata.normalize("NFKC", password).encode()  # one keyboard's é is another's e and accent
