"""Deletion receipts that came back: which lists are proven gone, which are overdue (requirement 4).

A list is gone when the unit signed that it destroyed the very key the list was sealed to: every version of the
deployment was sealed to that key, and every copy of the files is noise without it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from appliance.errors import KeyFileError, SealError
from appliance.formats.receipt import KIND, Receipt, read
from appliance.limits import LIMITS
from appliance.storage.files import read_bounded, write_public
from appliance.trust import envelope
from appliance.trust.audit import Anchor
from provisioning.base import Base
from provisioning.lists import issue
from provisioning.lists.issue import Issued

State = Literal["gone", "overdue", "running", "not begun"]


@dataclass(frozen=True)
class Verdict:
    """What is known of one unit's part of a deployment."""

    deployment: str
    unit: str
    versions: int
    not_after: float
    state: State
    reason: str  # why it ended, or what is missing


def take_in(base: Base, path: Path) -> Receipt:
    """Verify a receipt and keep it. Raises SealError or KeyFileError."""
    blob = read_bounded(path, LIMITS.envelope_bytes)
    receipt = verified(base, blob)
    match = [r for r in issue.records(base) if (r.unit, r.deployment) == (receipt.unit, receipt.deployment)]
    if not match:
        raise SealError(f"{path}: a receipt for {receipt.deployment} on {receipt.unit}, which this base did not issue")
    folder = base.folder / "receipts"
    folder.mkdir(exist_ok=True)
    write_public(folder / f"{receipt.deployment}.{receipt.unit}.json", blob)
    base.audit.add(
        "erasure", receipt.deployment, f"receipt of {receipt.unit}: {receipt.reason}, {len(receipt.files)} files"
    )
    return receipt


def verified(base: Base, blob: bytes) -> Receipt:
    """A receipt signed by the very unit it names. Raises SealError or KeyFileError."""
    claimed = envelope.unverified(blob, KIND, Receipt)
    identity = next((u for u in reversed(base.keys.roster.units) if u.name == claimed.unit), None)
    if identity is None:
        raise KeyFileError(f"{claimed.unit}: no such unit on the roster; a receipt needs the unit's signature")
    return read(blob, [identity.signing_key()])


def overview(base: Base, now: float | None = None) -> list[Verdict]:
    """A verdict for every unit and deployment ever issued, newest first."""
    now = time.time() if now is None else now
    received = {(r.deployment, r.unit): r for r in _receipts(base)}
    lists: dict[tuple[str, str], list[Issued]] = {}
    for record in issue.records(base):
        lists.setdefault((record.deployment, record.unit), []).append(record)
    verdicts = [_verdict(base, versions, received.get(name), now) for name, versions in lists.items()]
    return sorted(verdicts, key=lambda v: -v.not_after)


def anchors(base: Base, unit: str) -> list[Anchor]:
    """Where a unit's audit log stood at each receipt: its log may be checked against them."""
    return [r.anchor for r in _receipts(base) if r.unit == unit]


def own_anchors(base: Base) -> list[Anchor]:
    """Where this base's audit log stood at each issue."""
    return [r.anchor for r in issue.records(base)]


def _receipts(base: Base) -> Iterable[Receipt]:
    for path in sorted((base.folder / "receipts").glob("*.json")):
        yield verified(base, read_bounded(path, LIMITS.envelope_bytes))


def _verdict(base: Base, versions: list[Issued], receipt: Receipt | None, now: float) -> Verdict:
    last = versions[-1]
    wanted = {v.sealing_key for v in versions}
    if receipt is not None and wanted <= set(receipt.keys):
        return Verdict(last.deployment, last.unit, len(versions), last.not_after, "gone", receipt.reason)
    hours = (now - last.not_after) / 3600
    state: State = "not begun" if now < last.not_before else "running"
    reason = "" if now < last.not_before else "no receipt yet"
    if hours > base.policy.receipt_hours:
        state, reason = "overdue", f"no receipt {hours:.0f} h after the window's end; ask the unit for it"
    if receipt is not None:
        reason = "its receipt does not name the key the list was sealed to"
    return Verdict(last.deployment, last.unit, len(versions), last.not_after, state, reason)
