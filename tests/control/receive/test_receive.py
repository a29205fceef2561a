"""From the broker to the ledger: acknowledged once on disk, never twice, and believed only as far as it verifies."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.limits import LIMITS
from appliance.records import Alert, CourierState
from appliance.storage.files import write_public
from appliance.transport.mqtt import BrokerAddress, Received, topic
from appliance.trust import keys, seal
from control.broker.broker import Broker
from control.ledger.ledger import Ledger
from control.receive.fleet import Fleet
from control.receive.inbox import Reason
from control.receive.quarantine import Quarantine
from control.records import Event
from control.service.receiver import Books, Receiver
from tests.support.controlroom import order
from tests.support.couriers import publish
from tests.support.machines import CONTROL, DEPLOYMENT, UNIT, AlertMaker, Machines, eventually
from tests.support.receipts import receipt

ALERT, HEALTH, RECEIPT, STATE = (topic(UNIT, kind) for kind in ("alert", "health", "receipt", "state"))


@dataclass
class Office:
    """A control room without its console: ledger, fleet, receiver, and what was said."""

    machines: Machines
    store: Path
    broker: BrokerAddress = field(default_factory=lambda: BrokerAddress(host="127.0.0.1", port=1))
    said: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.open()

    def open(self) -> None:
        """Start, or start again after `close`."""
        self.ledger, self.fleet = Ledger(self.store), Fleet()
        self.ledger.listen(self.events.append)
        books = Books(self.ledger, self.fleet, Quarantine(self.store / "quarantine"), self.store / "receipts")
        self.receiver = Receiver(self.machines.keys(CONTROL), self.broker, books, say=self.said.append)

    def restart(self) -> None:
        """As after a power cut: nothing is left but the store."""
        self.ledger.close()
        self.open()

    def take(self, payload: bytes, where: str = ALERT) -> None:
        """A message as the broker hands it over."""
        self.receiver.handle(Received(topic=where, payload=payload, qos=1, mid=1, retain=False))

    @contextmanager
    def running(self) -> Iterator[Receiver]:
        """Connected to the broker."""
        thread = threading.Thread(target=self.receiver.run)
        thread.start()
        eventually(lambda: self.fleet.broker().connected)
        try:
            yield self.receiver
        finally:
            self.receiver.stop()
            thread.join(10)

    def sequences(self) -> int:
        """How many alerts are in the ledger."""
        return len(self.ledger.cases(limit=10_000))


@pytest.fixture
def office(machines: Machines, tmp_path: Path) -> Iterator[Office]:
    made = Office(machines, tmp_path / "store")
    yield made
    made.ledger.close()


@contextmanager
def newer_roster(machines: Machines, *units: str) -> Iterator[None]:
    """A roster that names more units lies in the control room's folder for a while."""
    folder = machines.folders[CONTROL]
    before = (folder / "roster.json").read_bytes()
    roster = machines.keys(CONTROL).roster
    named = (*roster.units, *(machines.keys(unit).identity for unit in units))
    newer = roster.model_copy(update={"version": roster.version + 1, "units": named})
    write_public(folder / "roster.json", keys.sign_roster(newer, machines.keys("base").signer))
    try:
        yield
    finally:
        write_public(folder / "roster.json", before)


def test_an_alert_becomes_a_case_and_a_health_report_a_unit(office: Office, maker: AlertMaker) -> None:
    office.take(maker.alert(size=1000))
    office.take(maker.health(tracks=7), HEALTH)
    state = CourierState(unit=UNIT, state="online", time=1.0, software="1", queued=3)
    office.take(state.model_dump_json().encode(), STATE)
    (case,) = office.ledger.cases()
    assert (case.unit, case.deployment, case.reference_identifier) == (UNIT, DEPLOYMENT, "R-1")
    (view,) = office.fleet.units()
    assert view.health is not None
    assert view.courier is not None
    assert (view.unit, view.health.tracks, view.courier.queued, view.missing) == (UNIT, 7, 3, 0)
    assert [(e.kind, e.subject, e.detail) for e in office.events if e.kind == "unit"] == [
        ("unit", UNIT, "armed"),
        ("unit", UNIT, "online"),
    ]
    assert office.receiver.stored() == {UNIT: 1}


def test_a_replay_is_refused_after_a_restart_too_and_the_chain_goes_on(office: Office, maker: AlertMaker) -> None:
    """What the broker sends again, and what a thief recorded, adds nothing; the next alert shows no gap."""
    first, second = maker.alert(), maker.alert()
    office.take(first)
    office.take(first)
    office.restart()
    office.take(first)
    office.take(second)
    assert office.sequences() == 2
    assert office.receiver.refused() == {Reason.DUPLICATE: 1}
    assert all(case.notes[1:] == () for case in office.ledger.cases())
    forked = AlertMaker(office.machines)
    forked.chain, forked.sequence, forked.previous = maker.chain, 1, hashlib.sha256(first).hexdigest()
    office.take(forked.alert(reference_identifier="R-9"))
    assert office.receiver.refused() == {Reason.DUPLICATE: 1}
    assert office.sequences() == 3
    assert any("used before" in note for case in office.ledger.cases() for note in case.notes)


def test_a_gap_is_shown_and_closed_when_the_late_alert_comes(office: Office, maker: AlertMaker) -> None:
    one, two, three = (maker.alert() for _ in range(3))
    office.take(one)
    office.take(three)
    assert [u.missing for u in office.fleet.units()] == [1]
    assert office.events[-1].detail == "1 alert(s) missing"
    assert any("have not arrived" in note for note in office.ledger.cases()[0].notes)
    office.take(two)
    assert [u.missing for u in office.fleet.units()] == [0]


def test_what_does_not_verify_is_counted_and_said_once(office: Office, maker: AlertMaker, machines: Machines) -> None:
    """Forged, truncated, oversized, of an unknown version, another unit's: none becomes a case, none floods staff."""
    good = maker.alert()
    forged = AlertMaker(machines)
    forged.folder = machines.keys("van-2")
    wrong = {
        Reason.STRUCTURE: [good[:-5], good[: len(good) // 2], os.urandom(LIMITS.envelope_bytes + 1), b"",
                           good[:8] + b"\x09" + good[9:]],
        Reason.SIGNATURE: [forged.alert(), bytes(good[:200]) + b"\0" + bytes(good[201:])],
    }  # fmt: skip
    for payloads in wrong.values():
        for payload in payloads:
            for _ in range(3):
                office.take(payload)
    office.take(good, topic("van-2", "alert"))
    office.take(good, "bluelamp/v1/<script>/alert")
    office.take(b"{}", STATE)
    refused = office.receiver.refused()
    assert office.sequences() == 0
    assert refused[Reason.STRUCTURE] >= 15
    assert refused[Reason.SIGNATURE] >= 3
    told = [(e.subject, e.detail) for e in office.events if e.kind == "refused"]
    assert len(told) == len(set(told))
    assert {subject for subject, _ in told} <= {UNIT, "van-2", "unknown"}
    assert not any("<" in e.subject for e in office.events)


def rewritten(maker: AlertMaker, changes: dict[str, object]) -> bytes:
    """An alert as a unit that was taken over could seal it: well signed, its content what the thief likes."""
    sealed = seal.take_apart(maker.alert(), LIMITS.envelope_bytes)
    said = json.loads(seal.open_sealed(sealed, keys.load(maker.folder.folder.parent / CONTROL).sealing))
    text = json.dumps({**said, **changes}).encode()
    return seal.seal(sealed.header, text, maker.recipient.public(), [maker.folder.signer])


@pytest.mark.parametrize(
    "changes",
    [{"score": float("nan")}, {"observed": float("inf")}, {"captured": 1e308}, {"frames": 10**30}, {"chip": "!!!"},
     {"chip": "\x80"},
     {"track_seconds": float("-inf")}, {"camera": "x\0y"}, {"category": "\ud800"}, {"sequence": 10**40}],
    ids=str,
)  # fmt: skip
def test_a_unit_that_was_taken_over_cannot_stop_the_alerts_behind_it(
    office: Office, maker: AlertMaker, changes: dict[str, object]
) -> None:
    """What no ledger or page could hold is refused; what can be held is held; the next alert comes in any case."""
    office.take(rewritten(maker, changes))
    maker.chain, maker.sequence, maker.previous = "c-2", 0, "0" * 64
    office.take(maker.alert())
    cases = office.ledger.cases()
    assert cases[0].reference_identifier == "R-1"
    for case in cases:
        json.dumps(case.model_dump(), allow_nan=False)
        datetime.fromtimestamp(case.observed, timezone.utc)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    field=st.sampled_from(sorted(Alert.model_fields)),
    value=st.one_of(st.floats(), st.integers(), st.text(max_size=80), st.none(), st.booleans(), st.binary().map(str)),
)
def test_whatever_a_field_of_a_signed_alert_holds_the_receiver_goes_on(
    office: Office, machines: Machines, field: str, value: object
) -> None:
    office.take(rewritten(AlertMaker(machines), {field: value}))
    for case in office.ledger.cases(limit=1):
        json.dumps(case.model_dump(), allow_nan=False)


def test_an_unknown_unit_waits_in_quarantine_over_restarts_until_a_roster_names_it(
    office: Office, machines: Machines
) -> None:
    stranger = AlertMaker(machines, "van-x")
    where = topic("van-x", "alert")
    office.take(stranger.alert(), where)
    office.take(stranger.alert(), where)
    assert [(u.unit, u.quarantined) for u in office.fleet.units()] == [("van-x", 2)]
    office.restart()
    assert [(u.unit, u.quarantined) for u in office.fleet.units()] == [("van-x", 2)]
    assert office.sequences() == 0
    with newer_roster(machines, "van-x"):
        office.receiver.look_for_roster()
    assert [case.unit for case in office.ledger.cases()] == ["van-x", "van-x"]
    assert [(u.unit, u.quarantined) for u in office.fleet.units()] == [("van-x", 0)]
    assert not list((office.store / "quarantine").iterdir())


def test_quarantine_is_bounded_and_the_oldest_go_first(
    office: Office, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = AlertMaker(machines, "van-x")
    blobs = [stranger.alert() for _ in range(13)]
    room = sum(len(blob) for blob in blobs[3:])
    monkeypatch.setattr("control.receive.inbox.LIMITS", replace(LIMITS, quarantine_bytes=room))
    for blob in blobs:
        office.take(blob, topic("van-x", "alert"))
    kept = {path.name for path in (office.store / "quarantine").iterdir()}
    assert kept == {hashlib.sha256(blob).hexdigest() for blob in blobs[3:]}


def test_a_roster_that_does_not_verify_is_said_and_changes_nothing(
    office: Office, machines: Machines, maker: AlertMaker
) -> None:
    folder = machines.folders[CONTROL]
    before = (folder / "roster.json").read_bytes()
    try:
        write_public(folder / "roster.json", before.replace(b"payload", b"payl0ad", 1))
        office.take(maker.alert())
    finally:
        write_public(folder / "roster.json", before)
    assert office.sequences() == 1
    assert any("stays in use" in line for line in office.said)


def test_a_deletion_receipt_is_kept_with_its_deployment(office: Office, machines: Machines, maker: AlertMaker) -> None:
    known = order(time.time())
    office.ledger.add_deployment(known, "0" * 64)
    for wrong in (b"erased", receipt(machines, "van-2"), receipt(machines, deployment="d-9")):
        office.take(maker.seal("receipt", "r", wrong, time.time(), 60), RECEIPT)
    assert office.ledger.deployments()[0].receipt is None
    assert office.receiver.refused() == {Reason.MALFORMED: 3}
    signed = receipt(machines)
    office.take(maker.seal("receipt", "r", signed, time.time(), 60), RECEIPT)
    assert office.ledger.deployments()[0].receipt == hashlib.sha256(signed).hexdigest()
    assert (office.store / "receipts" / f"{DEPLOYMENT}.{UNIT}.json").read_bytes() == signed  # as the base takes it in
    assert any("erased deployment d-1 (window-ended)" in line for line in office.said)


def test_several_units_come_through_one_broker(
    machines: Machines, broker: Broker, tmp_path: Path, maker: AlertMaker
) -> None:
    office = Office(machines, tmp_path / "store", broker.address)
    other = AlertMaker(machines, "van-2")
    with office.running():
        for _ in range(3):
            publish(machines, broker, UNIT, maker.alert())
            publish(machines, broker, "van-2", other.alert())
        eventually(lambda: office.sequences() == 6)
    assert sorted(case.unit for case in office.ledger.cases()) == [UNIT] * 3 + ["van-2"] * 3
    office.ledger.close()


def test_alerts_that_came_while_the_room_or_the_broker_was_away_arrive_once(
    machines: Machines, broker: Broker, tmp_path: Path, maker: AlertMaker
) -> None:
    office = Office(machines, tmp_path / "store", broker.address)
    with office.running():
        publish(machines, broker, UNIT, maker.alert())
        eventually(lambda: office.sequences() == 1)
    publish(machines, broker, UNIT, maker.alert())
    office.restart()
    with office.running():
        eventually(lambda: office.sequences() == 2)
        broker.stop()
        eventually(lambda: not office.fleet.broker().connected)
        assert "connection lost" in office.fleet.broker().words
        broker.start()
        eventually(lambda: office.fleet.broker().connected, 30)
        publish(machines, broker, UNIT, maker.alert())
        eventually(lambda: office.sequences() == 3)
    told = [e.detail for e in office.events if e.subject == "broker"]
    assert told == ["connected", "connected", "away", "connected"]
    assert [u.missing for u in office.fleet.units()] == [0]
    office.ledger.close()


def test_a_full_disk_acknowledges_nothing_and_loses_nothing(
    machines: Machines, broker: Broker, small_disk: Path, maker: AlertMaker
) -> None:
    """The broker keeps what could not be stored, and sends it again when there is room."""
    office = Office(machines, small_disk / "store", broker.address)
    with office.running():
        publish(machines, broker, UNIT, maker.alert())
        eventually(lambda: office.sequences() == 1)
        filler = small_disk / "filler"
        with pytest.raises(OSError, match="No space"), filler.open("wb", buffering=0) as file:
            while file.write(b"x" * 4096):
                pass
        for _ in range(3):
            publish(machines, broker, UNIT, maker.alert(size=8000))
        eventually(lambda: any("disk is full" in line for line in office.said))
        assert office.sequences() <= 2
        filler.unlink()
        eventually(lambda: office.sequences() == 4, 30)
    assert [u.missing for u in office.fleet.units()] == [0]
    office.ledger.close()
