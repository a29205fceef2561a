"""Nothing is kept longer than its order says (requirements 15 and 19), and the room's log tells of each erasure.

Alerts go `alert_hours` after they arrived, at most a day; confirmed ones `confirmed_days` after they were decided, at
most thirty; references `alert_hours` after the window of their order. Each erasure wraps the living keys anew, so what
is due within LEAD seconds goes at once: nothing goes late, and a flood of alerts is not a flood of erasures.
"""

from __future__ import annotations

from appliance.trust.audit import Audit
from control.ledger.erasures import Erasure
from control.ledger.ledger import Ledger

LEAD = 60.0  # seconds; what is due this soon is erased with what is due now


def purge(ledger: Ledger, audit: Audit, now: float) -> int:
    """Erase what is over and log it; the result is how many alerts. Cheap where nothing is due: call it every second.

    Raises LedgerError, OSError; an erasure that could not be logged is logged the next time.
    """
    alerts, deployments = ledger.due(now)
    if alerts or deployments:
        alerts, deployments = ledger.due(now + LEAD)
        ledger.erase_now(alerts, deployments)
        ledger.forget_old()
    for erasure in ledger.unlogged():
        audit.add("erasure", erasure.digest, words(erasure))
        ledger.logged(erasure)
    return len(alerts)


def words(erasure: Erasure) -> str:
    """An erasure as the room's log tells it."""
    return f"keys destroyed of {erasure.alerts} alert(s) and the references of {erasure.deployments} deployment(s)"
