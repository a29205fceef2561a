"""The control room's ledger: every alert, what people answered, and what followed. Its rules are adjudication's.

Thread-safe. What a method wrote is on disk when it returns; whoever listens hears of it after that. Pictures,
identifiers and notes are sealed with a key for each case (vault.py) and erased by forgetting that key.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Mapping

from appliance.formats.order import Retention
from appliance.records import Alert
from control.cases import adjudication
from control.cases.adjudication import LedgerError, checked
from control.cases.case import case_of, decoded, decoy_of
from control.ledger import case_rows, deployment_rows, erasures
from control.ledger.erasures import Erasure
from control.ledger.ledger_base import LedgerBase
from control.ledger.vault import DataKey
from control.receive.chain import Link
from control.receive.inbox import Opened
from control.records import Case, Engagement, Member, Outcome, ReferencePicture, State, Verdict

__all__ = ["Ledger", "LedgerError"]
Rule = Callable[[Case, Member, Verdict, str, float, "float | None"], Case]


class Ledger(LedgerBase):
    """One store. `ttl`: seconds after which an undecided alert is withdrawn. `clock` reads UTC seconds."""

    def store(self, opened: Opened, alert: Alert) -> bool:
        """Store a verified alert; True once it is on disk, False where it was there before. Raises LedgerError."""

        def work(db: sqlite3.Connection) -> bool:
            if _known(db, opened.digest) or _has(db, alert.alert_id):
                return False
            values = (opened.digest, alert.unit, alert.deployment, alert.chain, alert.sequence, alert.previous,
                      opened.received)  # fmt: skip
            db.execute("INSERT INTO arrived (digest, unit, deployment, chain, sequence, previous, at) "
                       "VALUES (?, ?, ?, ?, ?, ?, ?)", values)  # fmt: skip
            order = deployment_rows.order(db, alert.deployment)
            case = case_of(alert, opened.received, opened.notes, order, self._ttl)
            self._insert(db, case, decoded(alert.chip))
            return True

        return self._write(work, needed=False)

    def store_decoy(self, case: Case, probe: bytes, reference: ReferencePicture) -> Case:
        """Store a pair that is known not to be of one human being, shaped like an alert. Raises LedgerError.

        How many must judge it, how long it may be judged and how long it is kept are set as for an alert.
        """

        def work(db: sqlite3.Connection) -> Case:
            if _has(db, case.alert_id):
                raise LedgerError(f"{case.alert_id} is here already")
            made = decoy_of(case, self._clock(), deployment_rows.order(db, case.deployment), self._ttl)
            key = self._insert(db, made, probe)
            case_rows.keep_reference(db, case.alert_id, reference, key)
            return self._case(db, case.alert_id)

        return self._write(work, needed=False)

    def known(self, digest: str) -> bool:
        """Whether a container of this SHA-256 was stored, also before a restart."""
        return self._file.read(lambda db: _known(db, digest))

    def chain(self) -> list[Link]:
        """What arrived, in the order in which it did, for Inbox.restore."""
        query = "SELECT unit, deployment, chain, sequence, previous, digest FROM arrived ORDER BY number"
        return [Link(*row) for row in self._file.read(lambda db: db.execute(query).fetchall())]

    def cases(
        self, *, states: Collection[State] | None = None, deployment: str | None = None, limit: int = 200
    ) -> list[Case]:
        """Cases, the newest first."""
        clauses, values = ["1"], list[object]()
        if states is not None:
            clauses.append(f"state IN ({', '.join('?' * len(states))})")
            values += states
        if deployment is not None:
            clauses.append("deployment = ?")
            values.append(deployment)
        where = f"WHERE {' AND '.join(clauses)} ORDER BY number DESC LIMIT ?"
        return self._file.read(lambda db: case_rows.find(db, self._key_of(db), where, (*values, limit)))

    def open_cases(self, state: State, member: Member, limit: int) -> tuple[list[Case], int]:
        """Undecided cases: those without this member's answer first, the soonest to end first; how many of those."""

        def work(db: sqlite3.Connection) -> tuple[list[Case], int]:
            return (
                case_rows.find(db, self._key_of(db), case_rows.OPEN_FIRST, (state, member.name, now, limit)),
                db.execute(case_rows.COUNT_UNANSWERED, (state, member.name, now)).fetchone()[0],
            )

        now = self._clock()
        return self._file.read(work)

    def counts(self) -> dict[State, int]:
        """How many cases there are of each state; states of none are left out."""
        return dict(
            self._file.read(lambda db: db.execute("SELECT state, count(*) FROM cases GROUP BY state").fetchall())
        )

    def case(self, alert_id: str) -> Case:
        """One case. Raises LedgerError where it is not here."""
        return self._file.read(lambda db: self._case(db, alert_id))

    def probe(self, alert_id: str) -> bytes | None:
        """The probe's JPEG; None where the alert had none, or was erased."""
        return self._file.read(lambda db: self._picture(db, alert_id, "probe"))

    def reference_of(self, alert_id: str) -> ReferencePicture | None:
        """The reference that the probe is compared with; None where it was deleted or never here."""

        def work(db: sqlite3.Connection) -> ReferencePicture | None:
            own = self._picture(db, alert_id, "reference")
            if own is not None:
                return ReferencePicture.model_validate_json(own)
            case = self._case(db, alert_id)
            return None if case.erased else self._reference(db, case.deployment, case.reference_identifier)

        return self._file.read(work)

    def first_seen(self, alert_id: str, member: Member) -> None:
        """The pair was shown to this member: the stopwatch starts, once."""
        if self._file.read(lambda db: _seen(db, alert_id, member)) is not None:
            return

        def work(db: sqlite3.Connection) -> None:
            self._case(db, alert_id)
            now = self._clock()
            db.execute("INSERT OR IGNORE INTO seen VALUES (?, ?, ?)", (alert_id, member.name, now))
            db.execute("UPDATE cases SET shown = ? WHERE alert_id = ? AND shown IS NULL AND state IN ('waiting', "
                       "'disputed')", (now, alert_id))  # fmt: skip

        self._write(work)

    def judge(self, alert_id: str, member: Member, verdict: Verdict, note: str = "") -> Case:
        """A member's answer. Raises LedgerError with words for the member."""
        return self._answer(adjudication.judged, alert_id, member, verdict, note)

    def rule(self, alert_id: str, member: Member, verdict: Verdict, note: str = "") -> Case:
        """A supervisor's word where answers differ. Raises LedgerError with words for the member."""
        return self._answer(adjudication.ruled, alert_id, member, verdict, note)

    def undo(self, alert_id: str, member: Member) -> Case:
        """Take back the member's own last answer; the ledger keeps that it was given. Raises LedgerError."""

        def work(db: sqlite3.Connection) -> Case:
            now = self._clock()
            after = adjudication.undone(self._case(db, alert_id), member, now)
            case_rows.undo_judgement(db, alert_id, member.name, now)
            return self._move(db, after, "taken back")

        return self._write(work)

    def engage(
        self, alert_id: str, member: Member, outcome: Outcome, followed: str = "",
        recorded: Mapping[str, str] | None = None,
    ) -> Case:  # fmt: skip
        """What followed after officers approached; ends the case. Raises LedgerError with words for the member."""
        told = checked(Engagement, by=member.name, outcome=outcome, at=self._clock(), followed=followed,
                       recorded=dict(recorded or {}))  # fmt: skip

        def work(db: sqlite3.Connection) -> Case:
            case = self._case(db, alert_id)
            order = deployment_rows.order(db, case.deployment)
            after = adjudication.engaged(case, member, told, order.retention if order else Retention())
            key = self._case_key(db, alert_id)
            case_rows.add_engagement(db, alert_id, told, key)
            if outcome == "confirmed":
                case_rows.keep_reference(
                    db, alert_id, self._reference(db, case.deployment, case.reference_identifier), key
                )
            return self._move(db, after)

        return self._write(work)

    def tick(self) -> None:
        """Withdraw what nobody decided in time."""
        now = self._clock()
        where = "WHERE state IN ('waiting', 'disputed') AND stale_after <= ? LIMIT 500"
        if self._file.read(lambda db: case_rows.find(db, case_rows.nobody, where, (now,))):
            self._write(lambda db: self._withdraw(db, where, now))

    def due(self, now: float) -> tuple[list[str], list[str]]:
        """Alerts and deployments whose time is over at `now`: their pictures are to be erased."""
        return self._file.read(lambda db: (erasures.due_alerts(db, now), erasures.due_deployments(db, now)))

    def erase_now(self, alerts: list[str], deployments: list[str]) -> Erasure:
        """Erase alerts, and references of deployments, by forgetting their keys. Raises LedgerError."""
        erasure = Erasure.of(alerts, deployments, self._clock())

        def forget(db: sqlite3.Connection) -> None:
            erasures.forget(db, erasure, alerts, deployments)
            for subject in alerts:
                self._bell.write(db, "erased", subject)
            for subject in deployments:
                self._bell.write(db, "erased", subject, "references")

        self._room.erase(forget)
        self._bell.ring()
        return erasure

    def unlogged(self) -> list[Erasure]:
        """Erasures that the room's log does not tell of yet."""
        return self._file.read(erasures.unlogged)

    def logged(self, erasure: Erasure) -> None:
        """The room's log tells of an erasure now."""
        self._write(lambda db: erasures.note_logged(db, erasure))

    def forget_old(self) -> None:
        """Forget events, and containers that nobody will send again."""
        now = self._clock()
        self._write(lambda db: erasures.forget_old(db, now))

    def _answer(self, rule: Rule, alert_id: str, member: Member, verdict: Verdict, note: str) -> Case:
        def work(db: sqlite3.Connection) -> Case:
            case = self._case(db, alert_id)
            after = rule(case, member, verdict, note, self._clock(), _seen(db, alert_id, member))
            case_rows.add_judgement(db, alert_id, after.judgements[-1], self._case_key(db, alert_id))
            return self._move(db, after)

        return self._write(work)

    def _move(self, db: sqlite3.Connection, after: Case, word: str = "") -> Case:
        case_rows.move(db, after)
        self._bell.write(db, "case", after.alert_id, word or after.state)
        return self._case(db, after.alert_id)

    def _insert(self, db: sqlite3.Connection, case: Case, probe: bytes | None) -> DataKey:
        key = self._room.new_key(db, case_rows.record_of(case.alert_id))
        case_rows.insert(db, case, key, probe)
        self._bell.write(db, "alert", case.alert_id, case.state)
        return key

    def _withdraw(self, db: sqlite3.Connection, where: str, now: float) -> None:
        for case in case_rows.find(db, case_rows.nobody, where, (now,)):
            after = adjudication.withdrawn(case, now)
            if after is not None:
                case_rows.move(db, after)
                self._bell.write(db, "case", after.alert_id, after.state)

    def _picture(self, db: sqlite3.Connection, alert_id: str, field: str) -> bytes | None:
        key = self._key_of(db)(alert_id)
        return None if key is None else case_rows.picture(db, alert_id, field, key)

    def _key_of(self, db: sqlite3.Connection) -> case_rows.KeyOf:
        return lambda alert_id: self._room.key(db, case_rows.record_of(alert_id))

    def _case_key(self, db: sqlite3.Connection, alert_id: str) -> DataKey:
        key = self._key_of(db)(alert_id)
        if key is None:
            raise LedgerError("this alert was erased")
        return key

    def _case(self, db: sqlite3.Connection, alert_id: str) -> Case:
        found = case_rows.find(db, self._key_of(db), "WHERE alert_id = ?", (alert_id,))
        if not found:
            raise LedgerError(f"there is no alert {alert_id[:64]} here", "unknown")
        return found[0]


def _known(db: sqlite3.Connection, digest: str) -> bool:
    return db.execute("SELECT 1 FROM arrived WHERE digest = ?", (digest,)).fetchone() is not None


def _has(db: sqlite3.Connection, alert_id: str) -> bool:
    return db.execute("SELECT 1 FROM cases WHERE alert_id = ?", (alert_id,)).fetchone() is not None


def _seen(db: sqlite3.Connection, alert_id: str, member: Member) -> float | None:
    found = db.execute("SELECT at FROM seen WHERE alert_id = ? AND by = ?", (alert_id, member.name)).fetchone()
    return None if found is None else float(found[0])
