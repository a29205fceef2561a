"""`bluelamp-control serve`: everything starts in order, ends in reverse, and nothing is lost in between."""

from __future__ import annotations

import http.client
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from appliance.errors import BluelampError, ConfigError
from control.broker.broker import Broker, free_port
from control.cli import app
from control.ledger import retention
from control.ledger.ledger import Ledger, LedgerError
from control.listen import Listen
from control.people.people import People
from control.room import Room
from control.service.service import Service, ServiceError, ServiceSettings
from tests.support.couriers import publish
from tests.support.machines import CONTROL, UNIT, AlertMaker, Machines, eventually


@contextmanager
def serving(
    machines: Machines, broker: Broker, store: Path, **changes: object
) -> Iterator[tuple[Service, Room, list[str]]]:
    """A service in this process, until the block ends; what it said is in the list."""
    said: list[str] = []
    rooms: list[Room] = []
    fields = {"keys": machines.folders[CONTROL], "broker": broker.address, "store": store,
              "listen": Listen(host="127.0.0.1", port=0), **changes}  # fmt: skip
    service = Service(ServiceSettings(**fields), said.append)  # type: ignore[arg-type]
    failures: list[BaseException] = []

    def run() -> None:
        try:
            service.run(rooms.append)
        except BluelampError as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        eventually(lambda: rooms or failures)
        if failures:
            raise failures[0]
        eventually(lambda: rooms[0].fleet.broker().connected)
        yield service, rooms[0], said
    finally:
        service.stop()
        thread.join(30)
    if failures:
        raise failures[0]


def test_it_receives_shows_and_stops_in_reverse(
    machines: Machines, shared_broker: Broker, tmp_path: Path, maker: AlertMaker
) -> None:
    store = tmp_path / "store"
    with serving(machines, shared_broker, store, metrics=Listen(host="127.0.0.1", port=free_port())) as (
        service, room, said,
    ):  # fmt: skip
        publish(machines, shared_broker, UNIT, maker.alert())
        eventually(lambda: room.ledger.cases())
        answer = httpx.get(f"{service.address}/sign-in", follow_redirects=True)
        assert answer.status_code == 200
        assert "default-src" in answer.headers["content-security-policy"]
        with pytest.raises(LedgerError, match="another process uses this store"):
            Ledger(store)
        threads = {t.name for t in threading.enumerate()}
        assert {"receiver", "keeper", "console"} <= threads
    assert said[-1].startswith("stopping")
    assert not {"receiver", "keeper", "console"} & {t.name for t in threading.enumerate()}
    with closing(Ledger(store)) as ledger:
        assert len(ledger.cases()) == 1
    with pytest.raises(httpx.ConnectError):
        httpx.get(service.address)


def test_the_first_start_prints_a_token_for_the_first_supervisor_and_later_ones_do_not(
    machines: Machines, shared_broker: Broker, tmp_path: Path
) -> None:
    with serving(machines, shared_broker, tmp_path / "store") as (service, room, said):
        line = next(line for line in said if "one-time token" in line)
        token = re.search(r"token: ([A-Z2-7-]+)$", line)
        assert token is not None
        assert f"{service.address}/welcome" in line
        member = room.people.accept(token.group(1), "four random words here", "sue")
        assert member.role == "supervisor"
    with serving(machines, shared_broker, tmp_path / "store") as (_, _, said):
        assert not any("token" in line for line in said)


def test_with_tls_it_answers_by_its_certificates_name_and_not_without_tls(
    machines: Machines, shared_broker: Broker, tmp_path: Path
) -> None:
    files = machines.folders["broker"]
    trust = ssl.create_default_context(cafile=str(files / "ca.crt"))
    with serving(machines, shared_broker, tmp_path / "store", tls=files) as (service, _, _):
        assert service.address.startswith("https://")
        answer = httpx.get(f"{service.address}/sign-in", verify=trust, follow_redirects=True)
        assert answer.status_code == 200
        port = int(service.address.rpartition(":")[2])
        with pytest.raises((http.client.HTTPException, OSError)):
            plain = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            plain.request("GET", "/sign-in")
            plain.getresponse()
        old = ssl.create_default_context(cafile=str(files / "ca.crt"))
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError), socket.create_connection(("127.0.0.1", port), 5) as raw:
            old.wrap_socket(raw, server_hostname="127.0.0.1")


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.7"])
def test_an_address_others_can_reach_is_refused_without_tls(
    machines: Machines, shared_broker: Broker, tmp_path: Path, address: str
) -> None:
    with (
        pytest.raises(ConfigError, match="faces would travel unencrypted"),
        serving(machines, shared_broker, tmp_path / "store", listen=Listen(host=address, port=0)),
    ):
        pass
    assert not (tmp_path / "store").exists()


def test_mistakes_are_one_clear_line(machines: Machines, shared_broker: Broker, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = Listen(host="127.0.0.1", port=taken.getsockname()[1])
        with (
            pytest.raises(ConfigError, match="cannot listen there"),
            serving(machines, shared_broker, tmp_path / "store", listen=port),
        ):
            pass
    with (
        pytest.raises(ConfigError, match="keys of a unit"),
        serving(machines, shared_broker, tmp_path / "store", keys=machines.folders[UNIT]),
    ):
        pass
    with (
        pytest.raises(BluelampError, match=r"server\.crt"),
        serving(machines, shared_broker, tmp_path / "store", tls=tmp_path),
    ):
        pass
    for wrong in ("8443", "host:x", "127.0.0.1:99999"):
        arguments = ["serve", "--keys", str(machines.folders[CONTROL]), "--broker", "localhost:1", "--store",
                     str(tmp_path / "s"), "--listen", wrong]  # fmt: skip
        assert "ADDRESS:PORT" in str(CliRunner().invoke(app, arguments).exception)


def test_a_part_that_fails_ends_the_whole_and_says_so(
    machines: Machines, shared_broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that shows old alerts and receives none would be worse than one that is down."""
    with (
        pytest.raises(ServiceError, match="ended by a fault of its own"),
        serving(machines, shared_broker, tmp_path / "store") as (_, _, said),
    ):
        monkeypatch.setattr(retention, "purge", lambda *_: 1 / 0)
        eventually(lambda: said[-1].startswith("stopping"))


def test_sigterm_is_a_normal_end_and_a_killed_service_loses_nothing(
    machines: Machines, broker: Broker, tmp_path: Path, maker: AlertMaker
) -> None:
    store = tmp_path / "store"
    People(store).close()

    @contextmanager
    def process() -> Iterator[subprocess.Popen[str]]:
        command = [sys.executable, "-m", "control.cli", "serve", "--keys", str(machines.folders[CONTROL]), "--broker",
                   str(broker.address), "--store", str(store), "--listen", "127.0.0.1:0"]  # fmt: skip
        started = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert started.stderr is not None
        lines = [started.stderr.readline() for _ in range(3)]
        assert any("console: http://127.0.0.1:" in line for line in lines), lines
        try:
            yield started
        finally:
            started.kill()
            started.communicate()

    with process() as first:
        publish(machines, broker, UNIT, maker.alert())
        first.send_signal(signal.SIGKILL)
        first.wait(10)
    publish(machines, broker, UNIT, maker.alert())
    with process() as second:
        path = store / "ledger.sqlite"
        eventually(lambda: path.exists())
        second.send_signal(signal.SIGTERM)
        assert second.wait(20) == 0
    with serving(machines, broker, store) as (_, room, _):
        eventually(lambda: len(room.ledger.cases()) == 2)
        assert all(len(case.notes) <= 1 for case in room.ledger.cases())
