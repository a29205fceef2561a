"""Signed receipts of deletion for tests."""

from __future__ import annotations

import time

from appliance.formats.receipt import KIND, Receipt
from appliance.trust import envelope
from appliance.trust.audit import Anchor
from tests.support.machines import DEPLOYMENT, UNIT, Machines


def receipt(machines: Machines, unit: str = UNIT, **changes: object) -> bytes:
    """A unit's signed word that its deployment is erased."""
    folder = machines.keys(unit)
    made = Receipt(
        unit=unit, deployment=DEPLOYMENT, reason="window-ended", ended=time.time(), keys=("a" * 64,), files=(),
        watchlist="0" * 64, order="0" * 64, entries=3, anchor=Anchor(),
    ).model_copy(update=changes)  # fmt: skip
    return envelope.sign(made, KIND, folder.signer)
