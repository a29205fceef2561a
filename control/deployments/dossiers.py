"""Taking in a deployment: its signed order, and the dossier with its references' pictures.

Both are verified before a byte of them is used. The ledger is one process's: while `serve` runs, what was verified is
laid down in `arrivals/` of the store, and the service verifies it again and takes it in.

What must outlast a restart and is not the ledger's (the version that was taken in, the decoy pairs) is sealed again,
as a dossier without references, by this control room to itself.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from appliance.errors import BluelampError, SealError
from appliance.formats import dossier, order
from appliance.formats.dossier import Decoy, Dossier, DossierError
from appliance.formats.order import Order
from appliance.limits import LIMITS
from appliance.storage.files import read_bounded, write_private
from appliance.times import utc
from appliance.trust import keys
from appliance.trust.audit import Audit
from control.ledger.ledger import Ledger
from control.records import Deployment, ReferencePicture

_ORDER, _DOSSIER, _REFUSED = "order.json", "deployment.dossier", "refused.txt"


@dataclass(frozen=True)
class Verified:
    """An order and its dossier, believed. `digest` is the order document's SHA-256, `file` the dossier's."""

    order: Order
    digest: str
    dossier: Dossier
    file: str


@dataclass(frozen=True)
class Pool:
    """A deployment's decoy pairs, and the version of the dossier they came in."""

    deployment: str
    version: int
    not_after: float
    decoys: tuple[Decoy, ...]


def verify(
    order_file: Path, dossier_file: Path, folder: keys.KeyFolder, store: Path, now: float | None = None
) -> Verified:
    """Believe both files or neither. Raises OrderError, DossierError or KeyFileError, each with what to do."""
    now = time.time() if now is None else now
    blob = read_bounded(order_file, LIMITS.config_bytes)
    content = order.read(blob, folder.roster.authority_keys(), folder.roster.quorum)
    if dossier_file.stat().st_size > LIMITS.dossier_bytes:
        raise DossierError(f"{dossier_file}: larger than any dossier; choose the right file")
    sealed = read_bounded(dossier_file, LIMITS.dossier_bytes)
    known = pool(folder, store, content.deployment)
    opened = dossier.open_dossier(
        sealed, control=folder.identity.name, deployment=content.deployment, keys=folder.sealing,
        authorities=folder.roster.authority_keys(), now=now, least_version=known.version if known else 0,
    )  # fmt: skip
    if opened.manifest.not_after != content.not_after:
        raise DossierError(f"made for a window that ends {utc(opened.manifest.not_after)}, the order's ends "
                           f"{utc(content.not_after)}; bring the two together")  # fmt: skip
    return Verified(content, hashlib.sha256(blob).hexdigest(), opened, hashlib.sha256(sealed).hexdigest())


def take_in(ledger: Ledger, taken: Verified, folder: keys.KeyFolder, store: Path, audit: Audit) -> Deployment:
    """Put it into the ledger; a later dossier replaces the pictures, and who is no longer in it is deleted.

    Done twice it changes nothing; cut off, it is done again. Raises LedgerError.
    """
    manifest = taken.dossier.manifest
    ledger.add_deployment(taken.order, taken.digest)
    what = f"{manifest.deployment}: {len(taken.dossier.pictures)} pictures, {len(taken.dossier.decoys)} decoy pairs"
    audit.add("collection", taken.file, f"dossier v{manifest.version} of {what}")
    ledger.put_references(manifest.deployment, _pictures(taken.dossier))
    _keep_pool(taken.dossier, folder, store)
    return ledger.add_deployment(taken.order, taken.digest)


def pool(folder: keys.KeyFolder, store: Path, deployment: str) -> Pool | None:
    """What was kept beside the ledger of a deployment. Raises DossierError where it was altered."""
    path = _pool_path(store, deployment)
    return _open_pool(path, folder, deployment) if path.exists() else None


def pools(folder: keys.KeyFolder, store: Path, now: float) -> list[Pool]:
    """The decoys of all deployments that are not over; those of others are removed."""
    found = []
    for path in sorted((store / "decoys").glob("*.dossier")):
        one = _open_pool(path, folder, path.name.removesuffix(".dossier"))
        if now > one.not_after + dossier.AFTER_SECONDS:
            path.unlink()
        else:
            found.append(one)
    return found


def is_served(store: Path) -> bool:
    """Whether a service has the ledger of this store open."""
    path = store / "ledger.lock"
    if not path.exists():
        return False
    with path.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def lay_down(order_file: Path, dossier_file: Path, taken: Verified, store: Path) -> Path:
    """Leave verified files for the service that has the ledger; the result is a folder that vanishes when it has."""
    arrivals = store / "arrivals"
    arrivals.mkdir(mode=0o700, exist_ok=True)
    name = f"{taken.order.deployment}.v{taken.dossier.manifest.version:06d}"
    part, place = arrivals / f".{name}.{os.getpid()}", arrivals / name
    part.mkdir(mode=0o700)
    try:
        write_private(part / _ORDER, read_bounded(order_file, LIMITS.config_bytes))
        write_private(part / _DOSSIER, read_bounded(dossier_file, LIMITS.dossier_bytes))
        if place.exists():
            shutil.rmtree(place)
        part.rename(place)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return place


def wait_taken(place: Path, seconds: float) -> None:
    """Wait until the service has taken in what was laid down. Raises DossierError with its reason where it refuses."""
    deadline = time.monotonic() + seconds
    while place.exists():
        refused = place / _REFUSED
        if refused.exists():
            reason = refused.read_text()
            shutil.rmtree(place)
            raise DossierError(reason)
        if time.monotonic() > deadline:
            raise DossierError(f"{place}: the running service has not taken it in yet; it will as soon as it can")
        time.sleep(0.1)


def has_arrivals(store: Path) -> bool:
    """Whether anything was laid down for the service."""
    return (store / "arrivals").is_dir() and any((store / "arrivals").iterdir())


def take_arrivals(ledger: Ledger, folder: keys.KeyFolder, store: Path, audit: Audit) -> Iterator[Deployment | str]:
    """Take in what was laid down for the service; the result says what came, or why it was refused."""
    for place in sorted((store / "arrivals").glob("[!.]*")):
        if (place / _REFUSED).exists():
            continue
        try:
            taken = verify(place / _ORDER, place / _DOSSIER, folder, store)
            found = take_in(ledger, taken, folder, store, audit)
        except BluelampError as error:
            write_private(place / _REFUSED, str(error).encode())
            yield f"{place.name}: {error}"
            continue
        shutil.rmtree(place)
        yield found


def _pictures(opened: Dossier) -> Iterator[ReferencePicture]:
    for one in opened.manifest.references:
        picture = opened.pictures.get(one.reference_identifier)
        yield ReferencePicture(
            **one.model_dump(exclude={"size"}), picture=None if picture is None else b64encode(picture).decode()
        )


def _keep_pool(opened: Dossier, folder: keys.KeyFolder, store: Path) -> None:
    manifest = opened.manifest.model_copy(update={"references": ()})
    pictures = [blob for decoy in opened.decoys for blob in (decoy.picture, decoy.probe)]
    blob = dossier.make(manifest, pictures, folder.identity.sealing[-1], folder.signer)
    (store / "decoys").mkdir(mode=0o700, exist_ok=True)
    write_private(_pool_path(store, manifest.deployment), blob)


def _open_pool(path: Path, folder: keys.KeyFolder, deployment: str) -> Pool:
    blob = read_bounded(path, LIMITS.dossier_bytes)
    try:
        opened = dossier.open_dossier(
            blob, control=folder.identity.name, deployment=deployment, keys=folder.sealing,
            authorities=[folder.signer.public_key], now=0.0,
        )  # fmt: skip
    except SealError as error:
        raise DossierError(f"{path}: {error}; remove it and take the dossier in again") from error
    return Pool(deployment, opened.manifest.version, opened.manifest.not_after, opened.decoys)


def _pool_path(store: Path, deployment: str) -> Path:
    return store / "decoys" / f"{deployment}.dossier"
