"""A case and its rows in the ledger's file. What a human typed, and who a reference is of, stand there sealed only."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from appliance.formats.order import Order
from control.ledger.vault import DataKey
from control.records import Case, Engagement, Judgement, ReferencePicture

_PLAIN = (
    "alert_id", "decoy", "unit", "deployment", "camera", "category", "captured", "observed", "received", "shown",
    "stale_after", "keep_until", "erased", "score", "threshold", "quality", "interocular", "frames", "track_seconds",
    "has_probe", "state", "required", "decided",
)  # fmt: skip
_INSERT = (*_PLAIN, "notes", "identifier", "probe")
_AT_ONCE = 500  # SQLite's oldest limit on the parameters of a query is 999
_OVER_FOR = (
    "(EXISTS (SELECT 1 FROM judgements j WHERE j.alert_id = cases.alert_id AND j.by = ? AND j.undone IS NULL) "
    "OR stale_after <= ?)"
)
OPEN_FIRST = f"WHERE state = ? ORDER BY {_OVER_FOR}, stale_after, number LIMIT ?"
COUNT_UNANSWERED = f"SELECT count(*) FROM cases WHERE state = ? AND NOT {_OVER_FOR}"
KeyOf = Callable[[str], "DataKey | None"]  # the open key of an alert's record; None once erased, or where only counted


def record_of(alert_id: str) -> str:
    """The name of a case's key."""
    return f"case/{alert_id}"


def nobody(_: str) -> DataKey | None:
    """For a reader that opens nothing: identifiers and notes stay empty."""
    return None


def find(db: sqlite3.Connection, key_of: KeyOf, where: str, values: Sequence[Any] = ()) -> list[Case]:
    """Cases that a WHERE clause (with its order and limit) selects. Only constant clauses are passed in."""
    columns = ", ".join((*_PLAIN, "notes", "identifier"))
    rows = db.execute(f"SELECT {columns} FROM cases {where}", tuple(values)).fetchall()
    names = [row[0] for row in rows]
    open_keys = {name: key_of(name) for name in names}
    judgements = _judgements(db, names, open_keys)
    engagements = _engagements(db, names, open_keys)
    return [_case(row, open_keys[row[0]], judgements[row[0]], engagements.get(row[0])) for row in rows]


def insert(db: sqlite3.Connection, case: Case, key: DataKey, probe: bytes | None) -> None:
    """A new case with its probe, sealed with its own key."""
    values = [getattr(case, name) for name in _PLAIN]
    values += [json.dumps(case.notes), key.seal("identifier", case.reference_identifier.encode())]
    values.append(None if probe is None else key.seal("probe", probe))
    db.execute(f"INSERT INTO cases ({', '.join(_INSERT)}) VALUES ({', '.join('?' * len(_INSERT))})", values)


def apply_order(db: sqlite3.Connection, order: Order) -> None:
    """Put alerts that came before their order under it: how many must judge, and how long they are kept."""
    db.execute("UPDATE cases SET required = ? WHERE deployment = ? AND state = 'waiting'",
               (order.adjudicators, order.deployment))  # fmt: skip
    db.execute("UPDATE cases SET keep_until = min(keep_until, received + ?) WHERE deployment = ? AND NOT EXISTS "
               "(SELECT 1 FROM engagements e WHERE e.alert_id = cases.alert_id AND e.outcome = 'confirmed')",
               (order.retention.alert_hours * 3600.0, order.deployment))  # fmt: skip
    db.execute("UPDATE cases SET keep_until = min(keep_until, decided + ?) WHERE deployment = ? AND EXISTS "
               "(SELECT 1 FROM engagements e WHERE e.alert_id = cases.alert_id AND e.outcome = 'confirmed')",
               (order.retention.confirmed_days * 86400.0, order.deployment))  # fmt: skip


def move(db: sqlite3.Connection, case: Case) -> None:
    """Write down where a case stands now."""
    db.execute("UPDATE cases SET state = ?, decided = ?, keep_until = ? WHERE alert_id = ?",
               (case.state, case.decided, case.keep_until, case.alert_id))  # fmt: skip


def add_judgement(db: sqlite3.Connection, alert_id: str, judgement: Judgement, key: DataKey) -> None:
    """Write down one answer."""
    db.execute(
        "INSERT INTO judgements (alert_id, by, verdict, at, seconds, ruling, note) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (alert_id, judgement.by, judgement.verdict, judgement.at, judgement.seconds, judgement.ruling,
         key.seal("note", judgement.note.encode()) if judgement.note else None),
    )  # fmt: skip


def undo_judgement(db: sqlite3.Connection, alert_id: str, by: str, now: float) -> None:
    """Mark a member's last answer as taken back; it stays in the ledger."""
    db.execute(
        "UPDATE judgements SET undone = ? WHERE number = (SELECT max(number) FROM judgements "
        "WHERE alert_id = ? AND by = ? AND undone IS NULL)", (now, alert_id, by),
    )  # fmt: skip


def add_engagement(db: sqlite3.Connection, alert_id: str, engagement: Engagement, key: DataKey) -> None:
    """Write down what followed."""
    db.execute(
        "INSERT INTO engagements VALUES (?, ?, ?, ?, ?, ?)",
        (alert_id, engagement.by, engagement.outcome, engagement.at, json.dumps(engagement.recorded),
         key.seal("followed", engagement.followed.encode()) if engagement.followed else None),
    )  # fmt: skip


def keep_reference(db: sqlite3.Connection, alert_id: str, reference: ReferencePicture | None, key: DataKey) -> None:
    """Keep a copy of the reference with the case: it is kept longer than its deployment's references."""
    if reference is not None:
        sealed = key.seal("reference", reference.model_dump_json().encode())
        db.execute("UPDATE cases SET reference = ? WHERE alert_id = ?", (sealed, alert_id))


def picture(db: sqlite3.Connection, alert_id: str, field: str, key: DataKey) -> bytes | None:
    """The probe's JPEG or the case's own copy of the reference (a ReferencePicture in JSON); None where it has none."""
    column = {"probe": "probe", "reference": "reference"}[field]
    found = db.execute(f"SELECT {column} FROM cases WHERE alert_id = ?", (alert_id,)).fetchone()
    return None if found is None or found[0] is None else key.open(field, found[0])


def forget(db: sqlite3.Connection, names: Sequence[str], erasure: str, now: float) -> None:
    """Take pictures, identifiers, notes and keys of cases out of the file."""
    for name in names:
        db.execute("UPDATE cases SET erased = ?, erasure = ?, identifier = NULL, probe = NULL, reference = NULL, "
                   "has_probe = 0, state = CASE WHEN state IN ('waiting', 'disputed') THEN 'withdrawn' ELSE state END "
                   "WHERE alert_id = ?", (now, erasure, name))  # fmt: skip
        db.execute("UPDATE judgements SET note = NULL WHERE alert_id = ?", (name,))
        db.execute("UPDATE engagements SET followed = NULL WHERE alert_id = ?", (name,))
        db.execute("DELETE FROM seen WHERE alert_id = ?", (name,))
        db.execute("DELETE FROM keys WHERE record = ?", (record_of(name),))


def _case(row: Sequence[Any], key: DataKey | None, judgements: list[Judgement], engagement: Engagement | None) -> Case:
    fields = dict(zip(_PLAIN, row, strict=False))
    notes, identifier = row[-2:]
    fields["decoy"], fields["has_probe"] = bool(fields["decoy"]), bool(fields["has_probe"])
    return Case(
        **fields, notes=tuple(json.loads(notes)), reference_identifier=_text(key, "identifier", identifier),
        judgements=tuple(judgements), engagement=engagement,
    )  # fmt: skip


def _judgements(
    db: sqlite3.Connection, names: list[str], keys: dict[str, DataKey | None]
) -> dict[str, list[Judgement]]:
    found: dict[str, list[Judgement]] = defaultdict(list)
    for part in _parts(names):
        query = ("SELECT alert_id, by, verdict, at, seconds, ruling, note FROM judgements WHERE undone IS NULL "
                 f"AND alert_id IN ({', '.join('?' * len(part))}) ORDER BY number")  # fmt: skip
        for name, by, verdict, at, seconds, ruling, note in db.execute(query, part):
            text = _text(keys[name], "note", note)
            found[name].append(
                Judgement(by=by, verdict=verdict, at=at, seconds=seconds, note=text, ruling=bool(ruling))
            )
    return found


def _engagements(db: sqlite3.Connection, names: list[str], keys: dict[str, DataKey | None]) -> dict[str, Engagement]:
    found: dict[str, Engagement] = {}
    for part in _parts(names):
        query = ("SELECT alert_id, by, outcome, at, recorded, followed FROM engagements "
                 f"WHERE alert_id IN ({', '.join('?' * len(part))})")  # fmt: skip
        for name, by, outcome, at, recorded, followed in db.execute(query, part):
            text = _text(keys[name], "followed", followed)
            found[name] = Engagement(by=by, outcome=outcome, at=at, followed=text, recorded=json.loads(recorded))
    return found


def _parts(names: list[str]) -> list[list[str]]:
    return [names[start : start + _AT_ONCE] for start in range(0, len(names), _AT_ONCE)]


def _text(key: DataKey | None, field: str, sealed: bytes | None) -> str:
    return "" if key is None or sealed is None else key.open(field, sealed).decode()
