"""The canary kit: a recorded clip, a watchlist sealed to one unit, and what must not be found after a run with them.

kit.json         this record, signed by the base (envelope.py)
watchlist.blw    sealed to the unit; some of the clip's canaries are on it
CLIP             the recording; its faces are synthetic, or of volunteers

The canaries are the tracks that the base's own run of the clip made. Those that matched the list may leave the unit as
sealed alerts; of the others nothing may.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field, field_validator

from appliance.config import DecidePart, DetectPart, ExtractPart, TrackPart
from appliance.errors import SealError
from appliance.formats.order import Digest, Name
from appliance.records import Models, Record
from appliance.storage.files import read_bounded
from appliance.times import utc
from appliance.trust import envelope, keys

KIND = "canary-kit"
KIT_BYTES = envelope.DOCUMENT_BYTES
NEEDLE_BYTES = 256
Kind = Literal[
    "frame bgr", "frame rgb", "frame grey", "chip bgr", "chip rgb", "chip grey", "chip float32", "picture bgr",
    "picture rgb", "picture grey", "jpeg", "template float32", "template float16", "template int8",
]  # fmt: skip
KINDS: tuple[Kind, ...] = get_args(Kind)
HELD: tuple[Kind, ...] = ("chip bgr", "picture bgr", "template float32")  # what the unit itself holds of a track
Encoding = Literal["raw", "base64", "hex"]
ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)


class Needle(Record):
    """Bytes of a canary as they occur in memory, in base64."""

    kind: Kind
    data: str = Field(max_length=NEEDLE_BYTES * 4 // 3 + 4)

    @field_validator("data")
    @classmethod
    def _decodes(cls, data: str) -> str:
        try:
            base64.b64decode(data, validate=True)
        except binascii.Error as error:
            raise ValueError("not base64") from error
        return data

    @property
    def blob(self) -> bytes:
        """The bytes."""
        return base64.b64decode(self.data)


class Canary(Record):
    """One face of the clip: a track, or a reference of the watchlist. `matched`: its sealed alert is expected."""

    name: str = Field(max_length=64)
    role: Literal["track", "reference"]
    matched: bool
    needles: tuple[Needle, ...] = Field(min_length=1, max_length=4000)


class Settings(Record):
    """What the run is set to, so that it makes the bytes that the base made."""

    detect: DetectPart = DetectPart()
    track: TrackPart = TrackPart()
    extract: ExtractPart = ExtractPart()
    decide: DecidePart = DecidePart()


class Kit(Record):
    """All of it. Times are UTC seconds; digests are SHA-256."""

    format: Literal[1] = 1
    unit: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,38}$")
    deployment: str = Field(pattern=Name)
    made: float
    not_after: float
    clip: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    clip_sha256: str = Field(pattern=Digest)
    watchlist_sha256: str = Field(pattern=Digest)
    models: Models
    settings: Settings
    canaries: tuple[Canary, ...] = Field(min_length=2, max_length=2000)

    @property
    def tracks(self) -> tuple[Canary, ...]:
        """The canaries that walk past."""
        return tuple(c for c in self.canaries if c.role == "track")


@dataclass(frozen=True)
class OpenKit:
    """A kit whose signature and files were checked. `digest` is the SHA-256 of kit.json."""

    folder: Path
    record: Kit
    digest: str

    @property
    def clip(self) -> Path:
        """The recording."""
        return self.folder / self.record.clip

    @property
    def watchlist(self) -> Path:
        """The sealed list."""
        return self.folder / "watchlist.blw"


def open_kit(folder: Path, unit: keys.KeyFolder, now: float) -> OpenKit:
    """Verify a kit: signed by an authority, whole, for this unit, not over. Raises SealError or KeyFileError."""
    blob = read_bounded(folder / "kit.json", KIT_BYTES)
    record = envelope.read(blob, KIND, Kit, unit.roster.authority_keys())
    kit = OpenKit(folder, record, hashlib.sha256(blob).hexdigest())
    if record.unit != unit.identity.name:
        raise SealError(f"{folder}: a kit for unit {record.unit}, this is {unit.identity.name}; make one for this unit")
    if now >= record.not_after:
        raise SealError(f"{folder}: the kit's list ended at {utc(record.not_after)}; make a new kit at the base")
    for path, wanted in ((kit.clip, record.clip_sha256), (kit.watchlist, record.watchlist_sha256)):
        if digest_of(path) != wanted:
            raise SealError(f"{path}: not the file that the base signed for; copy the kit again")
    return kit


def digest_of(path: Path) -> str:
    """SHA-256 of a file of any size. Raises SealError where it cannot be read."""
    found = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                found.update(block)
    except OSError as error:
        raise SealError(f"{path}: {error.strerror}; copy the kit again") from error
    return found.hexdigest()
