"""Whether a store keeps what it promises, found out from its files alone, also beside a running service.

1 every case whose time is over is erased, and none is kept longer than its order allows
2 an erased case has no key, no picture, no identifier and no note; the references of a deployment that is over, too
3 the vault holds the key of this epoch and no other
4 every wrapped key opens with it and belongs to a record that is still to be kept
5 the room's log verifies, and tells of every erasure
6 no file of the store holds a picture in the clear; the ledger's hold no identifier of a living case
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from securesystemslib.signer import Key

from appliance.errors import KeyFileError, SealError
from appliance.trust import audit
from control.ledger import case_rows, deployment_rows, erasures
from control.ledger.erasures import Erasure
from control.ledger.keyed_file import epoch_number
from control.ledger.ledger_file import NAME, reading
from control.ledger.vault import Epoch, Vault
from control.ledger.word_search import LEAST, Telltales

_GRACE = 60.0  # seconds between the end of a record's time and the service's next look
_ATTEMPTS = 5
_PAUSE = 0.1  # seconds
_PICTURES = (
    b"\xff\xd8\xff\xe0\x00\x10JFIF", b"Exif\0\0II", b"Exif\0\0MM", b"\xff\xd8\xff\xdb\x00\x43\x00\x08",
    b"\xff\xd8\xff\xdb\x00\x84\x00\x08", b"/9j/4AAQ", b"\x89PNG\r\n\x1a\n", b"iVBORw0KGgo",
    b"WEBPVP8 ",
)  # fmt: skip
_DAY = 86400.0


@dataclass(frozen=True)
class Proof:
    """What was looked at, and what is wrong: nothing, where `findings` is empty."""

    findings: tuple[str, ...]
    living: int
    erased: int
    erasures: int
    keys: int


def verify(store: Path, signers: Sequence[Key], now: float) -> Proof:
    """Steps 1 to 6. `signers` are the control room's keys. Raises LedgerError where there is no ledger."""
    for attempt in range(_ATTEMPTS):
        proof = _verified(store, signers, now)
        if not proof.findings or attempt == _ATTEMPTS - 1:
            break
        time.sleep(_PAUSE)  # the service may just have been between two steps of an erasure
    return proof


def _verified(store: Path, signers: Sequence[Key], now: float) -> Proof:
    with closing(reading(store)) as db:
        epoch, findings = _epoch(db, store)
        findings += [*_times(db, now), *_remains(db, now), *_keys(db, epoch), *_log(db, store, signers)]
        findings += _bytes(db, store, epoch)
        living, erased, together, keys = (_count(db, query) for query in (
            "cases WHERE erased IS NULL", "cases WHERE erased IS NOT NULL", "erasures", "keys"))  # fmt: skip
    return Proof(tuple(findings), living, erased, together, keys)


def _times(db: sqlite3.Connection, now: float) -> Iterator[str]:
    """Step 1."""
    for case in case_rows.find(db, case_rows.nobody, "WHERE erased IS NULL"):
        if case.keep_until + _GRACE < now:
            yield f"alert {case.alert_id}: its time was over {now - case.keep_until:.0f} s ago and it is still here"
        order = deployment_rows.order(db, case.deployment)
        hours = order.retention.alert_hours if order else 24.0
        days = order.retention.confirmed_days if order else 30.0
        until = case.received + min(hours, 24.0) * 3600.0
        if case.engagement is not None and case.engagement.outcome == "confirmed" and case.decided is not None:
            until = case.decided + min(days, 30.0) * _DAY
        if case.keep_until > until + 1.0:
            yield f"alert {case.alert_id}: kept {case.keep_until - until:.0f} s longer than its order allows"


def _remains(db: sqlite3.Connection, now: float) -> Iterator[str]:
    """Step 2."""
    query = (
        "SELECT c.alert_id FROM cases c WHERE c.erased > 0 AND (c.identifier IS NOT NULL OR c.probe IS NOT NULL "
        "OR c.reference IS NOT NULL OR EXISTS (SELECT 1 FROM judgements j WHERE j.alert_id = c.alert_id AND "
        "j.note IS NOT NULL) OR EXISTS (SELECT 1 FROM engagements e WHERE e.alert_id = c.alert_id AND "
        "e.followed IS NOT NULL))"
    )
    yield from (f"alert {name}: erased, and something of it is still in its row" for (name,) in db.execute(query))
    over = set(erasures.due_deployments(db, now - _GRACE))
    yield from (f"references of {name}: their time is over and they are still here" for name in sorted(over))
    query = (
        "SELECT DISTINCT p.deployment FROM pictures p JOIN deployments d ON d.name = p.deployment WHERE d.erased > 0"
    )
    yield from (f"references of {name}: erased, and some are still here" for (name,) in db.execute(query))


def _epoch(db: sqlite3.Connection, store: Path) -> tuple[Epoch | None, list[str]]:
    """Step 3."""
    vault, number, findings = Vault(store / "vault"), epoch_number(db), []
    try:
        epoch = vault.load(number or 0)
    except KeyFileError as error:
        return None, [str(error)]
    for path in vault.files():
        if path != vault.path(epoch.number):
            findings.append(f"{path}: the key of another epoch is here; start the service once, it destroys it")
    return epoch, findings


def _keys(db: sqlite3.Connection, epoch: Epoch | None) -> Iterator[str]:
    """Step 4."""
    wanted = {case_rows.record_of(name) for (name,) in db.execute("SELECT alert_id FROM cases WHERE erased IS NULL")}
    names = [name for (name,) in db.execute("SELECT name FROM deployments WHERE erased IS NULL")]
    rows = db.execute("SELECT record, wrapped FROM keys").fetchall()
    for record, wrapped in rows:
        if record not in wanted and not any(deployment_rows.belongs(record, name) for name in names):
            yield f"key of {record}: it belongs to nothing that is kept"
        try:
            if epoch is not None:
                epoch.unwrap(record, wrapped)
        except KeyFileError as error:
            yield str(error)
    yield from (f"key of {record}: missing" for record in sorted(wanted - {record for record, _ in rows}))


def _log(db: sqlite3.Connection, store: Path, signers: Sequence[Key]) -> Iterator[str]:
    """Step 5."""
    try:
        told = {e.subject for e in audit.verify(store / "audit.log", signers) if e.act == "erasure"}
    except SealError as error:
        yield str(error)
        return
    named = db.execute("SELECT digest FROM erasures UNION SELECT erasure FROM cases WHERE erased IS NOT NULL "
                       "UNION SELECT erasure FROM deployments WHERE erased IS NOT NULL").fetchall()  # fmt: skip
    for (digest,) in named:
        if digest is None or Erasure.of(*erasures.members_of(db, digest), 0.0).digest != digest:
            yield f"erasure {digest}: its records are not those that it names"
        elif digest not in told:
            yield f"erasure {digest}: the room's log does not tell of it"


def _bytes(db: sqlite3.Connection, store: Path, epoch: Epoch | None) -> Iterator[str]:
    """Step 6."""
    pictures = Telltales(_PICTURES)
    identifiers = Telltales(_identifiers(db, epoch) if epoch is not None else [])
    for path in sorted(p for p in store.rglob("*") if p.is_file()):
        if pictures.stand_in(path):
            yield f"{path}: holds a picture in the clear"
        if path.name.startswith(NAME) and identifiers.stand_in(path):
            yield f"{path}: holds a reference identifier in the clear"


def _identifiers(db: sqlite3.Connection, epoch: Epoch) -> list[bytes]:
    found = set()
    query = "SELECT c.alert_id, c.identifier, k.wrapped FROM cases c JOIN keys k ON k.record = 'case/' || c.alert_id"
    for name, sealed, wrapped in db.execute(query):
        with suppress(KeyFileError):  # step 4 tells of it
            found.add(epoch.unwrap(case_rows.record_of(name), wrapped).open("identifier", sealed))
    return sorted(name for name in found if len(name) >= LEAST)


def _count(db: sqlite3.Connection, what: str) -> int:
    return int(db.execute(f"SELECT count(*) FROM {what}").fetchone()[0])
