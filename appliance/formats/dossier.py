"""Dossier file v1: a deployment's reference pictures for the control room, which puts them beside the probes.

The unit never has them. A sealed container (seal.py) of kind `dossier`; its header's `unit` is the control room's name.
Plaintext:
    manifest length u32 | manifest (JSON) | pictures (JPEG) in the manifest's order, one after the other

Opening verifies everything before a byte is used, in this order:
 1-3 size, structure, header         (seal.take_apart)
 4   signature by a pinned authority (seal.verify)
 5   for this control room and this deployment, sealed to a key that is here
 6   opens whole                     (seal.open_sealed)
 7   manifest agrees with header; sizes agree to the byte; every picture is a JPEG within the limits
 8   not expired
 9   not older than the version taken in before (rollback)

Decoys travel in it too: pairs of consenting people who are not the same, shown now and then like an alert to measure
how often a wrong match is accepted. That a pair is a decoy is known to the control room's machine, not to its people.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pydantic import Field, ValidationError
from securesystemslib.signer import Key, Signer

from appliance.errors import SealError
from appliance.formats.order import Name
from appliance.identifiers import uuid7
from appliance.limits import LIMITS
from appliance.records import Header, Record
from appliance.times import utc
from appliance.trust import seal
from appliance.trust.keys import SealingKey

KIND = "dossier"
AFTER_SECONDS = 86400.0  # a dossier may still be taken in a day after the window: its last alerts are judged then
_LENGTH = struct.Struct(">I")
_JPEG = b"\xff\xd8\xff"


class DossierError(SealError):
    """A dossier is for another room or deployment, expired, rolled back, or malformed."""


class Pictured(Record):
    """One reference. `size` is its picture's bytes, 0 where the base has none."""

    reference_identifier: str = Field(min_length=1, max_length=LIMITS.reference_identifier)
    category: str = Field(min_length=1, max_length=LIMITS.category)
    image_date: str = Field(default="", pattern=r"^(\d{4}-\d{2}-\d{2})?$")
    quality: float = Field(ge=0, le=100)
    warnings: tuple[str, ...] = Field(default=(), max_length=10)
    size: int = Field(ge=0, le=LIMITS.dossier_picture_bytes)


class DecoyPair(Record):
    """Two people who are not the same: a reference that looks like the others, and a probe of `probe` bytes.

    `quality` (0 to 1) and `interocular` (pixels) are the probe's, measured as a unit measures.
    """

    reference: Pictured
    probe: int = Field(gt=0, le=LIMITS.chip_bytes)
    quality: float = Field(ge=0, le=1)
    interocular: float = Field(ge=0, le=LIMITS.frame_side)


class Manifest(Record):
    """Everything of a dossier but the pictures. Times are UTC seconds."""

    format: Literal[1] = 1
    control: str
    deployment: str = Field(pattern=Name)
    version: int = Field(ge=1)  # monotonic for a deployment and room
    created: float
    not_after: float  # the deployment's end
    references: tuple[Pictured, ...] = Field(default=(), max_length=LIMITS.dossier_references)
    decoys: tuple[DecoyPair, ...] = Field(default=(), max_length=LIMITS.dossier_decoys)


@dataclass(frozen=True)
class Decoy:
    """A decoy pair, opened: what the manifest says of it, and both pictures as JPEG bytes."""

    pair: DecoyPair
    picture: bytes
    probe: bytes


@dataclass(frozen=True)
class Dossier:
    """An opened dossier. `pictures` are JPEG bytes by reference identifier; a reference without one is not in it."""

    manifest: Manifest
    pictures: Mapping[str, bytes]
    decoys: tuple[Decoy, ...]


def make(manifest: Manifest, pictures: Sequence[bytes], recipient: SealingKey, signer: Signer) -> bytes:
    """Seal a dossier. `pictures` follow the manifest: references with a picture, then each decoy's reference and probe.

    Raises DossierError where they do not agree with the manifest, or are more than a dossier may hold.
    """
    text = manifest.model_dump_json().encode()
    plaintext = _LENGTH.pack(len(text)) + text + b"".join(pictures)
    if [len(picture) for picture in pictures] != _sizes(manifest):
        raise DossierError(f"{len(pictures)} pictures do not agree with the manifest's sizes")
    if len(plaintext) > LIMITS.dossier_bytes - LIMITS.header_bytes - LIMITS.signatures_bytes:
        raise DossierError(f"{len(plaintext) // 1_000_000} MB, more than a dossier may have; issue a shorter list")
    header = Header(
        kind="dossier", id=uuid7(manifest.created), unit=manifest.control, deployment=manifest.deployment,
        created=manifest.created, expires=manifest.not_after + AFTER_SECONDS, sender=signer.public_key.keyid,
        recipient=recipient.id,
    )  # fmt: skip
    return seal.seal(header, plaintext, recipient.public(), [signer])


def open_dossier(
    blob: bytes,
    *,
    control: str,
    deployment: str,
    keys: Mapping[str, X25519PrivateKey],
    authorities: Sequence[Key],
    now: float,
    least_version: int = 0,
) -> Dossier:
    """Verify and open a dossier file, steps 1 to 9 above. `now` is UTC seconds.

    Raises DossierError, whose text says which step failed and what to do.
    """
    try:
        sealed = seal.take_apart(blob, LIMITS.dossier_bytes)  # 1-3
        if sealed.header.kind != KIND:
            raise DossierError(f"this is a sealed {sealed.header.kind}, not a dossier; choose the right file")
        seal.verify(sealed, authorities)  # 4
        _is_for(sealed.header, control, deployment)  # 5
        plaintext = seal.open_sealed(sealed, keys)  # 5-6
    except DossierError:
        raise
    except SealError as error:
        raise DossierError(f"dossier refused: {error}") from error
    opened = parse(plaintext)  # 7
    manifest = opened.manifest
    if (manifest.control, manifest.deployment) != (control, deployment):
        raise DossierError("its header and manifest name different rooms or deployments; have it made again")
    if now >= manifest.not_after + AFTER_SECONDS:  # 8
        raise DossierError(f"its deployment ended at {utc(manifest.not_after)}: nothing is left to judge by it")
    if manifest.version < least_version:  # 9
        raise DossierError(
            f"version {manifest.version} is older than version {least_version} already taken in; bring the newest"
        )
    return opened


def parse(plaintext: bytes) -> Dossier:
    """Step 7 alone: manifest and pictures of what a seal held. Raises DossierError."""
    try:
        (size,) = _LENGTH.unpack_from(plaintext)
        manifest = Manifest.model_validate_json(plaintext[4 : 4 + size])
    except (struct.error, ValidationError) as error:
        raise DossierError("its manifest is malformed; it was made by other software: make it again") from error
    sizes = _sizes(manifest)
    if len(plaintext) - 4 - size != sum(sizes):
        raise DossierError("its pictures are not as long as its manifest says; make it again")
    pictures, at = [], 4 + size
    for length in sizes:
        pictures.append(plaintext[at : at + length])
        at += length
    if any(not picture.startswith(_JPEG) for picture in pictures):
        raise DossierError("holds a picture that is no JPEG; make it again")
    names = [r.reference_identifier for r in manifest.references]
    if len(set(names)) != len(names):
        raise DossierError("names a reference twice; make it again")
    with_picture = [r.reference_identifier for r in manifest.references if r.size]
    rest = pictures[len(with_picture) :]
    pairs = zip(manifest.decoys, rest[::2], rest[1::2], strict=True)
    decoys = tuple(Decoy(decoy, picture, probe) for decoy, picture, probe in pairs)
    return Dossier(manifest, dict(zip(with_picture, pictures, strict=False)), decoys)


def _sizes(manifest: Manifest) -> list[int]:
    """The length of every picture, in the order they follow the manifest."""
    sizes = [r.size for r in manifest.references if r.size]
    for decoy in manifest.decoys:
        sizes += [decoy.reference.size, decoy.probe]
    return sizes


def _is_for(header: Header, control: str, deployment: str) -> None:
    if header.unit != control:
        raise DossierError(f"made for control room {header.unit}, this is {control}; ask for one for this room")
    if header.deployment != deployment:
        raise DossierError(f"of deployment {header.deployment}, the order is of {deployment}; bring the two together")
