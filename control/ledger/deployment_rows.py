"""What the ledger holds of a deployment: its order, its references' pictures, receipts of deletion, health counts."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from appliance.formats.order import Order
from appliance.formats.receipt import Receipt
from appliance.identifiers import uuid7
from appliance.records import Health
from control.ledger.vault import DataKey
from control.records import Deployment, ReferencePicture

_SELECT = """
SELECT d.document, d.digest, d.added,
       (SELECT count(*) FROM pictures p WHERE p.record = d.pictures AND p.shown),
       (SELECT digest FROM receipts r WHERE r.deployment = d.name ORDER BY at DESC LIMIT 1)
FROM deployments d
"""


def new_record(deployment: str) -> str:
    """A name for the key of a deployment's references: each set that is brought has its own."""
    return f"{_prefix(deployment)}{uuid7()}"


def belongs(record: str, deployment: str) -> bool:
    """Whether a key is of a deployment's references."""
    return record.startswith(_prefix(deployment))


def deployments(db: sqlite3.Connection, name: str | None = None) -> list[Deployment]:
    """All deployments, the newest first, or the one of this name."""
    where, values = ("WHERE d.name = ?", (name,)) if name is not None else ("ORDER BY d.added DESC", ())
    return [
        Deployment(
            order=Order.model_validate_json(document), digest=digest, added=added, references=count, receipt=last
        )
        for document, digest, added, count, last in db.execute(_SELECT + where, values)
    ]


def order(db: sqlite3.Connection, name: str) -> Order | None:
    """A deployment's order, or None."""
    found = db.execute("SELECT document FROM deployments WHERE name = ?", (name,)).fetchone()
    return Order.model_validate_json(found[0]) if found else None


def add(db: sqlite3.Connection, document: Order, digest: str, now: float) -> None:
    """Write down an order."""
    db.execute("INSERT INTO deployments (name, document, digest, added) VALUES (?, ?, ?, ?)",
               (document.deployment, document.model_dump_json(), digest, now))  # fmt: skip


def references_erased(db: sqlite3.Connection, deployment: str) -> bool:
    """Whether the references of a deployment are gone for good."""
    found = db.execute("SELECT erased FROM deployments WHERE name = ?", (deployment,)).fetchone()
    return found is not None and found[0] is not None


def put_pictures(db: sqlite3.Connection, deployment: str, key: DataKey, pictures: Iterable[ReferencePicture]) -> None:
    """Write references of a set that is not in use yet."""
    rows = []
    for picture in pictures:
        name = key.name(picture.reference_identifier)
        sealed = key.seal(name.hex(), picture.model_dump_json().encode())
        rows.append((key.record, name, picture.picture is not None, deployment, sealed))
    db.executemany("INSERT OR REPLACE INTO pictures (record, name, shown, deployment, sealed) VALUES (?, ?, ?, ?, ?)",
                   rows)  # fmt: skip


def use_pictures(db: sqlite3.Connection, deployment: str, record: str) -> None:
    """Put a set of references to use and take every other out of the file, with its key."""
    db.execute("DELETE FROM pictures WHERE deployment = ? AND record <> ?", (deployment, record))
    prefix = _prefix(deployment)
    db.execute("DELETE FROM keys WHERE substr(record, 1, ?) = ? AND record <> ?", (len(prefix), prefix, record))
    db.execute("UPDATE deployments SET pictures = ? WHERE name = ?", (record or None, deployment))


def record_in_use(db: sqlite3.Connection, deployment: str) -> str | None:
    """The name of the key of the references in use; None where there are none."""
    found = db.execute("SELECT pictures FROM deployments WHERE name = ?", (deployment,)).fetchone()
    return None if found is None else found[0]


def picture(db: sqlite3.Connection, key: DataKey, identifier: str) -> ReferencePicture | None:
    """The reference of an identifier, or None where it is not here."""
    name = key.name(identifier)
    found = db.execute("SELECT sealed FROM pictures WHERE record = ? AND name = ?", (key.record, name)).fetchone()
    return ReferencePicture.model_validate_json(key.open(name.hex(), found[0])) if found else None


def forget_pictures(db: sqlite3.Connection, names: Iterable[str], erasure: str, now: float) -> None:
    """Take the references of deployments, and their keys, out of the file for good."""
    for name in names:
        use_pictures(db, name, "")
        db.execute("UPDATE deployments SET erased = ?, erasure = ? WHERE name = ?", (now, erasure, name))


def add_receipt(db: sqlite3.Connection, deployment: str, digest: str, receipt: Receipt | None, now: float) -> bool:
    """Write down a receipt of deletion; False where it is known."""
    document = None if receipt is None else receipt.model_dump_json()
    values = (digest, deployment, now, document)
    return db.execute("INSERT OR IGNORE INTO receipts VALUES (?, ?, ?, ?)", values).rowcount > 0


def receipts(db: sqlite3.Connection, deployment: str) -> list[tuple[str, float, Receipt | None]]:
    """Digest, time of arrival and content of a deployment's receipts, oldest first."""
    query = "SELECT digest, at, document FROM receipts WHERE deployment = ? ORDER BY at"
    rows = db.execute(query, (deployment,)).fetchall()
    return [(digest, at, Receipt.model_validate_json(text) if text else None) for digest, at, text in rows]


def put_health(db: sqlite3.Connection, health: Health) -> bool:
    """Keep a unit's newest report of each of its runs: its counts begin again when it does. False for an older one."""
    last = _last_run(db, health.deployment, health.unit)
    run = 0
    if last is not None:
        run, before = last
        if health.time < before.time:
            return False
        run += health.uptime < before.uptime
    db.execute("INSERT OR REPLACE INTO healths VALUES (?, ?, ?, ?)",
               (health.deployment, health.unit, run, health.model_dump_json()))  # fmt: skip
    return True


def healths(db: sqlite3.Connection, deployment: str) -> list[Health]:
    """The last report of every run of every unit, by unit and in the order of the runs."""
    query = "SELECT document FROM healths WHERE deployment = ? ORDER BY unit, run"
    return [Health.model_validate_json(text) for (text,) in db.execute(query, (deployment,))]


def _last_run(db: sqlite3.Connection, deployment: str, unit: str) -> tuple[int, Health] | None:
    query = "SELECT run, document FROM healths WHERE deployment = ? AND unit = ? ORDER BY run DESC LIMIT 1"
    found = db.execute(query, (deployment, unit)).fetchone()
    return (int(found[0]), Health.model_validate_json(found[1])) if found else None


def _prefix(deployment: str) -> str:
    return f"references/{deployment}/"
