"""Nothing outlives its order: pictures, identifiers, notes and references are noise when their time is over."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from appliance.errors import KeyFileError
from appliance.trust import audit
from control.cases.adjudication import LedgerError
from control.ledger import retention, retention_proof
from control.ledger.ledger import Ledger
from control.ledger.vault import Vault
from control.ledger.word_search import Telltales
from control.service import ledger_cli
from tests.support.controlroom import ANN, BOB, JPEG, NOON, Desk, order, reference
from tests.support.machines import CONTROL, DEPLOYMENT, Machines
from tests.support.paths import ROOT

DAY = 86400.0
SECRET = "REFERENCE-0815-SECRET"


@pytest.fixture
def desk(machines: Machines, tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path / "store", machines)
    yield made
    made.ledger.close()


def purge(desk: Desk) -> int:
    return retention.purge(desk.ledger, desk.log(), desk.now)


def proof(desk: Desk) -> retention_proof.Proof:
    return retention_proof.verify(desk.store, [desk.machines.keys(CONTROL).signer.public_key], desk.now)


def judged(desk: Desk, outcome: str) -> str:
    """An alert that was judged the same and followed up, with notes."""
    alert = desk.alert(reference_identifier=SECRET)
    desk.see(alert, ANN)
    desk.ledger.judge(alert, ANN, "same", "a note that names somebody")
    desk.ledger.engage(alert, BOB, outcome, "what was said")  # type: ignore[arg-type]
    return alert


def test_alerts_go_after_a_day_and_confirmed_ones_after_thirty(desk: Desk) -> None:
    """Requirement 15; and the log tells of each erasure (requirement 18)."""
    desk.ordered()
    desk.ledger.put_references(DEPLOYMENT, [reference(SECRET)])
    confirmed, mistaken = judged(desk, "confirmed"), judged(desk, "mistaken")
    desk.now = NOON + DAY - 61
    assert purge(desk) == 0
    desk.now = NOON + DAY
    assert purge(desk) == 1
    gone = desk.ledger.case(mistaken)
    assert (gone.erased, gone.reference_identifier, gone.has_probe) == (desk.now, "", False)
    assert [j.verdict for j in gone.judgements] == ["same"]
    assert {j.note for j in gone.judgements} == {""}
    assert gone.engagement is not None
    assert (gone.engagement.outcome, gone.engagement.followed) == ("mistaken", "")
    assert desk.ledger.probe(mistaken) is None
    assert desk.ledger.reference_of(mistaken) is None
    assert desk.ledger.case(confirmed).reference_identifier == SECRET
    assert proof(desk).findings == ()
    desk.now = NOON + 30 * DAY
    assert purge(desk) == 1
    assert proof(desk) == retention_proof.Proof((), living=0, erased=2, erasures=2, keys=0)


def test_the_references_go_with_their_order_but_a_confirmed_case_keeps_its_own(desk: Desk) -> None:
    made = desk.ordered(alert_hours=2)
    desk.ledger.put_references(DEPLOYMENT, [reference(SECRET), reference("R-2")])
    alert = judged(desk, "confirmed")
    desk.now = made.not_after + 2 * 3600
    purge(desk)
    assert desk.ledger.reference(DEPLOYMENT, "R-2") is None
    assert desk.ledger.reference_of(alert) == reference(SECRET)
    with pytest.raises(LedgerError, match="not taken in again"):
        desk.ledger.put_references(DEPLOYMENT, [reference()])
    assert proof(desk).findings == ()


@pytest.mark.parametrize(("hours", "days"), [(1.0, 2.0), (24.0, 30.0), (0.1, 0.5)])
def test_the_order_sets_less_and_never_more(desk: Desk, hours: float, days: float) -> None:
    desk.ordered(alert_hours=hours, confirmed_days=days)
    case = desk.ledger.case(judged(desk, "confirmed"))
    assert case.keep_until == desk.now + days * DAY
    assert desk.ledger.case(desk.alert()).keep_until == desk.now + hours * 3600


def test_a_copy_of_the_file_made_before_is_noise_afterwards(desk: Desk, tmp_path: Path) -> None:
    """A backup, a block of flash, an old write-ahead log: the wrapped key is there, what opens it is not."""
    alert = desk.alert()
    for name in ("ledger.sqlite", "ledger.sqlite-wal"):
        shutil.copy(desk.store / name, tmp_path / name)
    with sqlite3.connect(tmp_path / "ledger.sqlite") as old:
        ((wrapped,),) = old.execute("SELECT wrapped FROM keys").fetchall()
        ((number,),) = old.execute("SELECT value FROM meta WHERE name = 'epoch'").fetchall()
    vault = Vault(desk.store / "vault")
    assert vault.load(number).unwrap(f"case/{alert}", wrapped)
    desk.now += DAY
    purge(desk)
    assert [p.name for p in vault.files()] == ["epoch-00000002.key"]
    with pytest.raises(KeyFileError, match="does not open"):
        vault.load(2).unwrap(f"case/{alert}", wrapped)


def test_what_is_kept_opens_after_any_number_of_erasures_and_restarts(desk: Desk) -> None:
    desk.ordered()
    desk.ledger.put_references(DEPLOYMENT, [reference(SECRET)])
    kept = judged(desk, "confirmed")
    for day in range(1, 4):
        desk.alert()
        desk.now = NOON + day * (DAY + 60)
        purge(desk)
        desk.ledger.close()
        desk.open()
        assert desk.ledger.probe(kept) == JPEG
        assert desk.ledger.case(kept).reference_identifier == SECRET
    assert proof(desk).findings == ()


@pytest.mark.parametrize("step", ["make", "checkpoint", "keep_only"])
def test_a_power_cut_at_any_step_of_an_erasure_leaves_less_and_never_more(
    desk: Desk, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the commit nothing was erased, after it everything is; the next start finishes what was cut off."""

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    gone = desk.alert()
    desk.now += 3600
    kept = desk.alert()
    desk.now += 23 * 3600
    target = (
        "control.ledger.ledger_file.LedgerFile.checkpoint"
        if step == "checkpoint"
        else f"control.ledger.vault.Vault.{step}"
    )
    with monkeypatch.context() as patch:
        patch.setattr(target, cut)
        with pytest.raises(KeyboardInterrupt):
            purge(desk)
    desk.ledger.close()
    desk.open()
    assert (desk.ledger.case(gone).erased is None) == (step == "make")
    purge(desk)
    assert desk.ledger.case(gone).erased is not None
    assert desk.ledger.probe(kept) == JPEG
    assert proof(desk).findings == ()


def test_a_log_that_could_not_be_written_is_written_the_next_time(desk: Desk) -> None:
    desk.alert()
    desk.now += DAY
    (desk.store / "audit.log").mkdir()
    with pytest.raises(OSError, match="directory"):
        purge(desk)
    assert any("audit log" in f or "audit.log" in f or "log does not tell" in f for f in proof_or_error(desk))
    (desk.store / "audit.log").rmdir()
    purge(desk)
    assert proof(desk).findings == ()
    (entry,) = audit.verify(desk.store / "audit.log", [desk.machines.keys(CONTROL).signer.public_key])
    assert entry.detail == "keys destroyed of 1 alert(s) and the references of 0 deployment(s)"


def proof_or_error(desk: Desk) -> list[str]:
    try:
        return list(proof(desk).findings)
    except OSError as error:
        return [str(error)]


def tamper(desk: Desk, statement: str) -> Callable[[], None]:
    def act() -> None:
        with sqlite3.connect(desk.store / "ledger.sqlite") as db:
            db.execute(statement)
        db.close()

    return act


@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        ("UPDATE cases SET keep_until = keep_until - 200000 WHERE erased IS NULL", "still here"),
        ("UPDATE cases SET keep_until = keep_until + 7200 WHERE erased IS NULL", "longer than its order allows"),
        ("UPDATE cases SET probe = x'00' WHERE erased IS NOT NULL", "something of it is still in its row"),
        ("UPDATE judgements SET note = x'00'", "something of it is still in its row"),
        ("INSERT INTO keys SELECT 'case/nobody', wrapped FROM keys LIMIT 1", "belongs to nothing"),
        ("UPDATE keys SET wrapped = zeroblob(60)", "does not open"),
        ("DELETE FROM keys", "missing"),
        ("UPDATE cases SET erasure = 'x' WHERE erased IS NOT NULL", "not those that it names"),
        ("UPDATE cases SET probe = x'ffd8ffe000104a464946' WHERE erased IS NULL", "holds a picture"),
        (f"UPDATE cases SET camera = '{SECRET}'", "identifier in the clear"),
    ],
)
def test_the_proof_finds_what_is_wrong(desk: Desk, statement: str, finding: str) -> None:
    judged(desk, "mistaken")
    desk.now += DAY
    purge(desk)
    desk.alert(reference_identifier=SECRET)
    assert proof(desk).findings == ()
    desk.ledger.close()
    tamper(desk, statement)()
    found = proof(desk).findings
    desk.open()
    assert any(finding in line for line in found), found


def test_the_proof_finds_an_old_key_a_cut_log_and_a_picture_beside(desk: Desk) -> None:
    desk.alert()
    desk.now += DAY
    purge(desk)
    (desk.store / "vault" / "epoch-00000001.key").write_bytes(b"k" * 32)
    (desk.store / "left.jpg").write_bytes(JPEG)
    (desk.store / "audit.log").write_bytes(b"")
    found = "\n".join(proof(desk).findings)
    assert "key of another epoch" in found
    assert "left.jpg: holds a picture" in found
    assert "audit log" in found


def test_the_command_says_whether_it_holds(desk: Desk) -> None:
    app = typer.Typer()
    ledger_cli.mount(app)
    desk.alert()
    arguments = ["retention", "verify", "--store", str(desk.store), "--keys", str(desk.machines.folders[CONTROL])]
    desk.now = 1e9  # long ago
    desk.alert(reference_identifier="R-2")
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, LedgerError)
    assert result.exception.exit_code == 11
    desk.now = 1e9 + DAY
    purge(desk)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    assert "1 alert(s) erased in 1 erasure(s), all in the log; 1 are kept" in result.output


def test_a_newer_set_of_references_erases_the_older(desk: Desk) -> None:
    """What was deleted at the base goes here, too, when the next dossier comes."""
    desk.ordered()
    desk.ledger.put_references(DEPLOYMENT, [reference("R-1"), reference("R-2"), reference("R-3")])
    assert desk.ledger.put_references(DEPLOYMENT, [reference("R-1"), reference("R-2", picture=None)]) == 2
    assert desk.ledger.reference(DEPLOYMENT, "R-3") is None
    assert desk.ledger.reference(DEPLOYMENT, "R-2") == reference("R-2", picture=None)
    assert desk.ledger.reference(DEPLOYMENT, "R-1") == reference("R-1")
    assert desk.ledger.deployments()[0].references == 1
    assert proof(desk).findings == ()


def test_an_alert_of_a_reference_that_was_deleted_is_still_shown(desk: Desk) -> None:
    alert = desk.alert()
    assert desk.ledger.reference_of(alert) is None
    desk.see(alert, ANN)
    assert desk.ledger.judge(alert, ANN, "not-same").state == "dismissed"


def test_a_full_disk_still_erases_and_still_takes_answers(machines: Machines, small_disk: Path) -> None:
    """New alerts are refused, so that the broker keeps them; once there is room they are stored."""
    desk = Desk(small_disk / "store", machines)
    desk.ordered()
    first = desk.alert()
    desk.see(first, ANN)
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="space"):
        while True:
            file.write(bytes(1 << 16))
    waiting = desk.sealed()
    with pytest.raises(LedgerError, match="disk is full"):
        for _ in range(2000):
            assert desk.take(waiting)
            waiting = desk.sealed()
    assert desk.ledger.judge(first, ANN, "same").state == "engage"
    desk.now += DAY
    erased = desk.ledger.erase_now(*desk.ledger.due(desk.now))
    assert erased.alerts >= 1
    filler.unlink()
    assert desk.take(waiting)
    desk.ledger.close()


def test_a_store_and_a_vault_of_two_backups_are_told_apart(desk: Desk) -> None:
    desk.alert()
    desk.ledger.close()
    (desk.store / "vault" / "epoch-00000001.key").unlink()
    with pytest.raises(KeyFileError):
        Ledger(desk.store)
    (desk.store / "vault" / "epoch-00000001.key").touch(mode=0o600)
    with pytest.raises(KeyFileError, match="0 bytes"):
        Ledger(desk.store)
    (desk.store / "vault" / "epoch-00000001.key").write_bytes(b"k" * 32)
    desk.open()
    with pytest.raises(KeyFileError, match="restore both"):
        desk.ledger.cases()


def test_an_order_without_pictures_makes_cases_without_probes(desk: Desk) -> None:
    desk.ledger.add_deployment(order(desk.now).model_copy(update={"chips": False}), "0" * 64)
    case = desk.ledger.case(desk.alert(chip=None))
    assert not case.has_probe
    assert desk.ledger.probe(case.alert_id) is None


ERASER = """
import sys
from pathlib import Path
from control.ledger.ledger import Ledger
store, now = Path(sys.argv[1]), float(sys.argv[2])
ledger = Ledger(store, clock=lambda: now)
alerts, _ = ledger.due(now)
print("begin", flush=True)
for alert in alerts:
    ledger.erase_now([alert], [])
    print(alert, flush=True)
"""


def test_a_process_killed_while_it_erases_leaves_each_alert_whole_or_gone(desk: Desk) -> None:
    """kill -9 at any moment: what was said to be erased is gone, everything else opens, and the next start goes on."""
    alerts = [desk.alert() for _ in range(30)]
    desk.now += DAY
    for killed_after in (1, 6):
        desk.ledger.close()
        arguments = [sys.executable, "-c", ERASER, str(desk.store), str(desk.now)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=ROOT) as eraser:
            assert eraser.stdout is not None
            said = [eraser.stdout.readline().strip() for _ in range(killed_after + 1)][1:]
            eraser.kill()
        desk.open()
        gone = {alert for alert in alerts if desk.ledger.case(alert).erased is not None}
        assert gone >= set(said)
        assert all((desk.ledger.probe(alert) == JPEG) == (alert not in gone) for alert in alerts)
        assert len(Vault(desk.store / "vault").files()) == 1
    purge(desk)
    assert proof(desk).findings == ()
    assert proof(desk).erased == 30


def test_the_proof_holds_beside_a_service_that_erases(desk: Desk) -> None:
    alerts = [desk.alert() for _ in range(5)]
    stop = threading.Event()

    def erase() -> None:
        for alert in alerts:
            desk.ledger.erase_now([alert], [])
            for erasure in desk.ledger.unlogged():
                desk.log().add("erasure", erasure.digest, retention.words(erasure))
                desk.ledger.logged(erasure)
            stop.wait(0.3)  # a service erases once a minute at most

    eraser = threading.Thread(target=erase)
    eraser.start()
    try:
        while eraser.is_alive():
            assert proof(desk).findings == ()
    finally:
        stop.set()
        eraser.join()


@given(
    strings=st.lists(st.binary(min_size=8, max_size=20), max_size=5), noise=st.binary(max_size=200),
    place=st.integers(0, 200), wanted=st.integers(0, 4),
)  # fmt: skip
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_telltales_are_found_as_a_plain_search_finds_them(
    tmp_path: Path, strings: list[bytes], noise: bytes, place: int, wanted: int
) -> None:
    blob = noise[:place] + (strings[wanted] if wanted < len(strings) else b"") + noise[place:]
    (tmp_path / "file").write_bytes(blob)
    assert Telltales(strings).stand_in(tmp_path / "file") == any(string in blob for string in strings)


def test_a_telltale_across_two_parts_of_a_file_is_found(tmp_path: Path) -> None:
    for at in ((1 << 22) - 21, (1 << 22) - 20, (1 << 22) - 7, 1 << 22):
        (tmp_path / "file").write_bytes(bytes(at) + SECRET.encode() + bytes(9))
        assert Telltales([SECRET.encode()]).stand_in(tmp_path / "file")
    assert not Telltales([SECRET.encode()]).stand_in(tmp_path / "nothing")
    with pytest.raises(ValueError, match="fewer than 8"):
        Telltales([b"R-1"])
