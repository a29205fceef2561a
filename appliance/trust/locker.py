"""Private keys under a passphrase: Argon2id, then ChaCha20-Poly1305.

A key folder with a `lock.json` keeps its private files locked: `BLUELAMP-LOCKED-1` | nonce (12) | ciphertext. The
file's name is the associated data, so one locked file cannot be put in another's place.

Argon2id with 64 MiB, 3 passes, 4 lanes is RFC 9106's second recommended option: the first (2 GiB) does not fit a
small board. One derivation opens a whole folder: the salt is the folder's, each file has its own nonce.

The passphrase comes, in this order, from the systemd credential `bluelamp-passphrase`, from the file named in
$BLUELAMP_PASSPHRASE_FILE, or from the terminal. It is never taken from an argument or a plain variable: other
processes can read those.
"""

from __future__ import annotations

import getpass
import json
import os
import stat
import sys
from functools import lru_cache
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from pydantic import Field, ValidationError

from appliance.errors import KeyFileError
from appliance.records import Record

MAGIC = b"BLUELAMP-LOCKED-1"
LOCK = "lock.json"
_NONCE = 12


class Lock(Record):
    """How the folder's key follows from the passphrase. `check` is a locked empty text: it finds a wrong one."""

    format: Literal[1] = 1
    salt: str = Field(pattern=r"^[0-9a-f]{32}$")
    memory_kib: int = Field(default=65536, ge=8192, le=4_194_304)
    passes: int = Field(default=3, ge=1, le=100)
    lanes: int = Field(default=4, ge=1, le=64)
    check: str = Field(pattern=r"^[0-9a-f]{2,200}$")


def start(folder: Path, secret: str) -> None:
    """Make a folder's `lock.json`. Raises KeyFileError where there is one, or the passphrase is too short."""
    if (folder / LOCK).exists():
        raise KeyFileError(f"{folder}: already locked")
    if len(secret) < 12:
        raise KeyFileError("the passphrase has fewer than 12 characters; choose four random words or more")
    blank = Lock(salt=os.urandom(16).hex(), check="00")
    check = _encrypt(_derive(blank, secret), b"check", b"")
    lock = blank.model_copy(update={"check": check.hex()})
    (folder / LOCK).write_text(lock.model_dump_json(indent=1))


def is_locked(blob: bytes) -> bool:
    """Whether these bytes are of a locked file."""
    return blob.startswith(MAGIC)


def locks(folder: Path) -> bool:
    """Whether private files of this folder are to be locked."""
    return (folder / LOCK).exists()


def lock(folder: Path, name: str, plain: bytes, secret: str | None = None) -> bytes:
    """The locked form of a private file called `name`."""
    return MAGIC + _encrypt(_key(folder, secret), name.encode(), plain)


def unlock(folder: Path, name: str, blob: bytes, secret: str | None = None) -> bytes:
    """What a locked file holds. Raises KeyFileError."""
    try:
        return _decrypt(_key(folder, secret), name.encode(), blob[len(MAGIC) :])
    except (InvalidTag, ValueError) as error:
        raise KeyFileError(f"{folder / name}: does not unlock: altered, or from another folder; restore it") from error


def passphrase(prompt: str = "Passphrase: ") -> str:
    """The passphrase, from a credential, a file or the terminal. Raises KeyFileError."""
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if credentials and (delivered := Path(credentials) / "bluelamp-passphrase").exists():
        return delivered.read_text().rstrip("\r\n")
    if named := os.environ.get("BLUELAMP_PASSPHRASE_FILE"):
        return _from_file(Path(named))
    if sys.stdin.isatty():
        return getpass.getpass(prompt)
    raise KeyFileError(
        "these keys are locked; name the file with their passphrase in BLUELAMP_PASSPHRASE_FILE, deliver the "
        "systemd credential bluelamp-passphrase, or run this in a terminal"
    )


def is_delivered() -> bool:
    """Whether a credential or a file gives the passphrase, so that nobody has to be asked."""
    credentials = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent"))
    return (credentials / "bluelamp-passphrase").exists() or "BLUELAMP_PASSPHRASE_FILE" in os.environ


def _from_file(path: Path) -> str:
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise KeyFileError(f"{path}: others can read this passphrase; run: chmod 600 {path}")
        return path.read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(
            f"{path}: the passphrase cannot be read ({error}); check BLUELAMP_PASSPHRASE_FILE"
        ) from error


def _key(folder: Path, secret: str | None) -> bytes:
    try:
        lock_record = Lock.model_validate(json.loads((folder / LOCK).read_bytes()))
    except (OSError, ValueError, ValidationError) as error:
        raise KeyFileError(f"{folder / LOCK}: missing or malformed ({error}); restore it from its backup") from error
    key = _derive(lock_record, passphrase() if secret is None else secret)
    try:
        _decrypt(key, b"check", bytes.fromhex(lock_record.check))
    except (InvalidTag, ValueError) as error:
        raise KeyFileError(f"{folder}: wrong passphrase; try again") from error
    return key


@lru_cache(maxsize=4)
def _derive(lock_record: Lock, secret: str) -> bytes:
    kdf = Argon2id(salt=bytes.fromhex(lock_record.salt), length=32, iterations=lock_record.passes,
                   lanes=lock_record.lanes, memory_cost=lock_record.memory_kib)  # fmt: skip
    return kdf.derive(secret.encode())


def _encrypt(key: bytes, name: bytes, plain: bytes) -> bytes:
    nonce = os.urandom(_NONCE)
    return nonce + ChaCha20Poly1305(key).encrypt(nonce, plain, name)


def _decrypt(key: bytes, name: bytes, blob: bytes) -> bytes:
    return ChaCha20Poly1305(key).decrypt(blob[:_NONCE], blob[_NONCE:], name)
