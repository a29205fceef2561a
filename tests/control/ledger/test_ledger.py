"""The ledger: what was stored is there, what people said is written down, and what is erased cannot come back."""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.records import Health, StageTimes
from control.cases import adjudication
from control.ledger import deployment_rows
from control.ledger.ledger import Ledger, LedgerError
from control.ledger.ledger_file import reading
from control.receive.inbox import RefusedError
from control.records import Case, Event, Member
from tests.support.controlroom import ANN, BOB, CY, EYE, JPEG, SUE, VIC, Desk, order, reference
from tests.support.machines import CONTROL, DEPLOYMENT, UNIT, AlertMaker, Machines
from tests.support.paths import ROOT


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


CRASH = """
import os, sys
from pathlib import Path
from appliance.trust import keys
from control.receive.inbox import Inbox
from control.ledger.ledger import Ledger
store, folder, container, now = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4])
ledger, inbox = Ledger(store, clock=lambda: now), Inbox(keys.load(folder))
opened = inbox.receive("bluelamp/v1/van-1/alert", container.read_bytes(), now)
assert ledger.store(opened, opened.alert)
os.kill(os.getpid(), 9)  # stored, and the broker never hears of it
"""


def test_a_crash_between_storing_and_acknowledging_makes_a_duplicate_that_is_refused(
    desk: Desk, tmp_path: Path
) -> None:
    blob = desk.sealed()
    (tmp_path / "container").write_bytes(blob)
    desk.ledger.close()
    arguments = [desk.store, desk.machines.folders[CONTROL], tmp_path / "container", desk.now]
    ended = subprocess.run([sys.executable, "-c", CRASH, *map(str, arguments)], cwd=ROOT)
    assert ended.returncode == -9
    desk.open()
    assert len(desk.ledger.cases()) == 1
    with pytest.raises(RefusedError, match="duplicate"):
        desk.take(blob)
    assert desk.take(desk.sealed()), "the chain goes on"
    assert desk.ledger.cases(limit=1)[0].notes == ("its order is not here: bring it to the control room",)


def test_the_same_alert_in_another_container_is_no_second_case(desk: Desk) -> None:
    alert = desk.alert()
    again = desk.inbox.receive("bluelamp/v1/van-1/alert", desk.sealed(alert_id=alert), desk.now)
    assert again.alert is not None
    assert not desk.ledger.store(again, again.alert)


@pytest.mark.parametrize("off", [-3600.0, 3600.0])
def test_a_units_clock_that_is_an_hour_off_changes_nothing_that_is_kept_and_is_remarked(desk: Desk, off: float) -> None:
    """Ahead: its age counts from its arrival. Behind: it seems to come late and is not acted on, the safe side."""
    desk.ordered()
    case = desk.ledger.case(desk.alert(observed=desk.now + off, captured=desk.now + off))
    assert case.keep_until == desk.now + 86400
    assert case.stale_after == desk.now + desk.ttl + min(off, 0)
    assert case.state == ("waiting" if off > 0 else "withdrawn")
    assert ("in the future" if off > 0 else "clock is behind") in case.notes[0]


def test_a_thousand_alerts_cost_no_more_each_than_the_first(desk: Desk) -> None:
    """No cost grows with what is stored: a thousand in a minute are a sixtieth of a minute's work each at most."""
    desk.ordered()
    blobs = [desk.sealed() for _ in range(400)]
    times = []
    for blob in blobs:
        start = time.perf_counter()
        assert desk.take(blob)
        times.append(time.perf_counter() - start)
    first, last = statistics.median(times[:100]), statistics.median(times[-100:])
    assert last < 3 * first
    assert last < 0.06
    start = time.perf_counter()
    assert len(desk.ledger.cases(states=("waiting",), limit=50)) == 50
    assert time.perf_counter() - start < 0.1


def test_many_threads_at_once_lose_nothing_and_are_heard_in_order(desk: Desk) -> None:
    alerts = [desk.alert() for _ in range(12)]
    heard: list[int] = []
    desk.ledger.listen(lambda event: heard.append(event.sequence))
    start = desk.ledger.newest()

    def judge(alert: str) -> str:
        desk.ledger.first_seen(alert, ANN)
        return desk.ledger.judge(alert, ANN, "not-same").state

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(judge, alerts)) == ["dismissed"] * 12
    assert heard == list(range(start + 1, start + 13))


def test_two_members_at_the_same_moment_are_one_after_the_other(desk: Desk) -> None:
    """Whoever comes second finds it decided: no case is decided twice."""
    alert = desk.alert()
    desk.see(alert, ANN, BOB)
    barrier = threading.Barrier(2)

    def judge(member: Member) -> str:
        barrier.wait()
        try:
            return desk.ledger.judge(alert, member, "same").state
        except LedgerError as refusal:
            return str(refusal)

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(judge, (ANN, BOB))) == ["engage", "this alert was decided already"]


ACT = st.tuples(st.sampled_from(["judge", "rule", "undo"]), st.sampled_from([ANN, BOB, SUE, VIC]),
                st.sampled_from(["not-same", "possibly", "same"]))  # fmt: skip


@given(acts=st.lists(ACT, max_size=6), required=st.sampled_from([1, 2]))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_file_says_what_the_rules_say(desk: Desk, acts: list[tuple[str, Member, str]], required: int) -> None:
    """Each act leaves in the file exactly the case that the pure rules give, and a refused act leaves nothing."""
    deployment = f"d-{required}"
    if desk.ledger.deployment(deployment) is None:
        desk.ledger.add_deployment(order(desk.now, adjudicators=required, deployment=deployment), "0" * 64)
    desk.maker = AlertMaker(desk.machines, deployment=deployment)
    alert = desk.alert()
    desk.see(alert, ANN, BOB, SUE, VIC)
    for kind, member, verdict in acts:
        before = desk.ledger.case(alert)
        wanted = before
        try:
            wanted = pure(before, kind, member, verdict, desk.now)
            done = act(desk.ledger, alert, kind, member, verdict)
            assert done == wanted
        except LedgerError:
            assert wanted == before
        assert desk.ledger.case(alert) == wanted


def pure(before: Case, kind: str, member: Member, verdict: str, now: float) -> Case:
    if kind == "undo":
        return adjudication.undone(before, member, now)
    rule = adjudication.judged if kind == "judge" else adjudication.ruled
    return rule(before, member, verdict, "", now, now)  # type: ignore[arg-type]


def act(ledger: Ledger, alert: str, kind: str, member: Member, verdict: str) -> Case:
    if kind == "undo":
        return ledger.undo(alert, member)
    return (ledger.judge if kind == "judge" else ledger.rule)(alert, member, verdict)  # type: ignore[arg-type]


def test_an_answer_that_was_taken_back_is_still_in_the_file(desk: Desk) -> None:
    alert = desk.alert()
    desk.see(alert, ANN)
    desk.ledger.judge(alert, ANN, "same")
    desk.ledger.undo(alert, ANN)
    with reading(desk.store) as db:
        assert db.execute("SELECT by, verdict, undone FROM judgements").fetchall() == [("ann", "same", desk.now)]


def test_what_is_not_here_is_said_so(desk: Desk) -> None:
    for ask in (lambda: desk.ledger.case("x"), lambda: desk.ledger.first_seen("x", ANN),
                lambda: desk.ledger.judge("x", ANN, "same"), lambda: desk.ledger.put_references("x", [])):  # fmt: skip
        with pytest.raises(LedgerError) as refusal:
            ask()
        assert refusal.value.status == "unknown"
    assert desk.ledger.probe("x") is None
    assert desk.ledger.deployment("x") is None


def test_health_and_receipts_are_kept_once_and_old_ones_ignored(desk: Desk) -> None:
    desk.ordered()
    report = Health(
        unit=UNIT, deployment=DEPLOYMENT, time=10, uptime=10, state="armed", cameras=(), faces=5, tracks=4, probes=3,
        alerts=1, queued=0, stages=StageTimes(), resident_bytes=1, watchlist_entries=1, watchlist_recall=1,
    )  # fmt: skip
    later = report.model_copy(update={"time": 20, "uptime": 20, "tracks": 9})
    restarted = report.model_copy(update={"time": 30, "uptime": 1, "tracks": 2})
    for health in (report, later, report, restarted):
        desk.ledger.health(health)
    with reading(desk.store) as db:
        assert [h.tracks for h in deployment_rows.healths(db, DEPLOYMENT)] == [9, 2]
    for _ in range(2):
        desk.ledger.receipt(DEPLOYMENT, "e" * 64)
    made = desk.ledger.deployment(DEPLOYMENT)
    assert made is not None
    assert made.receipt == "e" * 64


def test_alerts_that_come_before_their_order_are_under_it_once_it_is_here(desk: Desk) -> None:
    """A second adjudicator is asked for, and nothing is kept longer than the order says."""
    early, judged = desk.alert(), desk.alert()
    desk.see(early, ANN, BOB)
    desk.see(judged, ANN)
    desk.ledger.judge(judged, ANN, "same")
    desk.ledger.engage(judged, ANN, "confirmed")
    desk.ordered(adjudicators=2, alert_hours=1, confirmed_days=1)
    assert desk.ledger.case(early).keep_until == desk.now + 3600
    assert desk.ledger.case(judged).keep_until == desk.now + 86400
    assert desk.ledger.judge(early, ANN, "same").state == "waiting"
    assert desk.ledger.judge(early, BOB, "same").state == "engage"


def test_two_cameras_that_see_one_reference_make_two_cases(desk: Desk) -> None:
    front, rear = desk.alert(camera="front"), desk.alert(camera="rear")
    assert {(c.alert_id, c.camera, c.reference_identifier) for c in desk.ledger.cases()} == {
        (front, "front", "R-1"), (rear, "rear", "R-1"),
    }  # fmt: skip
