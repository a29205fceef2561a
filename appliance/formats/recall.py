"""A signed recall: any one authority ends a deployment at once, over MQTT or by hand.

One signature is enough, unlike for an order: starting takes several, stopping takes one. It names unit and
deployment, so it cannot be played to another; playing it twice ends nothing that is not over already.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field
from securesystemslib.signer import Key, Signer

from appliance.errors import SealError
from appliance.formats.order import Name
from appliance.limits import LIMITS
from appliance.records import Record
from appliance.trust import envelope

KIND = "recall"


class Recall(Record):
    """End `deployment` on `unit` now."""

    format: Literal[1] = 1
    unit: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,38}$")
    deployment: str = Field(pattern=Name)
    made: float
    reason: str = Field(min_length=3, max_length=500)


def sign(recall: Recall, signer: Signer) -> bytes:
    """The recall as a signed document."""
    return envelope.sign(recall, KIND, signer)


def read(blob: bytes, authorities: Sequence[Key]) -> Recall:
    """Verify one authority's signature, then parse. Raises SealError."""
    if len(blob) > LIMITS.envelope_bytes:
        raise SealError(f"{len(blob)} bytes are too many for a recall")
    return envelope.read(blob, KIND, Recall, authorities)


def waiting(path: Path, authorities: Sequence[Key], unit: str, deployment: str) -> Recall | None:
    """The recall lying at `path`, where it verifies and is for this unit and deployment; anything else is ignored.

    The courier writes there whatever the broker sent: an invalid one must not stop a unit, and must not be able to.
    """
    try:
        if not path.is_file() or path.stat().st_size > LIMITS.envelope_bytes:
            return None
        recall = read(path.read_bytes(), authorities)
    except (OSError, SealError):
        return None
    return recall if (recall.unit, recall.deployment) == (unit, deployment) else None
