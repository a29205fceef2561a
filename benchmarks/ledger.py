"""What the control room's ledger costs: storing, listing, judging, erasing, proving, reporting.

    python -m benchmarks.ledger [--alerts 5000] [--json]

Alerts with a probe of 12 kB go straight into a ledger on this machine's disk with synchronous=FULL; half of them are
then erased at once, while the other half's keys are wrapped anew. Beside each commit stands that of a bare SQLite row
of the same size in the same folder, measured in turn with it.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from securesystemslib.signer import CryptoSigner

from appliance.formats.order import Assessments, Order, Place, UnitList
from appliance.identifiers import uuid7
from appliance.records import Alert, Header, Models
from appliance.trust.audit import Audit
from control.ledger import retention, retention_proof
from control.ledger.ledger import Ledger
from control.receive.inbox import Opened
from control.records import Member
from control.report import make as report

_UNIT, _DEPLOYMENT, _ZEROS = "van-1", "bench", "0" * 64
_PROBE = 12_000  # bytes
_SECONDS = 1.0  # between two alerts of the ledger's clock


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ledger", description=__doc__)
    parser.add_argument("--alerts", type=int, default=5000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bluelamp-bench-") as folder:
        result = _measure(Path(folder), options.alerts)
    print(
        json.dumps(result) if options.json else "\n".join(f"{name:42} {value:10.3f}" for name, value in result.items())
    )
    return 0


def _measure(folder: Path, count: int) -> dict[str, float]:
    now = [time.time()]
    signer = CryptoSigner.generate_ed25519()
    log = Audit(folder / "store" / "audit.log", signer, by="room")
    ledger = Ledger(folder / "store", clock=lambda: now[0])
    ledger.add_deployment(_order(now[0]), hashlib.sha256(b"bench").hexdigest())
    bare = _bare(folder / "bare.sqlite")
    stored, plain = [], []
    for number in range(1, count + 1):
        now[0] += _SECONDS
        opened, alert = _alert(number, now[0])
        stored.append(_timed(lambda o=opened, a=alert: ledger.store(o, a)))  # type: ignore[misc]
        plain.append(_timed(bare))
    listed = _timed(lambda: ledger.cases(limit=200))
    member = Member(name="ann", role="adjudicator")
    answered = [_timed(lambda n=c.alert_id: _judge(ledger, n, member)) for c in ledger.cases(limit=200)]  # type: ignore[misc]
    now[0] += 86400 - count * _SECONDS / 2
    erased = _timed(lambda: retention.purge(ledger, log, now[0]))
    proved = _timed(lambda: retention_proof.verify(folder / "store", [signer.public_key], now[0]))
    told = _timed(lambda: report.write(folder / "store", _DEPLOYMENT, folder / "report", now[0]))
    gone = sum(case.erased is not None for case in ledger.cases(limit=count))
    ledger.close()
    tenth = max(1, count // 10)
    return {
        "alerts": count, "store, median ms": 1e3 * statistics.median(stored),
        "bare SQLite commit, median ms": 1e3 * statistics.median(plain),
        "store, first tenth, median ms": 1e3 * statistics.median(stored[:tenth]),
        "store, last tenth, median ms": 1e3 * statistics.median(stored[-tenth:]),
        "list 200 cases, ms": 1e3 * listed, "first look and answer, median ms": 1e3 * statistics.median(answered),
        "erased at once": gone, "keys wrapped anew": count - gone, "erase, s": erased, "prove, s": proved,
        "report, s": told,
    }  # fmt: skip


def _judge(ledger: Ledger, alert_id: str, member: Member) -> None:
    ledger.first_seen(alert_id, member)
    ledger.judge(alert_id, member, "not-same")


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _bare(path: Path) -> Callable[[], object]:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, value BLOB)")
    return lambda: db.execute("INSERT INTO rows (value) VALUES (?)", (os.urandom(_PROBE),))


def _alert(number: int, now: float) -> tuple[Opened, Alert]:
    alert = Alert(
        alert_id=uuid7(now), unit=_UNIT, deployment=_DEPLOYMENT, camera="front", captured=now, observed=now, frame=1,
        decided=now, reference_identifier=f"REFERENCE-{number}", category="test", score=0.7, threshold=0.5, quality=0.8,
        interocular=40, frames=9, track_seconds=1, models=Models(detector=_ZEROS, embedder=_ZEROS), watchlist=_ZEROS,
        chain="bench", sequence=number, previous=_ZEROS, chip=base64.b64encode(os.urandom(_PROBE)).decode(),
    )  # fmt: skip
    header = Header(kind="alert", id=alert.alert_id, unit=_UNIT, deployment=_DEPLOYMENT, created=now, expires=now + 60,
                    sender="bench", recipient="bench")  # fmt: skip
    digest = hashlib.sha256(alert.alert_id.encode()).hexdigest()
    return Opened(header, alert, b"", digest, None, (), now), alert


def _order(now: float) -> Order:
    listed = UnitList(unit=_UNIT, watchlist=_ZEROS, content=_ZEROS, version=1, entries=1)
    return Order(
        deployment=_DEPLOYMENT, purpose="to measure what a ledger costs", authorised_by="nobody",
        place=Place(name="a bench", polygon=((51.5, -0.1), (51.6, -0.1), (51.6, 0.0))), not_before=now,
        not_after=now + 8 * 3600, drafted=now, lists=(listed,), models=Models(detector=_ZEROS, embedder=_ZEROS),
        preflight=_ZEROS, performance=_ZEROS, threshold=0.5, greatest_fpir=0.001, projected_fpir=0.0001, footfall=1000,
        assessments=Assessments(impact_assessment="none", policy_document="none", equality_assessment="none"),
    )  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
