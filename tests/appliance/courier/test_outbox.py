"""The outbox loses nothing and stores nothing twice, whatever order crashes come in."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from appliance.courier.outbox import Clock, Outbox, OutboxError
from appliance.errors import CourierError
from appliance.limits import LIMITS
from appliance.records import Header
from appliance.trust import seal
from tests.support.machines import DEPLOYMENT, AlertMaker, Machines


def header_of(container: bytes) -> Header:
    return seal.take_apart(container, LIMITS.envelope_bytes).header


def put(outbox: Outbox, container: bytes) -> bool:
    return outbox.put(container, header_of(container))


@dataclass
class Watch:
    """A clock the test turns."""

    wall: float = 1_800_000_000.0
    boot: float = 1000.0
    boot_id: str = "boot-1"

    def clock(self) -> Clock:
        return Clock(lambda: self.wall, lambda: self.boot, self.boot_id)


@pytest.fixture(scope="module")
def containers(machines: Machines) -> list[bytes]:
    maker = AlertMaker(machines)
    return [maker.alert(size=2000) for _ in range(12)]


def test_what_was_put_is_there_after_a_restart_in_order(tmp_path: Path, containers: list[bytes]) -> None:
    outbox = Outbox(tmp_path / "o.sqlite")
    assert all(put(outbox, c) for c in containers)
    outbox.close()
    again = Outbox(tmp_path / "o.sqlite")
    assert [row.container for row in again.rows(0, 100)] == containers


def test_a_resend_is_stored_once_even_after_its_row_is_gone(tmp_path: Path, containers: list[bytes]) -> None:
    outbox = Outbox(tmp_path / "o.sqlite")
    assert put(outbox, containers[0])
    assert not put(outbox, containers[0])
    outbox.delete([outbox.rows(0, 1)[0].number])
    assert not put(outbox, containers[0])
    assert outbox.depth() == 0


def test_the_chain_goes_on_after_a_restart(tmp_path: Path, machines: Machines) -> None:
    maker = AlertMaker(machines)
    outbox = Outbox(tmp_path / "o.sqlite")
    assert outbox.chain(DEPLOYMENT) is None
    for _ in range(3):
        put(outbox, maker.alert())
    outbox.delete([row.number for row in outbox.rows(0, 10)])
    outbox.close()
    point = Outbox(tmp_path / "o.sqlite").chain(DEPLOYMENT)
    assert point is not None
    assert (point.chain, point.sequence, point.previous) == (maker.chain, 3, maker.previous)


def test_a_full_outbox_refuses_and_keeps_what_it_has(tmp_path: Path, containers: list[bytes]) -> None:
    outbox = Outbox(tmp_path / "o.sqlite", rows=2)
    put(outbox, containers[0])
    put(outbox, containers[1])
    with pytest.raises(OutboxError, match="full; check the way to the broker"):
        put(outbox, containers[2])
    assert outbox.depth() == 2
    outbox.delete([outbox.rows(0, 1)[0].number])
    assert put(outbox, containers[2])


def test_a_full_disk_refuses_with_advice_and_recovers(tmp_path: Path, containers: list[bytes]) -> None:
    """The page limit makes SQLite say what it says on a full disk."""
    outbox = Outbox(tmp_path / "o.sqlite")
    (pages,) = outbox._db.execute("PRAGMA page_count").fetchone()
    outbox._db.execute(f"PRAGMA max_page_count = {pages + 1}")
    stored = []
    with pytest.raises(OutboxError, match="disk is full"):
        for container in containers:
            put(outbox, container)
            stored.append(container)
    assert [row.container for row in outbox.rows(0, 100)] == stored
    outbox._db.execute(f"PRAGMA max_page_count = {pages + 100}")
    assert put(outbox, containers[len(stored)])


def test_a_really_full_disk_loses_nothing_that_was_acknowledged(small_disk: Path, machines: Machines) -> None:
    maker = AlertMaker(machines)
    outbox = Outbox(small_disk / "o.sqlite", say=lambda line: None)
    stored = []
    with pytest.raises(OutboxError, match="disk is full"):
        for _ in range(300):
            container = maker.alert(size=16000)
            put(outbox, container)
            stored.append(container)
    assert len(stored) > 3
    assert [row.container for row in outbox.rows(0, 300)] == stored
    outbox.close()
    again = Outbox(small_disk / "o.sqlite", say=lambda line: None)
    assert [row.container for row in again.rows(0, 300)] == stored


@pytest.mark.parametrize("jump", [-400 * 86400.0, -3600.0, 3600.0, 400 * 86400.0])
def test_a_jump_of_the_clock_expires_nothing(tmp_path: Path, machines: Machines, jump: float) -> None:
    watch = Watch()
    outbox = Outbox(tmp_path / "o.sqlite", clock=watch.clock())
    put(outbox, AlertMaker(machines).alert(lifetime=600.0))
    watch.wall += jump
    watch.boot += 10
    assert outbox.expire() == 0
    assert outbox.rows(0, 1)[0].remaining == pytest.approx(590, abs=0.01)
    watch.boot += 600
    assert outbox.expire() == 1
    assert outbox.count("expired") == 1


def test_across_a_reboot_the_wall_clock_decides(tmp_path: Path, machines: Machines) -> None:
    watch = Watch(wall=time.time())
    outbox = Outbox(tmp_path / "o.sqlite", clock=watch.clock())
    put(outbox, AlertMaker(machines).alert(lifetime=600.0))
    outbox.close()
    watch.boot_id, watch.boot, watch.wall = "boot-2", 5.0, watch.wall + 300
    again = Outbox(tmp_path / "o.sqlite", clock=watch.clock())
    assert again.rows(0, 1)[0].remaining == pytest.approx(300, abs=5)
    watch.wall += 400
    assert again.expire() == 1


@pytest.mark.parametrize("where", [0, 100, 5000, 20000])
def test_a_damaged_file_is_moved_aside_and_what_reads_is_saved(
    tmp_path: Path, containers: list[bytes], where: int
) -> None:
    path = tmp_path / "o.sqlite"
    outbox = Outbox(path)
    for container in containers:
        put(outbox, container)
    outbox.close()
    blob = bytearray(path.read_bytes())
    blob[where : where + 600] = os.urandom(600)
    path.write_bytes(blob)
    said: list[str] = []
    again = Outbox(path, say=said.append)
    rows = [row.container for row in again.rows(0, 300)]
    assert set(rows) <= set(containers)
    assert put(again, containers[0]) or containers[0] in rows
    if said:
        assert "was damaged" in said[0]
        assert list(tmp_path.glob("o.sqlite.damaged-*"))


def test_damage_while_it_runs_is_an_error_once_and_then_over(tmp_path: Path, containers: list[bytes]) -> None:
    said: list[str] = []
    outbox = Outbox(tmp_path / "o.sqlite", say=said.append)
    put(outbox, containers[0])
    outbox._db.execute("DROP TABLE seen")
    with pytest.raises(CourierError):
        put(outbox, containers[1])
    assert put(outbox, containers[1])
    assert {row.container for row in outbox.rows(0, 10)} == set(containers[:2])
    assert "damaged" in said[0]


def test_a_second_courier_on_the_same_outbox_is_told_so(tmp_path: Path) -> None:
    keep = Outbox(tmp_path / "o.sqlite")
    with pytest.raises(CourierError, match="another courier uses this outbox"):
        Outbox(tmp_path / "o.sqlite", patience=0.1)
    keep.close()


def test_only_its_owner_can_read_the_file(tmp_path: Path) -> None:
    Outbox(tmp_path / "new" / "o.sqlite")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "new" / "o.sqlite").stat().st_mode & 0o777 == 0o600


def test_a_power_cut_after_the_commit_finds_the_row(tmp_path: Path, containers: list[bytes]) -> None:
    """The files as they are on disk at the moment put returned hold the row."""
    outbox = Outbox(tmp_path / "o.sqlite")
    assert outbox._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    for number, container in enumerate(containers[:4]):
        put(outbox, container)
        copy = tmp_path / f"copy-{number}"
        copy.mkdir()
        for file in tmp_path.glob("o.sqlite*"):
            shutil.copy(file, copy / file.name)
        rows = Outbox(copy / "o.sqlite").rows(0, 300)
        assert [row.container for row in rows] == containers[: number + 1]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 11)),
        st.tuples(st.just("acknowledge"), st.integers(0, 11)),
        st.tuples(st.just("crash"), st.just(0)),
        st.tuples(st.just("fail"), st.integers(0, 11)),
    ),
    max_size=40,
)


@given(steps=steps)
@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_order_of_puts_acknowledgements_and_crashes_loses_or_repeats_an_alert(
    tmp_path_factory: pytest.TempPathFactory, containers: list[bytes], steps: list[tuple[str, int]]
) -> None:
    """A crash leaves the file as it is and takes the connection; a failing disk undoes one put."""
    path = tmp_path_factory.mktemp("outbox") / "o.sqlite"
    outbox = Outbox(path)
    waiting: list[bytes] = []
    ever: set[bytes] = set()
    for step, index in steps:
        container = containers[index]
        if step == "put":
            assert put(outbox, container) is (container not in ever)
            waiting += [container] if container not in ever else []
            ever.add(container)
        elif step == "acknowledge" and container in waiting:
            outbox.delete([row.number for row in outbox.rows(0, 300) if row.container == container])
            waiting.remove(container)
        elif step == "crash":
            outbox._db.close()
            outbox = Outbox(path)
        elif step == "fail" and container not in ever:
            outbox._db.execute(
                "CREATE TEMP TRIGGER fail AFTER INSERT ON main.seen BEGIN SELECT RAISE(ABORT, 'io'); END"
            )
            with pytest.raises(OutboxError):
                put(outbox, container)
            outbox._db.execute("DROP TRIGGER fail")
        assert [row.container for row in outbox.rows(0, 300)] == waiting
    outbox.close()


def test_salvage_leaves_the_damaged_file_for_a_look(tmp_path: Path, containers: list[bytes]) -> None:
    path = tmp_path / "o.sqlite"
    path.write_bytes(b"this was never a database" * 100)
    outbox = Outbox(path, say=lambda line: None)
    assert put(outbox, containers[0])
    (aside,) = tmp_path.glob("o.sqlite.damaged-*")
    assert aside.read_bytes().startswith(b"this was never")
    with pytest.raises(sqlite3.DatabaseError):
        sqlite3.connect(aside).execute("SELECT * FROM envelopes")
