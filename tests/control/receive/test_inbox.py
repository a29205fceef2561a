"""The inbox believes nothing that is not signed, sealed to it, fresh, new, and in its place in the chain."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from appliance.limits import LIMITS
from appliance.records import CourierState, Header
from appliance.transport.mqtt import topic
from appliance.trust import seal
from control.receive.chain import Fit
from control.receive.inbox import Inbox, Opened, Reason, RefusedError
from tests.support.machines import DEPLOYMENT, UNIT, AlertMaker, Machines

ALERT, HEALTH = topic(UNIT, "alert"), topic(UNIT, "health")


@pytest.fixture
def inbox(machines: Machines) -> Inbox:
    return Inbox(machines.keys("control-1"))


def take(inbox: Inbox, container: bytes, where: str = ALERT, now: float | None = None) -> Opened:
    opened = inbox.receive(where, container, time.time() if now is None else now)
    inbox.accept(opened)
    return opened


def refused(inbox: Inbox, container: bytes, where: str = ALERT, now: float | None = None) -> Reason:
    before = sum(inbox.refused.values())
    with pytest.raises(RefusedError) as caught:
        take(inbox, container, where, now)
    assert inbox.refused[caught.value.reason] >= 1
    assert sum(inbox.refused.values()) == before + 1
    return caught.value.reason


def test_an_alert_and_a_health_report_are_opened(inbox: Inbox, maker: AlertMaker) -> None:
    opened = take(inbox, maker.alert(size=1000))
    assert opened.alert is not None
    assert opened.alert.reference_identifier == "R-1"
    assert opened.placement is not None
    assert opened.placement.fit is Fit.FIRST
    assert opened.notes == ()
    health = take(inbox, maker.health(tracks=7), HEALTH)
    assert health.alert is None
    assert not inbox.refused


@pytest.mark.parametrize(
    "where",
    ["", "bluelamp/v1/van-1", "bluelamp/v1/van-1/alert/x", "other/bluelamp/v1/van-1/alert", "bluelamp/v1/van-1/odd",
     "bluelamp/v1//alert", "bluelamp/v1/van-1/state"],
)  # fmt: skip
def test_other_topics_are_refused(inbox: Inbox, maker: AlertMaker, where: str) -> None:
    assert refused(inbox, maker.alert(), where) is Reason.TOPIC


def test_a_unit_cannot_speak_on_anothers_topic_nor_as_another_kind(inbox: Inbox, maker: AlertMaker) -> None:
    assert refused(inbox, maker.alert(), topic("van-2", "alert")) is Reason.DISAGREES
    assert refused(inbox, maker.alert(), HEALTH) is Reason.DISAGREES
    assert refused(inbox, maker.health(), ALERT) is Reason.DISAGREES


def test_an_unknown_unit_is_quarantined_until_the_roster_names_it(inbox: Inbox, machines: Machines) -> None:
    stranger = AlertMaker(machines, "van-x")
    where = topic("van-x", "alert")
    assert refused(inbox, stranger.alert(), where) is Reason.UNKNOWN_UNIT
    roster = machines.keys("control-1").roster
    admitted = roster.model_copy(update={"units": (*roster.units, machines.keys("van-x").identity)})
    ((again, payload),) = inbox.use_roster(admitted)
    assert take(inbox, payload, again).alert is not None
    assert not inbox.quarantine


def test_three_hundred_alerts_of_an_unknown_unit_all_wait_for_their_roster(inbox: Inbox, machines: Machines) -> None:
    stranger = AlertMaker(machines, "van-x")
    where = topic("van-x", "alert")
    blobs = [stranger.alert(size=16_000) for _ in range(300)]
    for blob in blobs:
        assert refused(inbox, blob, where) is Reason.UNKNOWN_UNIT
    assert [payload for _, payload in inbox.quarantine] == blobs


def test_the_quarantine_is_bounded_in_bytes(inbox: Inbox, machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = AlertMaker(machines, "van-x")
    blobs = [stranger.alert() for _ in range(5)]
    room = sum(len(blob) for blob in blobs[2:])
    monkeypatch.setattr("control.receive.inbox.LIMITS", replace(LIMITS, quarantine_bytes=room))
    for blob in blobs:
        refused(inbox, blob, topic("van-x", "alert"))
    assert [payload for _, payload in inbox.quarantine] == blobs[2:]


def test_a_revoked_unit_is_refused(machines: Machines, maker: AlertMaker) -> None:
    folder = machines.keys("control-1")
    revoked = folder.roster.model_copy(update={"revoked": (maker.folder.signer.public_key.keyid,)})
    assert refused(Inbox(replace(folder, roster=revoked)), maker.alert()) is Reason.UNKNOWN_UNIT


def test_another_units_signature_is_refused(inbox: Inbox, machines: Machines, maker: AlertMaker) -> None:
    maker.folder = machines.keys("van-2")
    assert refused(inbox, maker.alert()) is Reason.SIGNATURE


def test_somebody_elses_ciphertext_signed_again_is_refused(inbox: Inbox, machines: Machines, maker: AlertMaker) -> None:
    """A thief on the roster puts its own signature and name on an alert it cannot read."""
    stolen = seal.take_apart(maker.alert(), LIMITS.envelope_bytes)
    thief = AlertMaker(machines, "van-2")
    fields = {**json.loads(stolen.header_bytes), "unit": "van-2", "sender": thief.folder.signer.public_key.keyid}
    header = Header.model_validate(fields)
    forged = seal.seal(header, b"", thief.recipient.public(), [thief.folder.signer])
    parts = seal.take_apart(forged, LIMITS.envelope_bytes)
    swapped = forged.replace(parts.body, stolen.body[: len(parts.body)])
    assert refused(inbox, swapped, topic("van-2", "alert")) is Reason.SIGNATURE


def test_an_alert_for_another_control_room_is_refused(inbox: Inbox, machines: Machines, maker: AlertMaker) -> None:
    maker.recipient = machines.keys("van-2").identity.sealing[0]
    assert refused(inbox, maker.alert()) is Reason.NOT_OURS


@given(position=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
@hypothesis_settings(max_examples=150, deadline=None)
def test_any_changed_byte_is_refused(machines: Machines, position: float, flip: int) -> None:
    inbox, maker = Inbox(machines.keys("control-1")), AlertMaker(machines)
    blob = bytearray(maker.alert())
    blob[int(position * len(blob))] ^= flip
    with pytest.raises(RefusedError):
        take(inbox, bytes(blob))


@pytest.mark.parametrize("change", [str.upper, lambda text: text.replace(": ", ":"), lambda text: text + " "])
def test_a_signature_written_in_another_way_is_refused(
    inbox: Inbox, maker: AlertMaker, change: Callable[[str], str]
) -> None:
    """It would verify, but the container's digest is a link of the chain."""
    blob = maker.alert()
    start = blob.rindex(b'"sig": "')
    rewritten = blob[:start] + change(blob[start:].decode()).encode()
    assert refused(inbox, rewritten) is Reason.STRUCTURE


@given(blob=st.binary(max_size=300))
@hypothesis_settings(max_examples=100, deadline=None)
def test_rubbish_is_refused(machines: Machines, blob: bytes) -> None:
    inbox = Inbox(machines.keys("control-1"))
    assert refused(inbox, blob) is Reason.STRUCTURE
    assert refused(inbox, b"BLUELAMP" + blob) is Reason.STRUCTURE


def test_a_container_that_is_too_large_is_refused(inbox: Inbox) -> None:
    assert refused(inbox, os.urandom(LIMITS.envelope_bytes + 1)) is Reason.STRUCTURE


def test_a_well_sealed_but_malformed_or_contradictory_alert_is_refused(inbox: Inbox, maker: AlertMaker) -> None:
    now = time.time()
    assert refused(inbox, maker.seal("alert", "a", b'{"alert_id": 1}', now, 60)) is Reason.MALFORMED
    assert refused(inbox, maker.alert(deployment="d-2")) is Reason.DISAGREES
    assert refused(inbox, maker.alert(unit="van-2")) is Reason.DISAGREES


def test_an_expired_alert_is_refused_and_a_clock_ahead_is_remarked(inbox: Inbox, maker: AlertMaker) -> None:
    late, early = maker.alert(lifetime=60), maker.alert(lifetime=60)
    assert refused(inbox, late, now=time.time() + 3600) is Reason.EXPIRED
    assert "ahead" in take(inbox, early, now=time.time() - 3600).notes[0]


def test_a_duplicate_is_dropped_and_only_after_it_was_accepted(inbox: Inbox, maker: AlertMaker) -> None:
    """What a handler failed to store is delivered again and must not count as a duplicate."""
    blob = maker.alert()
    inbox.receive(ALERT, blob, time.time())
    take(inbox, blob)
    assert refused(inbox, blob) is Reason.DUPLICATE


def test_gaps_late_arrivals_and_new_chains_are_remarked(inbox: Inbox, machines: Machines, maker: AlertMaker) -> None:
    one, two, three, four = (maker.alert() for _ in range(4))
    take(inbox, one)
    gap = take(inbox, four)
    assert gap.notes == ("2 alert(s) before this one have not arrived",)
    assert inbox.missing() == 2
    assert take(inbox, three).notes == ("arrived late: fills a gap",)
    assert take(inbox, two).placement.fit is Fit.LATE  # type: ignore[union-attr]
    assert inbox.missing() == 0
    assert "new chain" in take(inbox, AlertMaker(machines).alert()).notes[0]


def test_a_control_room_that_comes_late_is_told_what_it_did_not_see(inbox: Inbox, maker: AlertMaker) -> None:
    for _ in range(3):
        maker.alert()
    opened = take(inbox, maker.alert())
    assert opened.notes == ("3 earlier alert(s) of this chain were not seen here",)
    assert inbox.missing() == 0
    maker.alert()
    take(inbox, maker.alert())
    assert inbox.missing() == 1


def test_a_fork_and_a_broken_chain_are_remarked_and_only_a_repeat_is_refused(inbox: Inbox, maker: AlertMaker) -> None:
    first = maker.alert()
    take(inbox, first)
    state = maker.sequence, maker.previous
    take(inbox, maker.alert())
    maker.sequence, maker.previous = state
    fork = maker.alert(reference_identifier="R-2")
    assert "used before" in take(inbox, fork).notes[0]
    assert refused(inbox, fork) is Reason.DUPLICATE
    assert refused(inbox, first) is Reason.DUPLICATE
    assert "does not follow" in take(inbox, maker.alert(sequence=3, previous="f" * 64)).notes[0]
    assert "does not follow" in take(inbox, maker.alert(chain="c-2", sequence=1, previous="f" * 64)).notes[0]


def test_an_outbox_that_is_sixty_alerts_older_loses_no_alert(inbox: Inbox, maker: AlertMaker) -> None:
    for _ in range(40):
        take(inbox, maker.alert())
    state = maker.sequence, maker.previous
    for _ in range(60):
        take(inbox, maker.alert())
    maker.sequence, maker.previous = state
    remarked = [bool(take(inbox, maker.alert()).notes) for _ in range(100)]
    assert remarked == [True] * 61 + [False] * 39


@given(order=st.permutations(range(8)), repeats=st.lists(st.integers(0, 7), max_size=6))
@hypothesis_settings(max_examples=40, deadline=None)
def test_any_order_and_repetition_shows_each_alert_once(
    machines: Machines, order: list[int], repeats: list[int]
) -> None:
    inbox, maker = Inbox(machines.keys("control-1")), AlertMaker(machines)
    blobs = [maker.alert() for _ in range(8)]
    shown: list[int] = []
    for index in [*order, *repeats]:
        try:
            opened = take(inbox, blobs[index])
        except RefusedError as error:
            assert error.reason is Reason.DUPLICATE
            continue
        assert opened.alert is not None
        shown.append(opened.alert.sequence)
    assert sorted(shown) == list(range(1, 9))
    assert inbox.missing() == 0


def test_an_older_health_report_is_refused(inbox: Inbox, maker: AlertMaker) -> None:
    old, new = maker.health(), maker.health()
    take(inbox, new, HEALTH)
    assert refused(inbox, old, HEALTH) is Reason.REPLAYED


def test_a_state_is_only_believed_on_its_units_own_topic(inbox: Inbox) -> None:
    state = CourierState(unit=UNIT, state="online", time=1.0, software="1").model_dump_json().encode()
    assert inbox.state(topic(UNIT, "state"), state).state == "online"
    for where, body in ((topic("van-2", "state"), state), (topic(UNIT, "state"), b"{}"), (ALERT, state)):
        with pytest.raises(RefusedError):
            inbox.state(where, body)


def test_a_receipt_is_handed_on_opened(inbox: Inbox, maker: AlertMaker) -> None:
    opened = take(inbox, maker.seal("receipt", "r-1", b"erased", time.time(), 60), topic(UNIT, "receipt"))
    assert (opened.record, opened.content, opened.header.deployment) == (None, b"erased", DEPLOYMENT)
