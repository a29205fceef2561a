"""What an attestation says, when it is good, and how anyone checks that the unit signed it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from securesystemslib.signer import Key

from appliance.attest.kit import HELD, Encoding, Kind
from appliance.errors import BluelampError, SealError
from appliance.formats.order import Digest, Name
from appliance.records import Models, Record
from appliance.trust import envelope
from appliance.trust.keys import Roster

KIND = "attestation"
CORES = "core files"  # the surface where not even an empty piece may be
_CROCKFORD = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", "0123456789ABCDEFGHJKMNPQRSTVWXYZ")
Must = Literal["hold nothing", "hold matches only", "be told"]


class AttestError(BluelampError):
    """The attestation could not be made, or it says that something was found."""

    exit_code = 13


class Finding(Record):
    """Needles of one sort that were found in one place. `where` names up to three pieces, never a whole path."""

    kind: Kind
    encoding: Encoding
    role: Literal["track", "reference"]
    matched: bool
    canaries: int = Field(ge=1)
    occurrences: int = Field(ge=1)
    where: tuple[str, ...] = Field(default=(), max_length=3)


class Surface(Record):
    """One place that was searched, or could not be. `must` says what it is allowed to hold; `words` is for citizens."""

    name: str = Field(max_length=80)
    words: str = Field(max_length=600)
    must: Must
    searched: bool
    size: int = Field(default=0, ge=0)  # bytes
    pieces: int = Field(default=0, ge=0)  # files, regions of memory, messages
    findings: tuple[Finding, ...] = Field(default=(), max_length=400)
    note: str = Field(default="", max_length=1000)

    @property
    def good(self) -> bool:
        """Whether it holds no more than it may."""
        if self.must == "hold nothing":
            return not self.findings
        if self.must == "hold matches only":
            return all(f.matched and f.role == "track" for f in self.findings)
        return True


class Control(Record):
    """Needles that were planted in one sort of place to see that the search finds them there."""

    place: str = Field(max_length=80)
    planted: int = Field(ge=0)
    found: int = Field(ge=0)
    note: str = Field(default="", max_length=400)

    @property
    def good(self) -> bool:
        """Whether all were found."""
        return self.found == self.planted


class Done(Record):
    """What the deployment with the canaries did."""

    frames: int
    tracks: int
    alerts: int
    matched: int  # canary tracks that the base saw match the list
    unmatched: int
    references: int


class Attestation(Record):
    """All of it. Times are UTC seconds."""

    format: Literal[1] = 1
    unit: str
    deployment: str = Field(pattern=Name)
    started: float
    ended: float
    software: str = Field(max_length=40)
    models: Models
    kit: str = Field(pattern=Digest)
    clip: str = Field(pattern=Digest)
    needles: int = Field(ge=1)
    encodings: tuple[Encoding, ...]
    chance: float = Field(ge=0, le=1)  # upper bound of one match by chance in all that was searched
    done: Done
    given_up: tuple[str, ...] = Field(default=(), max_length=40)  # what the vision process could no longer do
    live: tuple[Kind, ...]  # kinds of needles seen in vision's memory while faces passed: the needles are right
    controls: tuple[Control, ...]
    surfaces: tuple[Surface, ...]
    not_searched: tuple[str, ...]

    @property
    def faults(self) -> tuple[str, ...]:
        """Why this attestation shows no non-retention; empty where it does."""
        found = [f"positive control: {c.planted - c.found} of {c.planted} not found: {c.place}"
                 for c in self.controls if not c.good]  # fmt: skip
        if missing := sorted(set(HELD) - set(self.live)):
            found.append(f"no needle of {', '.join(missing)} was ever seen in vision's memory: other bytes occur here")
        found += [f"{s.name}: holds what it must not" for s in self.surfaces if not s.good]
        found += [s.note for s in self.surfaces if s.name == CORES and s.pieces]
        matches = [s for s in self.surfaces if s.must == "hold matches only" and s.searched]
        found += [f"{s.name}: the matched canaries are not there, though expected" for s in matches if not s.findings]
        if not self.done.alerts:
            found.append("no canary matched, so nothing was sent")
        return tuple(found)

    @property
    def passed(self) -> bool:
        """Nothing was found where it must not be, by a search that is known to work."""
        return not self.faults


def short_digest(blob: bytes) -> str:
    """The first 80 bits of a file's SHA-256 as four groups of four characters (Crockford's base32), for a sign.

    Who wants another file with the same characters must try some 2**80; the full digest stands on the page.
    """
    text = base64.b32encode(hashlib.sha256(blob).digest()[:10]).decode().translate(_CROCKFORD)
    return "-".join(text[i : i + 4] for i in range(0, 16, 4))


def read(blob: bytes, roster: Roster) -> Attestation:
    """An attestation signed by the very unit that it names. Raises SealError."""
    named = envelope.unverified(blob, KIND, Attestation).unit
    identity = roster.unit(named)
    if identity is None:
        raise SealError(f"unit {named} is not on this roster, or was revoked; get the newest roster from the base")
    return read_by(blob, [identity.signing_key()])


def read_by(blob: bytes, keys: Sequence[Key]) -> Attestation:
    """An attestation signed by one of `keys`. Raises SealError."""
    return envelope.read(blob, KIND, Attestation, keys)
