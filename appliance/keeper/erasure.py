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
import time
from dataclasses import dataclass
from pathlib import Path

from appliance.formats.receipt import KIND, ErasedFile, Reason, Receipt, read
from appliance.identifiers import uuid7
from appliance.limits import LIMITS
from appliance.records import Header
from appliance.storage.destroy import destroy, sync_folder
from appliance.storage.files import read_bounded, write_public
from appliance.trust import envelope, keys, seal
from appliance.trust.audit import Audit

SEALED = ".sealed"  # the receipt's sealed form lies beside it until a courier has taken it
_LIFETIME = 30 * 86400.0  # seconds a receipt may travel


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
    write_public(path, signed)  # 4
    write_public(path.with_suffix(SEALED), sealed)
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
    receipt = read(read_bounded(path, LIMITS.envelope_bytes), [folder.signer.public_key])
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
