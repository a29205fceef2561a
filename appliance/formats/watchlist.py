"""Watchlist file v1: templates, reference identifiers and categories; no images, no names.

A sealed container (seal.py) of kind `watchlist`. Plaintext:
    manifest length u32 | manifest (JSON) | vectors (entries x length, little-endian float16, unit length)

Opening verifies everything before a byte is used, in this order (each step has its own error):
 1-3 size, structure, header        (seal.take_apart)
 4   signature by a pinned authority (seal.verify)
 5   for this unit, sealed to a key that is still here
 6   opens whole                     (seal.open_sealed)
 7   manifest agrees with header, counts and lengths agree to the byte
 8   made for exactly these model packs (templates are not portable)
 9   inside its time window
 10  not older than the version seen before (rollback)
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from pydantic import Field, ValidationError, model_validator
from securesystemslib.signer import Key, Signer

from appliance.errors import SealError, WatchlistError
from appliance.formats.listing import content_digest
from appliance.limits import LIMITS
from appliance.records import Floats, Header, Models, Record
from appliance.times import utc
from appliance.trust import seal

_LENGTH = struct.Struct(">I")
CLOCK_SLACK = 300.0  # seconds a unit's clock may be behind the base's when a list begins


class Entry(Record):
    """One reference template's identity. Several entries may share an identifier: several images of one reference.

    `cohort_mean` and `cohort_deviation` describe this template's scores against a fixed non-mated cohort, for
    score normalisation; `threshold` overrides the list's for a reference that scores high against everybody.
    """

    reference_identifier: str = Field(min_length=1, max_length=LIMITS.reference_identifier)
    category: str = Field(min_length=1, max_length=LIMITS.category)
    threshold: float | None = Field(default=None, ge=-1, le=1)
    cohort_mean: float | None = None
    cohort_deviation: float | None = Field(default=None, gt=0)


class Manifest(Record):
    """Everything of a watchlist but the vectors."""

    format: Literal[1] = 1
    unit: str
    deployment: str
    version: int = Field(ge=1)  # monotonic for a deployment
    created: float
    not_before: float
    not_after: float
    models: Models
    length: int = Field(ge=8, le=LIMITS.template_length)
    threshold: float = Field(ge=-1, le=1)
    category_thresholds: dict[str, float] = Field(default_factory=dict)
    previous: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")  # the sealed file of the version before
    entries: tuple[Entry, ...] = Field(min_length=1, max_length=LIMITS.watchlist_entries)

    @model_validator(mode="after")
    def _window_runs_forward(self) -> Manifest:
        if not self.not_before < self.not_after:
            raise ValueError("the window ends before it begins")
        return self


@dataclass(frozen=True)
class Watchlist:
    """An opened watchlist, in memory only. `templates` is (entries, length) float32, unit length."""

    manifest: Manifest
    templates: Floats
    digest: str  # SHA-256 of the sealed file
    content: str = ""  # digest of references and templates (listing.py)

    def threshold(self, row: int) -> float:
        """The threshold of one entry: its own, else its category's, else the list's; never below the list's own."""
        entry = self.manifest.entries[row]
        if entry.threshold is not None:
            return entry.threshold
        return self.manifest.category_thresholds.get(entry.category, self.manifest.threshold)

    def erase(self) -> None:
        """Zero the templates in place."""
        self.templates[:] = 0


def make(
    manifest: Manifest,
    templates: Floats,
    header_id: str,
    recipient: X25519PublicKey,
    recipient_id: str,
    signers: Sequence[Signer],
) -> bytes:
    """Seal a watchlist to one unit's key. `templates` is (entries, length), unit length, in the entries' order."""
    if templates.shape != (len(manifest.entries), manifest.length):
        raise WatchlistError(
            f"{templates.shape} templates for {len(manifest.entries)} entries of length {manifest.length}"
        )
    text = manifest.model_dump_json().encode()
    plaintext = _LENGTH.pack(len(text)) + text + templates.astype("<f2").tobytes()
    header = Header(
        kind="watchlist", id=header_id, unit=manifest.unit, deployment=manifest.deployment, created=manifest.created,
        expires=manifest.not_after, sender=signers[0].public_key.keyid, recipient=recipient_id,
    )  # fmt: skip
    return seal.seal(header, plaintext, recipient, signers)


def open_watchlist(
    blob: bytes,
    *,
    unit: str,
    keys: Mapping[str, X25519PrivateKey],
    authorities: Sequence[Key],
    models: Models,
    now: float,
    least_version: int = 0,
    limit_entries: int = LIMITS.watchlist_entries,
) -> Watchlist:
    """Verify and open a watchlist file, steps 1 to 10 above. `now` is UTC seconds.

    Raises WatchlistError, whose text says which step failed and what to do.
    """
    try:
        sealed = seal.take_apart(blob, LIMITS.watchlist_bytes)  # 1-3
        if sealed.header.kind != "watchlist":
            raise WatchlistError(f"this is a sealed {sealed.header.kind}, not a watchlist; choose the right file")
        seal.verify(sealed, authorities)  # 4
        if sealed.header.unit != unit:  # 5
            raise WatchlistError(f"issued to unit {sealed.header.unit}, this is {unit}; ask for a list for this unit")
        plaintext = seal.open_sealed(sealed, keys)  # 5-6
    except WatchlistError:
        raise
    except SealError as error:
        raise WatchlistError(f"watchlist refused: {error}") from error
    manifest, vectors, content = parse_plaintext(plaintext)  # 7
    _agree(manifest, sealed.header, limit_entries)
    _for_models(manifest, models)  # 8
    _in_window(manifest, now)  # 9
    if manifest.version < least_version:  # 10
        raise WatchlistError(
            f"version {manifest.version} is older than version {least_version} already used here; use the newest list"
        )
    return Watchlist(manifest, vectors, hashlib.sha256(blob).hexdigest(), content)


def parse_plaintext(plaintext: bytes) -> tuple[Manifest, Floats, str]:
    """Step 7 alone: manifest, templates (entries, length) and content digest of what a seal held.

    Raises WatchlistError.
    """
    try:
        (size,) = _LENGTH.unpack_from(plaintext)
        manifest = Manifest.model_validate_json(plaintext[4 : 4 + size])
    except (struct.error, ValidationError) as error:
        raise WatchlistError("its manifest is malformed; it was made by other software: reissue it") from error
    raw = plaintext[4 + size :]
    if len(raw) != len(manifest.entries) * manifest.length * 2:
        raise WatchlistError(f"{len(manifest.entries)} entries but {len(raw)} bytes of templates; reissue it")
    vectors = np.frombuffer(raw, "<f2").astype(np.float32).reshape(len(manifest.entries), manifest.length)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.all(np.isfinite(norms)) or np.any(np.abs(norms - 1) > 0.02):
        raise WatchlistError("holds templates that are not of unit length; reissue it")
    pairs = ((e.reference_identifier, e.category) for e in manifest.entries)
    return manifest, cast(Floats, vectors / norms), content_digest(pairs, raw)


def _agree(manifest: Manifest, header: Header, limit_entries: int) -> None:
    if (manifest.unit, manifest.deployment) != (header.unit, header.deployment):
        raise WatchlistError("its header and manifest name different units or deployments; reissue it")
    if len(manifest.entries) > limit_entries:
        raise WatchlistError(
            f"{len(manifest.entries)} entries, the policy allows {limit_entries}; issue a shorter list"
        )


def _for_models(manifest: Manifest, models: Models) -> None:
    for role in ("embedder", "detector"):
        made, here = getattr(manifest.models, role), getattr(models, role)
        if made != here:
            raise WatchlistError(
                f"made with another {role} pack ({made[:12]}..., here {here[:12]}...); templates are not portable: "
                "install that pack or reissue the list with this one"
            )


def _in_window(manifest: Manifest, now: float) -> None:
    if now < manifest.not_before - CLOCK_SLACK:
        raise WatchlistError(
            f"begins at {utc(manifest.not_before)}, the clock says {utc(now)}; wait, or set the clock if it is wrong"
        )
    if now >= manifest.not_after:
        raise WatchlistError(f"ended at {utc(manifest.not_after)}, the clock says {utc(now)}; ask for a new list")
