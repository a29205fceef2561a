"""From an alert that arrived to a case that people may judge. Pure.

Times: a unit's clock may be wrong. An alert's age counts from its frame or from its arrival, whichever was earlier, so
a clock that runs ahead cannot keep it fresh; one that runs behind, or a way that took long, makes it stale, which is
the safe side, and is remarked. How long it is kept counts from its arrival alone, by our own clock.
"""

from __future__ import annotations

import base64

from appliance.formats.order import Order, Retention
from appliance.records import Alert
from control.records import Case

_AHEAD = 5.0  # seconds a frame may seem to come from the future before it is remarked
_LATE = 60.0  # seconds an alert may be under way before it is remarked


def case_of(alert: Alert, received: float, notes: tuple[str, ...], order: Order | None, ttl: float) -> Case:
    """The case of an alert. Without its order: one adjudicator, kept 24 h."""
    stale_after = min(alert.observed, received) + ttl
    return Case(
        alert_id=alert.alert_id, decoy=False, unit=alert.unit, deployment=alert.deployment, camera=alert.camera,
        category=alert.category, reference_identifier=alert.reference_identifier, captured=alert.captured,
        observed=alert.observed, received=received, shown=None, stale_after=stale_after,
        keep_until=_keep_until(received, order), erased=None, score=alert.score, threshold=alert.threshold,
        quality=alert.quality, interocular=alert.interocular, frames=alert.frames, track_seconds=alert.track_seconds,
        notes=(*notes, *_remarks(alert, received, order)), has_probe=decoded(alert.chip) is not None,
        state="withdrawn" if received >= stale_after else "waiting", required=_required(order),
    )  # fmt: skip


def decoy_of(case: Case, now: float, order: Order | None, ttl: float) -> Case:
    """A decoy as an alert that arrived now under this order would be."""
    changes = {"decoy": True, "received": now, "stale_after": min(case.observed, now) + ttl, "has_probe": True,
               "keep_until": _keep_until(now, order), "state": "waiting", "required": _required(order)}  # fmt: skip
    return case.model_copy(update=changes)


def decoded(chip: str | None) -> bytes | None:
    """The JPEG of an alert; None where it has none or it cannot be read."""
    if not chip:
        return None
    try:
        return base64.b64decode(chip, validate=True)
    except ValueError:  # not base64, or not even ASCII
        return None


def _keep_until(received: float, order: Order | None) -> float:
    return received + min((order.retention if order else Retention()).alert_hours, 24.0) * 3600.0


def _required(order: Order | None) -> int:
    return order.adjudicators if order else 1


def _remarks(alert: Alert, received: float, order: Order | None) -> tuple[str, ...]:
    ahead = alert.observed - received
    found = []
    if ahead > _AHEAD:
        found.append(f"its frame seems to be {ahead:.0f} s in the future: its age counts from its arrival")
    if -ahead > _LATE:
        found.append(f"arrived {-ahead:.0f} s after its frame: held up on the way, or the unit's clock is behind")
    if alert.chip and decoded(alert.chip) is None:
        found.append("its picture cannot be read")
    if order is None:
        found.append("its order is not here: bring it to the control room")
    return tuple(found)
