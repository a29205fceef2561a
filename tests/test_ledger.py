"""The ledger: what was stored is there, what people said is written down, and what is erased cannot come back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import DEPLOYMENT, Machines
from controlroom import ANN, BOB, CY, EYE, JPEG, SUE, VIC, Desk, order, reference

from control.inbox import RefusedError
from control.ledger import Ledger, LedgerError
from control.records import Event


@pytest.fixture
def desk(machines: Machines, tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path / "store", machines)
    yield made
    made.ledger.close()


def test_an_alert_is_stored_once_with_its_pair(desk: Desk) -> None:
    desk.ordered()
    assert desk.ledger.put_references(DEPLOYMENT, [reference()]) == 1
    blob = desk.sealed()
    opened = desk.inbox.receive("bluelamp/v1/van-1/alert", blob, desk.now)
    assert opened.alert is not None
    assert desk.ledger.store(opened, opened.alert)
    assert not desk.ledger.store(opened, opened.alert)
    (case,) = desk.ledger.cases()
    assert (case.state, case.required, case.reference_identifier) == ("waiting", 1, "R-1")
    assert desk.ledger.probe(case.alert_id) == JPEG
    assert desk.ledger.reference_of(case.alert_id) == reference()
    assert desk.ledger.known(opened.digest)
    assert desk.ledger.counts() == {"waiting": 1}


def test_one_adjudicator_suffices_where_the_order_says_one(desk: Desk) -> None:
    desk.ordered()
    alert = desk.alert()
    desk.see(alert, ANN)
    desk.now += 4
    case = desk.ledger.judge(alert, ANN, "same", "the scar")
    assert (case.state, case.decided, case.judgements[0].seconds) == ("engage", desk.now, 4.0)
    closed = desk.ledger.engage(alert, BOB, "confirmed", "arrested")
    assert closed.state == "closed"
    assert closed.keep_until == desk.now + 30 * 86400
    assert closed.engagement is not None
    assert closed.engagement.followed == "arrested"


def test_two_adjudicators_and_a_supervisor_where_they_differ(desk: Desk) -> None:
    desk.ordered(adjudicators=2)
    alert = desk.alert()
    desk.see(alert, ANN, BOB, SUE)
    assert desk.ledger.judge(alert, ANN, "same").state == "waiting"
    assert desk.ledger.judge(alert, BOB, "possibly").state == "disputed"
    case = desk.ledger.rule(alert, SUE, "same")
    assert case.state == "engage"
    assert [j.ruling for j in case.judgements] == [False, False, True]


@pytest.mark.parametrize("member", [EYE, VIC])
def test_viewers_and_auditors_do_not_judge(desk: Desk, member: object) -> None:
    alert = desk.alert()
    desk.see(alert, member)  # type: ignore[arg-type]
    with pytest.raises(LedgerError, match="only adjudicators and supervisors"):
        desk.ledger.judge(alert, member, "same")  # type: ignore[arg-type]


def test_a_slip_is_taken_back_and_stays_in_the_ledger(desk: Desk) -> None:
    alert = desk.alert()
    desk.see(alert, ANN)
    desk.ledger.judge(alert, ANN, "same")
    desk.now += 30
    assert desk.ledger.undo(alert, ANN).state == "waiting"
    assert desk.ledger.judge(alert, ANN, "not-same").state == "dismissed"
    desk.now += 31
    with pytest.raises(LedgerError, match="30 s"):
        desk.ledger.undo(alert, ANN)


def test_a_stale_alert_is_withdrawn_and_not_judged(desk: Desk) -> None:
    alert = desk.alert()
    desk.see(alert, ANN)
    desk.now += desk.ttl
    with pytest.raises(LedgerError) as refusal:
        desk.ledger.judge(alert, ANN, "same")
    assert refusal.value.status == "stale"
    desk.ledger.tick()
    assert desk.ledger.case(alert).state == "withdrawn"


def test_a_decoy_is_closed_never_engaged_and_its_answer_counts(desk: Desk) -> None:
    real = desk.ledger.case(desk.alert())
    decoy = desk.ledger.store_decoy(real.model_copy(update={"alert_id": "d" * 8}), JPEG, reference("R-9"))
    assert (decoy.decoy, decoy.state) == (True, "waiting")
    assert desk.ledger.reference_of(decoy.alert_id) == reference("R-9")
    desk.see(decoy.alert_id, ANN)
    assert desk.ledger.judge(decoy.alert_id, ANN, "same").state == "closed"
    with pytest.raises(LedgerError, match="decoy"):
        desk.ledger.undo(decoy.alert_id, ANN)
    with pytest.raises(LedgerError, match="nobody was sent"):
        desk.ledger.engage(decoy.alert_id, ANN, "confirmed")


def test_listeners_hear_in_order_and_can_catch_up(desk: Desk) -> None:
    heard: list[Event] = []
    end = desk.ledger.listen(heard.append)
    alert = desk.alert()
    desk.see(alert, CY)
    desk.ledger.judge(alert, CY, "same")
    end()
    desk.ledger.say("unit", "van-1", "came")
    assert [(e.kind, e.detail) for e in heard] == [("alert", "waiting"), ("case", "engage")]
    assert [e.kind for e in desk.ledger.events(heard[-1].sequence)] == ["unit"]
    assert desk.ledger.newest() == heard[-1].sequence + 1


def test_after_a_restart_a_replay_is_still_a_duplicate_and_the_chain_goes_on(desk: Desk) -> None:
    first = desk.sealed()
    desk.take(first)
    desk.ledger.close()
    desk.open()
    with pytest.raises(RefusedError, match="duplicate"):
        desk.take(first)
    desk.sealed()
    assert desk.take(desk.sealed())
    assert desk.ledger.cases(limit=1)[0].notes == (
        "1 alert(s) before this one have not arrived", "its order is not here: bring it to the control room",
    )  # fmt: skip


def test_one_name_has_one_order(desk: Desk) -> None:
    made = desk.ordered()
    assert desk.ordered() == made
    with pytest.raises(LedgerError, match="another order"):
        desk.ledger.add_deployment(order(desk.now, adjudicators=2), "f" * 64)


def test_a_store_serves_one_process(desk: Desk) -> None:
    with pytest.raises(LedgerError, match="another process"):
        Ledger(desk.store)
