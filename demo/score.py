"""Alerts held against ground truth: which passes were found, which alerts were false."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from control.receive.inbox import Opened
from provisioning.truth import Pass, Truth

_LATE = 15  # frames after a pass has left the picture in which its track may still alert


@dataclass(frozen=True)
class Score:
    """Counts over passes. A false alert is one that no mated pass in view explains, whoever caused it."""

    passes: int
    mated: int
    alerts: int
    true: int
    false: int
    missed: int
    latency_p50: float | None  # seconds from the frame that decided to the control room's opened alert
    latency_p99: float | None


def score(truth: Truth, opened: Sequence[Opened]) -> Score:
    """Match every alert to a mated pass that was in view in the alert's frame and has the same reference."""
    found: set[str] = set()
    false = 0
    for one in opened:
        assert one.alert is not None
        entry = _explained(truth, one.alert.reference_identifier, one.alert.frame)
        if entry is None:
            false += 1
        else:
            found.add(entry.pass_id)
    mated = sum(p.mated for p in truth.passes)
    delays = sorted(one.received - one.alert.observed for one in opened if one.alert is not None)
    return Score(
        passes=len(truth.passes), mated=mated, alerts=len(opened), true=len(found), false=false,
        missed=mated - len(found), latency_p50=round(statistics.median(delays), 3) if delays else None,
        latency_p99=round(delays[min(len(delays) - 1, int(0.99 * len(delays)))], 3) if delays else None,
    )  # fmt: skip


def _explained(truth: Truth, reference_identifier: str, frame: int) -> Pass | None:
    for entry in truth.passes:
        same = entry.reference_identifier == reference_identifier
        if same and entry.first_frame <= frame <= entry.last_frame + _LATE:
            return entry
    return None
