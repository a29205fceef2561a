"""The local socket takes bounded sealed containers from the right process and nothing else; vision never waits."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance.courier.forward import Forwarder
from appliance.courier.outbox import Outbox
from appliance.courier.server import Server
from appliance.courier.settings import CourierSettings
from appliance.errors import CourierError
from appliance.limits import LIMITS
from appliance.records import Header
from appliance.sockets import link as links
from appliance.sockets.link import CourierLink, Greeting, Hello, Reply
from appliance.transport.mqtt import BrokerAddress
from tests.support.machines import DEPLOYMENT, AlertMaker, Machines, eventually

Settings = Callable[..., CourierSettings]
NOWHERE = BrokerAddress(host="127.0.0.1", port=9)


class Courier:
    """The courier's local half: socket and outbox, without a broker."""

    def __init__(self, settings: CourierSettings, rows: int = LIMITS.outbox_rows) -> None:
        self.settings, self.said = settings, list[str]()
        self.healths: list[Header] = []
        self.outbox = Outbox(settings.outbox, rows=rows, say=self.said.append)
        forwarder = Forwarder(self.outbox, settings.unit, NOWHERE, settings.tls, "test", say=self.said.append)
        forwarder.health = lambda header, container: self.healths.append(header)  # type: ignore[method-assign]
        self.server = Server(settings, self.outbox, forwarder, self.said.append)
        self._thread = threading.Thread(target=self.server.run, daemon=True)
        self._thread.start()

    @property
    def containers(self) -> list[bytes]:
        return [row.container for row in self.outbox.rows(0, 1000)]

    def stop(self) -> None:
        self.server.stop()
        self._thread.join(5)
        self.outbox.close()


@pytest.fixture
def chosen(settings: Settings) -> CourierSettings:
    return settings(NOWHERE)


@pytest.fixture
def courier(chosen: CourierSettings) -> Iterator[Courier]:
    made = Courier(chosen)
    yield made
    made.stop()


@pytest.fixture
def link(chosen: CourierSettings) -> Iterator[CourierLink]:
    made = CourierLink(chosen.socket, DEPLOYMENT, say=lambda line: None)
    yield made
    made.close(1)


def speak(chosen: CourierSettings) -> socket.socket:
    """A connection that has said hello."""
    stream = socket.socket(socket.AF_UNIX)
    stream.settimeout(5)
    stream.connect(str(chosen.socket))
    links.write_record(stream, Hello(deployment=DEPLOYMENT))
    links.read_record(stream, Greeting)
    return stream


def test_containers_are_stored_in_order_and_acknowledged(
    courier: Courier, link: CourierLink, maker: AlertMaker
) -> None:
    alerts = [maker.alert(size=9000) for _ in range(10)]
    for alert in alerts:
        link.send(alert, "alert")
    eventually(lambda: link.pending == 0)
    assert courier.containers == alerts
    assert link.counts == links.LinkCounts(pending=0, queued=10, stored=10, dropped=0)


def test_the_greeting_says_where_the_chain_stands(courier: Courier, chosen: CourierSettings, maker: AlertMaker) -> None:
    first = CourierLink(chosen.socket, DEPLOYMENT)
    assert first.wait_greeting(5) == Greeting()
    first.send(maker.alert(), "alert")
    first.send(maker.alert(), "alert")
    assert first.close(5) == 0
    again = CourierLink(chosen.socket, DEPLOYMENT)
    assert again.wait_greeting(5) == Greeting(chain=maker.chain, sequence=2, previous=maker.previous, queued=2)
    other = CourierLink(chosen.socket, "d-2")
    assert other.wait_greeting(5) == Greeting(queued=2)
    again.close(1)
    other.close(1)


def test_vision_never_waits_and_its_alerts_survive_a_courier_that_comes_late(
    chosen: CourierSettings, link: CourierLink, maker: AlertMaker
) -> None:
    alerts = [maker.alert() for _ in range(50)]
    started = time.perf_counter()
    for alert in alerts:
        link.send(alert, "alert")
    assert time.perf_counter() - started < 0.2
    assert link.greeting is None
    assert link.pending == 50
    courier = Courier(chosen)
    eventually(lambda: link.pending == 0)
    assert courier.containers == alerts
    courier.stop()


def test_a_courier_that_is_replaced_gets_the_rest_and_nothing_twice(
    chosen: CourierSettings, link: CourierLink, maker: AlertMaker
) -> None:
    alerts = [maker.alert() for _ in range(60)]
    courier = Courier(chosen)
    for number, alert in enumerate(alerts):
        link.send(alert, "alert")
        if number % 20 == 19:
            courier.stop()
            courier = Courier(chosen)
    eventually(lambda: link.pending == 0)
    assert courier.containers == alerts
    courier.stop()


def test_a_resend_after_a_lost_reply_is_stored_once(
    courier: Courier, chosen: CourierSettings, maker: AlertMaker
) -> None:
    alert = maker.alert()
    for _ in range(2):
        with speak(chosen) as stream:
            links.write_frame(stream, alert)
            assert links.read_record(stream, Reply).stored
    assert courier.containers == [alert]


def test_memory_is_bounded_and_what_is_dropped_is_counted_and_said(chosen: CourierSettings, maker: AlertMaker) -> None:
    said: list[str] = []
    link = CourierLink(chosen.socket, DEPLOYMENT, limit=20_000, say=said.append)
    sent = [link.send(maker.alert(size=4000), "alert") for _ in range(10)]
    assert sent.count(False) == link.counts.dropped > 0
    assert any("an alert was lost" in line for line in said)
    kept = sent.count(True)
    assert link.close(0.1) == kept
    assert any(f"{kept} alert(s) could not be given to the courier" in line for line in said)


def test_a_newer_health_report_replaces_one_that_waits(
    chosen: CourierSettings, link: CourierLink, maker: AlertMaker
) -> None:
    for _ in range(100):
        link.send(maker.health(), "health")
    assert link.pending == 1
    courier = Courier(chosen)
    eventually(lambda: link.pending == 0)
    assert len(courier.healths) == 1
    assert courier.containers == []
    courier.stop()


def test_a_full_outbox_keeps_the_alert_in_vision_until_there_is_room(
    chosen: CourierSettings, link: CourierLink, maker: AlertMaker
) -> None:
    courier = Courier(chosen, rows=2)
    alerts = [maker.alert() for _ in range(3)]
    for alert in alerts:
        link.send(alert, "alert")
    eventually(lambda: link.pending == 1)
    time.sleep(0.2)
    assert link.pending == 1
    courier.outbox.delete([courier.outbox.rows(0, 1)[0].number])
    eventually(lambda: link.pending == 0)
    assert courier.containers == alerts[1:]
    courier.stop()


def test_a_full_disk_keeps_the_alert_in_vision_until_there_is_space(
    courier: Courier, link: CourierLink, maker: AlertMaker
) -> None:
    (pages,) = courier.outbox._db.execute("PRAGMA page_count").fetchone()
    courier.outbox._db.execute(f"PRAGMA max_page_count = {pages}")
    alert = maker.alert(size=16000)
    link.send(alert, "alert")
    time.sleep(0.3)
    assert (link.pending, courier.containers) == (1, [])
    courier.outbox._db.execute("PRAGMA max_page_count = 100000")
    eventually(lambda: link.pending == 0)
    assert courier.containers == [alert]


@pytest.mark.parametrize(
    "frame",
    [b"", b"GET / HTTP/1.1\r\n\r\n", b"\0" * 1000, b"BLUELAMP" + os.urandom(500)],
    ids=["empty", "http", "zeros", "forged"],
)
def test_what_is_no_container_is_refused_and_the_connection_ends(
    courier: Courier, chosen: CourierSettings, frame: bytes
) -> None:
    with speak(chosen) as stream:
        links.write_frame(stream, frame)
        body = links.read_frame(stream, links.HELLO_BYTES)
        assert body is None or Reply.model_validate_json(body).refused
        assert stream.recv(1) == b""
    assert courier.containers == []


def test_a_frame_that_claims_to_be_huge_is_refused_before_it_is_read(courier: Courier, chosen: CourierSettings) -> None:
    with speak(chosen) as stream:
        stream.sendall(struct.pack(">I", 2**32 - 1) + b"x" * 10)
        with pytest.raises((ConnectionResetError, AssertionError)):
            assert stream.recv(1) != b""
    eventually(lambda: any("a frame of 4294967295 bytes" in line for line in courier.said))


def test_another_units_container_and_a_watchlist_are_refused(
    courier: Courier, chosen: CourierSettings, machines: Machines, maker: AlertMaker
) -> None:
    for container in (AlertMaker(machines, "van-2").alert(), maker.seal("watchlist", "w", b"x", time.time(), 60)):
        with speak(chosen) as stream:
            links.write_frame(stream, container)
            reply = links.read_record(stream, Reply)
            assert reply.refused
            assert "this courier carries" in reply.error
    assert courier.containers == []


def test_a_refused_alert_is_counted_and_the_next_ones_go_on(
    courier: Courier, link: CourierLink, machines: Machines, maker: AlertMaker
) -> None:
    link.send(AlertMaker(machines, "van-2").alert(), "alert")
    mine = maker.alert()
    link.send(mine, "alert")
    eventually(lambda: link.pending == 0)
    assert courier.containers == [mine]
    assert link.counts.dropped == 1


def test_only_the_owner_can_reach_the_socket(courier: Courier, chosen: CourierSettings) -> None:
    assert chosen.socket.stat().st_mode & 0o777 == 0o600
    assert chosen.socket.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_is_refused_even_where_the_file_lets_it_in(settings: Settings) -> None:
    program = (
        "import os, socket, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534); "
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.settimeout(5); "
        "sys.exit(0 if s.recv(1) == b'' else 1)"
    )
    with tempfile.TemporaryDirectory() as folder:
        courier = Courier(settings(NOWHERE, socket=Path(folder) / "s"))
        Path(folder).chmod(0o755)
        courier.settings.socket.chmod(0o666)
        done = subprocess.run([sys.executable, "-S", "-c", program, str(courier.settings.socket)], capture_output=True)
        assert done.returncode == 0, done.stderr
        eventually(lambda: any("refused a process of user 65534" in line for line in courier.said))
        courier.stop()


def test_a_folder_others_can_write_is_no_place_for_the_socket(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(CourierError, match="a folder of its own, mode 0700"):
        Courier(settings(NOWHERE, socket=tmp_path / "open" / "s"))


def test_a_second_courier_on_the_same_socket_is_told_so(courier: Courier, chosen: CourierSettings) -> None:
    other = chosen.model_copy(update={"outbox": chosen.outbox.with_name("other")})
    with pytest.raises(CourierError, match="another courier is running"):
        Courier(other)


def test_a_socket_left_by_a_killed_courier_is_replaced(chosen: CourierSettings) -> None:
    chosen.socket.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(chosen.socket))
    Courier(chosen).stop()


def test_too_many_connections_are_refused(courier: Courier, chosen: CourierSettings) -> None:
    streams = [speak(chosen) for _ in range(4)]
    with pytest.raises((CourierError, OSError)):
        speak(chosen)
    for stream in streams:
        stream.close()
    eventually(lambda: _works(chosen))


def _works(chosen: CourierSettings) -> bool:
    try:
        speak(chosen).close()
    except (CourierError, OSError):
        return False
    return True
