"""Keys that can be forgotten: each record has its own, and all of them lie under one epoch's key.

Choices, each with its reason:
- A record is sealed with a key of its own (ChaCha20-Poly1305, fresh nonce; record and field are the associated data, so
  no ciphertext can be put in another's place). The ledger keeps that key only wrapped under the epoch's key.
- The epoch's key is a file of 32 random bytes beside the ledger, never in it. To erase records, the living keys are
  wrapped anew under the next epoch's key and the old file is overwritten and removed. A wrapped key that survives in a
  write-ahead log, in a cell of flash memory or in a backup of the ledger is noise from then on.
- Overwriting a file does not reach every cell of flash memory: keep the store on an encrypted disk, and never put the
  epoch's key into a backup.
"""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from appliance.errors import KeyFileError
from appliance.storage.destroy import destroy, sync_folder
from appliance.storage.files import write_private
from appliance.trust.keys import read_private

_NONCE = 12
_KEY = 32


@dataclass(frozen=True)
class DataKey:
    """The key of one record, open, and the record's name."""

    record: str
    raw: bytes

    def seal(self, field: str, plaintext: bytes) -> bytes:
        """Ciphertext of one field."""
        return _seal(self.raw, f"{self.record}\0{field}", plaintext)

    def open(self, field: str, ciphertext: bytes) -> bytes:
        """Plaintext of one field. Raises KeyFileError where it was altered or moved."""
        return _open(self.raw, f"{self.record}\0{field}", ciphertext)

    def name(self, plain: str) -> bytes:
        """What the file calls something, so that its name does not stand there: a keyed hash, its use named in it."""
        return hmac.digest(self.raw, b"bluelamp.vault.name.v1\0" + plain.encode(), "sha256")


@dataclass(frozen=True)
class Epoch:
    """The key of one epoch: `number` is the ledger's, the key lies in the vault's folder."""

    number: int
    raw: bytes

    def new_key(self, record: str) -> tuple[DataKey, bytes]:
        """A fresh key for a record, open and wrapped."""
        key = DataKey(record, os.urandom(_KEY))
        return key, self.wrap(key)

    def wrap(self, key: DataKey) -> bytes:
        """The form in which the ledger keeps a key."""
        return _seal(self.raw, f"key\0{key.record}", key.raw)

    def unwrap(self, record: str, wrapped: bytes) -> DataKey:
        """A record's key. Raises KeyFileError where it is not of this epoch or record."""
        return DataKey(record, _open(self.raw, f"key\0{record}", wrapped))


class Vault:
    """The folder of the epochs' keys; between two erasures there is one file in it. Not thread-safe."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def make(self, number: int) -> Epoch:
        """A new epoch's key, on disk when this returns. Raises OSError where the disk is full."""
        epoch = Epoch(number, os.urandom(_KEY))
        write_private(self.path(number), epoch.raw)
        sync_folder(self.folder)  # its name must not be lost after the ledger has moved to it
        return epoch

    def load(self, number: int) -> Epoch:
        """The key of the epoch that the ledger is in. Raises KeyFileError."""
        path = self.path(number)
        raw = read_private(path)
        if len(raw) != _KEY:
            raise KeyFileError(f"{path}: {len(raw)} bytes where {_KEY} were expected; the alerts here cannot be opened")
        return Epoch(number, raw)

    def keep_only(self, number: int) -> None:
        """Destroy the keys of all other epochs: older ones, and one whose erasure was cut off before it counted."""
        for path in self.files():
            if path != self.path(number):
                destroy(path)

    def files(self) -> list[Path]:
        """All keys that are here."""
        return sorted(p for p in self.folder.iterdir() if p.is_file())

    def path(self, number: int) -> Path:
        """Where the key of an epoch lies."""
        return self.folder / f"epoch-{number:08d}.key"


def _seal(raw: bytes, what: str, plaintext: bytes) -> bytes:
    nonce = os.urandom(_NONCE)
    return nonce + ChaCha20Poly1305(raw).encrypt(nonce, plaintext, b"bluelamp.vault.v1\0" + what.encode())


def _open(raw: bytes, what: str, ciphertext: bytes) -> bytes:
    try:
        associated = b"bluelamp.vault.v1\0" + what.encode()
        return ChaCha20Poly1305(raw).decrypt(ciphertext[:_NONCE], ciphertext[_NONCE:], associated)
    except (InvalidTag, ValueError) as error:
        name = what.split("\0")[0]
        raise KeyFileError(f"{name}: does not open: it was altered, or ledger and vault are not of one store; restore "
                           "both together") from error  # fmt: skip
