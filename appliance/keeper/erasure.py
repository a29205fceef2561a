"""The end of a deployment: its key destroyed, its files removed, and a signed receipt that says so.

Order of steps, so that a power cut at any point leaves less and never more, and a second run finishes the rest:
 1 destroy the deployment's sealing key: from here on every copy of the list, anywhere, is noise (crypto-erase)
 2 remove the sealed files
 3 log the erasure
 4 write the signed receipt, and seal it for the control room
 5 remove the record of the arming

Overwriting a file does not reach every cell of flash memory. A key folder under a passphrase (locker.py) holds only
ciphertext of its keys, and a disk encrypted as a whole makes a removed block unreadable: use one of the two on a unit.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field
from securesystemslib.signer import Key

from appliance.errors import SealError
from appliance.formats.order import Digest, Name
from appliance.identifiers import uuid7
from appliance.limits import LIMITS
from appliance.records import Header, Record
from appliance.trust import envelope, keys, seal
from appliance.trust.audit import Anchor, Audit

KIND = "receipt"
SEALED = ".sealed"  # the receipt's sealed form lies beside it until a courier has taken it
Reason = Literal["window-ended", "disarmed", "recalled", "clock", "fpir"]
_LIFETIME = 30 * 86400.0  # seconds a receipt may travel


class ErasedFile(Record):
    """A file that was removed: its digest and size, not its content."""

    sha256: str = Field(pattern=Digest)
    bytes: int = Field(ge=0)


class Receipt(Record):
    """What was destroyed. `keys` are the ids of sealing keys; `anchor` is where the unit's audit log stood."""

    format: Literal[1] = 1
    unit: str
    deployment: str = Field(pattern=Name)
    reason: Reason
    ended: float
    keys: tuple[str, ...] = Field(max_length=64)
    files: tuple[ErasedFile, ...] = Field(max_length=64)
    watchlist: str = Field(pattern=Digest)
    order: str = Field(pattern=Digest)
    entries: int = Field(ge=0)
    counts: dict[str, int] = Field(default_factory=dict, max_length=20)  # faces, tracks, alerts: nobody's
    anchor: Anchor


@dataclass(frozen=True)
class Ending:
    """What is to be erased: the sealing key's id, the sealed files, and digests that the receipt names."""

    deployment: str
    sealing_key: str
    files: tuple[Path, ...]
    watchlist: str
    order: str
    entries: int
    state: Path


def erase(
    folder: keys.KeyFolder, ending: Ending, reason: Reason, audit: Audit, counts: dict[str, int] | None = None
) -> tuple[Receipt, bytes]:
    """Steps 1 to 5. Returns the receipt and its sealed form for the courier. Raises OSError where a step fails."""
    destroy(folder.folder / "sealing" / f"{ending.sealing_key}.pem")  # 1
    files = tuple(f for f in (_remove(path) for path in ending.files) if f is not None)  # 2
    path = ending.state / "receipts" / f"{ending.deployment}.json"
    receipt = _written(path, folder, ending) or _receipt(folder, ending, reason, audit, files, counts or {})  # 3
    signed = envelope.sign(receipt, KIND, folder.signer)
    sealed = sealed_receipt(folder, receipt, signed)
    path.parent.mkdir(parents=True, exist_ok=True)
    keys.write_public(path, signed)  # 4
    keys.write_public(path.with_suffix(SEALED), sealed)
    (ending.state / "armed.json").unlink(missing_ok=True)  # 5
    (ending.state / "disarm").unlink(missing_ok=True)
    return receipt, sealed


def _receipt(
    folder: keys.KeyFolder, ending: Ending, reason: Reason, audit: Audit, files: tuple[ErasedFile, ...],
    counts: dict[str, int],
) -> Receipt:  # fmt: skip
    what = f"{reason}; key {ending.sealing_key}, {len(files)} sealed files, {ending.entries} entries"
    return Receipt(
        unit=folder.identity.name, deployment=ending.deployment, reason=reason, ended=time.time(),
        keys=(ending.sealing_key,), files=files, watchlist=ending.watchlist, order=ending.order,
        entries=ending.entries, counts=counts, anchor=audit.add("erasure", ending.deployment, what),
    )  # fmt: skip


def _written(path: Path, folder: keys.KeyFolder, ending: Ending) -> Receipt | None:
    """The receipt of an ending that was cut off after it had written it: there is one for each deployment."""
    if not path.exists():
        return None
    receipt = read(keys.read_bounded(path, LIMITS.envelope_bytes), [folder.signer.public_key])
    return receipt if receipt.keys == (ending.sealing_key,) else None


def sealed_receipt(folder: keys.KeyFolder, receipt: Receipt, signed: bytes) -> bytes:
    """The signed receipt, sealed for the control room like an alert; what it opens to is the signed document itself."""
    control, _ = folder.control()
    now = time.time()
    header = Header(
        kind="receipt", id=uuid7(now), unit=receipt.unit, deployment=receipt.deployment, created=now,
        expires=now + _LIFETIME, sender=folder.signer.public_key.keyid, recipient=control.id,
    )  # fmt: skip
    return seal.seal(header, signed, control.public(), [folder.signer])


def read(blob: bytes, units: Sequence[Key]) -> Receipt:
    """Verify a unit's signature on a receipt, then parse. Raises SealError."""
    if len(blob) > LIMITS.envelope_bytes:
        raise SealError(f"{len(blob)} bytes are too many for a receipt")
    return envelope.read(blob, KIND, Receipt, units)


def destroy(path: Path) -> None:
    """Take a key file out of use, overwrite it once, remove it; each step on disk before the next.

    Out of use first: half overwritten it would be in the way of every other key in its folder. A run that was cut off
    is finished by calling it again.
    """
    doomed = path.with_name(path.name + ".gone")
    if path.exists():
        path.replace(doomed)
        sync_folder(path.parent)
    if not doomed.exists():
        return
    size = doomed.stat().st_size
    descriptor = os.open(doomed, os.O_WRONLY)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        file.write(os.urandom(size))
        os.fsync(descriptor)
    doomed.unlink()
    sync_folder(path.parent)


def _remove(path: Path) -> ErasedFile | None:
    if not path.is_file():
        return None
    whole, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            whole.update(part)
            size += len(part)
    path.unlink()
    sync_folder(path.parent)
    return ErasedFile(sha256=whole.hexdigest(), bytes=size)


def sync_folder(folder: Path) -> None:
    """Names that were made or removed in a folder are on disk when this returns."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
