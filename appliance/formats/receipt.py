"""The signed receipt of deletion that a unit makes when a deployment ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from securesystemslib.signer import Key

from appliance.errors import SealError
from appliance.formats.order import Digest, Name
from appliance.limits import LIMITS
from appliance.records import Record
from appliance.trust import envelope
from appliance.trust.audit import Anchor

KIND = "receipt"

Reason = Literal["window-ended", "disarmed", "recalled", "clock", "fpir"]


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


def read(blob: bytes, units: Sequence[Key]) -> Receipt:
    """Verify a unit's signature on a receipt, then parse. Raises SealError."""
    if len(blob) > LIMITS.envelope_bytes:
        raise SealError(f"{len(blob)} bytes are too many for a receipt")
    return envelope.read(blob, KIND, Receipt, units)
