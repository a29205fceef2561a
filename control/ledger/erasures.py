"""Which records are over, and what is written down when they are erased: counts and a digest, nobody's identifier."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from appliance.formats.order import Order
from control.ledger import case_rows, deployment_rows

_LINKS_KEPT = 14 * 86400.0  # seconds in which a container is known again; the broker keeps one two days at most
_EVENTS_KEPT = 2 * 86400.0


@dataclass(frozen=True)
class Erasure:
    """Records that were erased together. `digest` is over their names: whoever has the names can find it in the log."""

    digest: str
    at: float
    alerts: int
    deployments: int

    @classmethod
    def of(cls, alerts: Iterable[str], deployments: Iterable[str], at: float) -> Erasure:
        """The erasure of these alerts and these deployments' references."""
        one, other = sorted(alerts), sorted(deployments)
        names = "\n".join([*(f"alert {name}" for name in one), *(f"references {name}" for name in other)])
        return cls(hashlib.sha256(names.encode()).hexdigest(), at, len(one), len(other))


def references_until(order: Order) -> float:
    """Until when the references of a deployment are kept: as long as its last alert may be."""
    return order.not_after + min(order.retention.alert_hours, 24.0) * 3600.0


def due_alerts(db: sqlite3.Connection, now: float) -> list[str]:
    """Alerts that were kept as long as they may be."""
    query = "SELECT alert_id FROM cases WHERE erased IS NULL AND keep_until <= ? ORDER BY number"
    return [name for (name,) in db.execute(query, (now,))]


def due_deployments(db: sqlite3.Connection, now: float) -> list[str]:
    """Deployments whose references were kept as long as they may be."""
    rows = db.execute("SELECT name, document FROM deployments WHERE erased IS NULL").fetchall()
    return [name for name, text in rows if references_until(Order.model_validate_json(text)) <= now]


def forget(db: sqlite3.Connection, erasure: Erasure, alerts: list[str], deployments: list[str]) -> None:
    """Take these records and their keys out of the file, and write down that it was done."""
    case_rows.forget(db, alerts, erasure.digest, erasure.at)
    deployment_rows.forget_pictures(db, deployments, erasure.digest, erasure.at)
    db.execute("INSERT INTO erasures (digest, at, alerts, deployments) VALUES (?, ?, ?, ?)",
               (erasure.digest, erasure.at, erasure.alerts, erasure.deployments))  # fmt: skip


def unlogged(db: sqlite3.Connection) -> list[Erasure]:
    """Erasures that are not in the room's log yet, oldest first."""
    query = "SELECT digest, at, alerts, deployments FROM erasures WHERE NOT logged ORDER BY at"
    return [Erasure(*row) for row in db.execute(query)]


def note_logged(db: sqlite3.Connection, erasure: Erasure) -> None:
    """The room's log tells of it now."""
    db.execute("UPDATE erasures SET logged = 1 WHERE digest = ?", (erasure.digest,))


def members_of(db: sqlite3.Connection, digest: str) -> tuple[list[str], list[str]]:
    """Alerts and deployments that were erased together."""
    alerts = [name for (name,) in db.execute("SELECT alert_id FROM cases WHERE erasure = ?", (digest,))]
    return alerts, [name for (name,) in db.execute("SELECT name FROM deployments WHERE erasure = ?", (digest,))]


def forget_old(db: sqlite3.Connection, now: float) -> None:
    """Forget events, and containers that nobody will send again."""
    db.execute("DELETE FROM events WHERE at < ?", (now - _EVENTS_KEPT,))
    db.execute("DELETE FROM arrived WHERE at < ?", (now - _LINKS_KEPT,))
