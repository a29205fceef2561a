"""`bluelamp-control tail` as an operator runs it: another process, real broker, real exit codes."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from appliance.courier.settings import CourierSettings
from appliance.errors import BluelampError, ConfigError
from appliance.records import Alert
from appliance.storage.files import write_public
from appliance.transport.mqtt import BrokerAddress
from appliance.trust import keys
from control.broker.broker import Broker
from control.receive.subscriber import Subscriber, client_id
from control.receive.tail import Tail, Until, tail_table
from tests.support.couriers import Listener, courier_in_thread, linked, publish
from tests.support.machines import CONTROL, DEPLOYMENT, UNIT, AlertMaker, Machines, eventually

Settings = Callable[..., CourierSettings]


@contextmanager
def tail(machines: Machines, broker: Broker, *options: str) -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "control.cli", "tail", "--keys", str(machines.folders[CONTROL]),
               "--broker", str(broker.address), *options]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_json_prints_one_line_for_each_alert_and_ends_after_count(
    machines: Machines, broker: Broker, settings: Settings, maker: AlertMaker
) -> None:
    chosen = settings(broker.address)
    with (
        tail(machines, broker, "--json", "--count", "3", "--seconds", "60") as process,
        courier_in_thread(chosen),
        linked(chosen) as link,
    ):
        for _ in range(3):
            link.send(maker.alert(size=2000), "alert")
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["sequence"] for line in lines] == [1, 2, 3]
    assert set(Alert.model_fields) - {"chip"} | {"received", "latency", "notes"} == set(lines[0])
    assert 0 <= lines[0]["latency"] < 60
    assert "3 alert(s), 0 missing; refused: none" in err


def test_the_table_shows_alerts_refusals_and_units(
    machines: Machines, broker: Broker, settings: Settings, maker: AlertMaker
) -> None:
    chosen = settings(broker.address)
    screen = io.StringIO()
    shown = Tail(machines.folders[CONTROL], broker.address, Until())
    console = Console(file=screen, width=160)
    thread = threading.Thread(target=tail_table, args=(shown, console))
    thread.start()
    with courier_in_thread(chosen), linked(chosen) as link:
        link.send(maker.alert(reference_identifier="R-77"), "alert")
        eventually(lambda: shown.alerts == 1)
        publish(machines, broker, UNIT, b"rubbish")
        publish(machines, broker, "van-x", AlertMaker(machines, "van-x").alert())
        eventually(lambda: shown.inbox.refused.total() == 2)
    shown.subscriber.stop()
    thread.join(10)
    out = screen.getvalue()
    assert "Alerts: a machine asks, a human decides" in out
    assert "R-77" in out
    assert "1 alert(s), 0 missing" in out
    assert "not a sealed container 1" in out
    assert "unit is not on the roster 1" in out
    assert f"{UNIT}: o" in out


def test_ctrl_c_is_the_normal_end(machines: Machines, broker: Broker) -> None:
    with tail(machines, broker, "--json") as process:
        assert process.stderr is not None
        assert "subscribed" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "0 alert(s)" in err


def test_too_few_alerts_in_time_is_an_error(machines: Machines, broker: Broker) -> None:
    with tail(machines, broker, "--json", "--count", "1", "--seconds", "0.5") as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 9
    assert "0 of 1 alerts came in 0.5 s" in err


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--broker", "nonsense:port"), 2, "write HOST:PORT"),
        (("--keys", "{empty}"), 6, "identity.json"),
        (("--keys", "/nonexistent"), 2, "does not exist"),
        (("--count", "0"), 2, "greater than or equal to 1"),
    ],
)
def test_mistakes_are_one_clear_line(
    machines: Machines, shared_broker: Broker, tmp_path: Path, options: tuple[str, str], code: int, words: str
) -> None:
    chosen = [option.format(empty=tmp_path) for option in options]
    with tail(machines, shared_broker, *chosen) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert words in err
    assert "Traceback" not in err


def test_a_broker_that_is_away_is_said_and_awaited(machines: Machines, broker: Broker) -> None:
    broker.stop()
    said: list[str] = []
    waiting = Tail(machines.folders[CONTROL], broker.address, Until())
    thread = threading.Thread(target=waiting.run, args=(lambda opened: None, said.append))
    thread.start()
    eventually(lambda: any("cannot be reached" in line for line in said))
    broker.start()
    eventually(lambda: any("subscribed at broker" in line for line in said))
    waiting.subscriber.stop()
    thread.join(10)


def test_what_was_not_handled_comes_again(machines: Machines, broker: Broker, maker: AlertMaker) -> None:
    """A screen that dies while it shows an alert has not taken it from the broker."""
    files = machines.tls(CONTROL)
    session = client_id(CONTROL, "fails", files)

    def fail(message: object) -> None:
        raise OSError("disk full")

    broken = Subscriber(broker.address, files, session, fail, status=lambda line: None)
    caught: list[BaseException] = []

    def run() -> None:
        try:
            broken.run()
        except OSError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    eventually(lambda: broken.connected)
    publish(machines, broker, UNIT, maker.alert())
    thread.join(10)
    assert [str(error) for error in caught] == ["disk full"]
    with Listener(machines, broker.address, "fails") as listener:
        eventually(lambda: listener.sequences == [1])


def test_two_screens_both_see_every_alert(
    machines: Machines, broker: Broker, settings: Settings, maker: AlertMaker
) -> None:
    chosen = settings(broker.address)
    with (
        Listener(machines, broker.address, "one") as one,
        Listener(machines, broker.address, "two") as two,
        courier_in_thread(chosen),
        linked(chosen) as link,
    ):
        link.send(maker.alert(), "alert")
        eventually(lambda: one.sequences == two.sequences == [1])


def test_a_unit_that_is_admitted_while_tail_runs_is_heard_without_a_restart(
    machines: Machines, broker: Broker, tmp_path: Path
) -> None:
    folder = machines.folders[CONTROL]
    before = (folder / "roster.json").read_bytes()
    stranger = AlertMaker(machines, "van-x")
    try:
        with Listener(machines, broker.address) as listener:
            publish(machines, broker, "van-x", stranger.alert())
            eventually(lambda: len(listener.tail.inbox.quarantine) == 1)
            roster = machines.keys(CONTROL).roster
            units = (*roster.units, machines.keys("van-x").identity)
            newer = roster.model_copy(update={"version": 2, "units": units})
            authority = machines.keys("base").signer
            write_public(folder / "roster.json", keys.sign_roster(newer, authority))
            publish(machines, broker, "van-x", stranger.alert())
            eventually(lambda: listener.sequences == [1, 2])
            assert any("roster version 2" in line for line in listener.said)
    finally:
        write_public(folder / "roster.json", before)


def test_session_names_cannot_be_guessed(machines: Machines) -> None:
    """Whoever connects with a control room's session name would take over its queue of alerts."""
    name = client_id(CONTROL, "tail", machines.tls(CONTROL))
    assert name.startswith(f"{CONTROL}-tail-")
    assert name == client_id(CONTROL, "tail", machines.tls(CONTROL))
    assert name != client_id(CONTROL, "tail", machines.tls(UNIT))
    assert DEPLOYMENT not in name


def test_broker_addresses_are_read_as_people_write_them() -> None:
    assert BrokerAddress.parse("h:1") == BrokerAddress(host="h", port=1)
    assert BrokerAddress.parse("h").port == 8883
    assert BrokerAddress.parse("[::1]:8883").host == "::1"
    assert BrokerAddress.parse("mqtts://control:8883") == BrokerAddress(host="control", port=8883)
    assert BrokerAddress.parse("MQTTS://control").port == 8883


@pytest.mark.parametrize("text", ["mqtt://control:1883", "https://control:8883", "mqtts://control:8883/x", "mqtts://"])
def test_other_schemes_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match="write HOST:PORT"):
        BrokerAddress.parse(text)


def test_a_tail_that_never_connected_fails(machines: Machines) -> None:
    nobody = BrokerAddress(host="127.0.0.1", port=9)
    waiting = Tail(machines.folders[CONTROL], nobody, Until(seconds=1.0))
    with pytest.raises(BluelampError, match="never connected") as caught:
        waiting.run(lambda opened: None, lambda line: None)
    assert caught.value.exit_code == 10
