"""No alert is lost and none arrives twice: killed couriers, killed brokers, refusals, wrong and expired certificates.

The broker, the certificates and the courier are real; only alerts are made by the test.
"""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import trustme

from appliance.courier.forward import SETTLE
from appliance.courier.server import run_courier, spawn
from appliance.errors import ConfigError, KeyFileError
from appliance.storage.files import write_private
from appliance.transport.mqtt import BrokerAddress
from appliance.transport.tls import HUNG_UP
from control.broker.broker import Broker, free_port
from control.receive.inbox import Reason
from tests.support.couriers import Listener, Settings, courier_in_thread, courier_process, linked, stored
from tests.support.machines import CONTROL, UNIT, AlertMaker, Machines, eventually, in_past, tls_of


def test_alerts_arrive_in_order_verified_and_opened_and_nothing_is_left(
    machines: Machines, shared_broker: Broker, settings: Settings, maker: AlertMaker
) -> None:
    chosen = settings(shared_broker.address)
    with Listener(machines, shared_broker.address) as listener:
        with courier_in_thread(chosen), linked(chosen) as link:
            for _ in range(20):
                link.send(maker.alert(size=16000), "alert")
            eventually(lambda: len(listener.sequences) == 20)
            assert listener.sequences == list(range(1, 21))
            link.send(maker.health(), "health")
            eventually(lambda: UNIT in listener.tail.healths)
            eventually(lambda: listener.tail.units[UNIT].state == "online")
        eventually(lambda: listener.tail.units[UNIT].state == "offline")
    assert not listener.tail.inbox.refused
    assert stored(chosen) == 0


def test_alerts_wait_while_the_broker_is_away_at_the_start(
    machines: Machines, broker: Broker, settings: Settings, maker: AlertMaker
) -> None:
    broker.stop()
    chosen = settings(broker.address)
    with courier_in_thread(chosen) as said, linked(chosen) as link:
        for _ in range(5):
            link.send(maker.alert(), "alert")
        eventually(lambda: link.pending == 0)
        eventually(lambda: any("cannot be reached" in line for line in said))
        broker.start()
        with Listener(machines, broker.address) as listener:
            eventually(lambda: listener.sequences == [1, 2, 3, 4, 5])


def test_alerts_nobody_has_subscribed_to_are_kept(
    machines: Machines, broker: Broker, settings: Settings, maker: AlertMaker
) -> None:
    """The broker would acknowledge them and throw them away (0x10)."""
    chosen = settings(broker.address)
    with courier_in_thread(chosen) as said, linked(chosen) as link:
        for _ in range(3):
            link.send(maker.alert(), "alert")
        eventually(lambda: any("no control room is subscribed" in line for line in said))
        with Listener(machines, broker.address) as listener:
            eventually(lambda: sorted(listener.sequences) == [1, 2, 3])


def test_the_broker_keeps_alerts_for_a_control_room_that_is_away(
    machines: Machines, broker: Broker, settings: Settings, maker: AlertMaker
) -> None:
    chosen = settings(broker.address, settle_seconds=SETTLE)
    with Listener(machines, broker.address):
        pass
    with courier_in_thread(chosen), linked(chosen) as link:
        for _ in range(3):
            link.send(maker.alert(), "alert")
        eventually(lambda: link.pending == 0)
    assert stored(chosen) == 0
    broker.kill()
    broker.start()
    with Listener(machines, broker.address) as listener:
        eventually(lambda: listener.sequences == [1, 2, 3])


def test_a_courier_killed_between_storing_and_publishing_loses_nothing(
    machines: Machines, shared_broker: Broker, settings: Settings, maker: AlertMaker
) -> None:
    chosen = settings(shared_broker.address)
    offline = settings(BrokerAddress(host="127.0.0.1", port=free_port()))
    with linked(chosen) as link:
        with courier_process(offline) as process:
            for _ in range(5):
                link.send(maker.alert(), "alert")
            eventually(lambda: link.pending == 0)
            process.send_signal(signal.SIGKILL)
            process.wait()
        with Listener(machines, shared_broker.address) as listener, courier_in_thread(chosen):
            link.send(maker.alert(), "alert")
            eventually(lambda: listener.sequences == [1, 2, 3, 4, 5, 6])
            assert link.greeting is not None
            assert (link.greeting.chain, link.greeting.sequence) == (maker.chain, 5)


def test_a_courier_killed_again_and_again_while_alerts_flow_loses_and_repeats_nothing(
    machines: Machines, shared_broker: Broker, settings: Settings, maker: AlertMaker
) -> None:
    chosen = settings(shared_broker.address)
    wanted = 60
    with Listener(machines, shared_broker.address) as listener, linked(chosen) as link:
        for burst in range(3):
            with courier_process(chosen) as process:
                for _ in range(wanted // 3):
                    link.send(maker.alert(size=4000), "alert")
                    time.sleep(0.005)
                eventually(lambda start=burst * 20: len(set(listener.sequences)) > start + 5)  # type: ignore[misc]
                process.send_signal(signal.SIGKILL)
                process.wait()
        with courier_process(chosen):
            eventually(lambda: len(listener.sequences) >= wanted)
            time.sleep(0.5)
    assert sorted(listener.sequences) == list(range(1, wanted + 1))


def test_a_broker_killed_again_and_again_while_alerts_flow_loses_and_repeats_nothing(
    machines: Machines, broker: Broker, settings: Settings, maker: AlertMaker
) -> None:
    chosen = settings(broker.address, settle_seconds=SETTLE)
    wanted = 60
    with Listener(machines, broker.address) as listener, courier_in_thread(chosen), linked(chosen) as link:
        for _ in range(3):
            for _ in range(wanted // 3):
                link.send(maker.alert(size=4000), "alert")
                time.sleep(0.005)
            broker.kill()
            broker.start()
        eventually(lambda: len(listener.sequences) >= wanted, 30)
        time.sleep(0.5)
    assert sorted(listener.sequences) == list(range(1, wanted + 1))


def test_what_the_access_list_denies_stays_in_the_outbox_until_it_is_allowed(
    machines: Machines, broker: Broker, settings: Settings, maker: AlertMaker
) -> None:
    """MQTT 3.1.1 would have reported success; MQTT 5 says 0x87."""
    chosen = settings(broker.address)
    broker.allow([], f"pattern write bluelamp/v1/%u/state\nuser {CONTROL}\ntopic read bluelamp/v1/#\n")
    broker.reload()
    with Listener(machines, broker.address) as listener, courier_in_thread(chosen) as said, linked(chosen) as link:
        for _ in range(3):
            link.send(maker.alert(), "alert")
        eventually(lambda: any("not authorised" in line and "it is kept" in line for line in said))
        assert listener.sequences == []
        broker.allow([CONTROL])
        broker.reload()
        eventually(lambda: sorted(listener.sequences) == [1, 2, 3])


def test_a_stopped_courier_flushes_and_says_goodbye(
    machines: Machines, shared_broker: Broker, settings: Settings, maker: AlertMaker
) -> None:
    chosen = settings(shared_broker.address)
    with Listener(machines, shared_broker.address) as listener, courier_process(chosen) as process:
        with linked(chosen) as link:
            for _ in range(10):
                link.send(maker.alert(), "alert")
            eventually(lambda: link.pending == 0)
        process.terminate()
        assert process.wait(15) == 0
        eventually(lambda: len(listener.sequences) == 10)
        eventually(lambda: listener.tail.units[UNIT].state == "offline")
    assert stored(chosen) == 0
    assert not chosen.socket.exists()


def test_a_courier_ends_when_its_parent_is_gone(settings: Settings, shared_broker: Broker) -> None:
    with courier_process(settings(shared_broker.address)) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(15) == 0


def test_a_killed_courier_leaves_its_last_will(machines: Machines, shared_broker: Broker, settings: Settings) -> None:
    chosen = settings(shared_broker.address)
    with Listener(machines, shared_broker.address) as listener, courier_process(chosen) as process:
        eventually(lambda: UNIT in listener.tail.units and listener.tail.units[UNIT].state == "online")
        process.kill()
        eventually(lambda: listener.tail.units[UNIT].state == "offline")


def test_a_second_unit_of_the_same_name_is_said_clearly_and_loses_nothing(
    machines: Machines, broker: Broker, settings: Settings, maker: AlertMaker, tmp_path: Path
) -> None:
    first = settings(broker.address)
    two = tmp_path / "two"
    second = settings(broker.address, socket=two / "s", outbox=two / "o.sqlite", flush_seconds=0.2)
    with Listener(machines, broker.address) as listener, courier_in_thread(first) as said, linked(first) as link:
        eventually(lambda: any("connected" in line for line in said))
        with courier_in_thread(second):
            eventually(lambda: any("must not share one certificate" in line for line in said))
            link.send(maker.alert(), "alert")
            eventually(lambda: listener.sequences == [1])


def test_a_certificate_of_another_authority_is_refused_and_the_alerts_are_kept(
    machines: Machines, shared_broker: Broker, settings: Settings, maker: AlertMaker, tmp_path: Path
) -> None:
    other = Machines(tmp_path, trustme.CA())
    other.certify(tmp_path / "keys", UNIT)
    machines.ca.cert_pem.write_to_path(tmp_path / "keys" / "ca.crt")  # it believes the broker, not the reverse
    chosen = settings(shared_broker.address, tls=tls_of(tmp_path / "keys"), flush_seconds=0.2)
    with courier_in_thread(chosen) as said, linked(chosen) as link:
        link.send(maker.alert(), "alert")
        eventually(lambda: link.pending == 0)
        eventually(lambda: any("the authority of our certificate" in line or HUNG_UP in line for line in said))
    assert stored(chosen) == 1


def test_a_broker_of_another_authority_is_not_believed(
    shared_broker: Broker, settings: Settings, machines: Machines, tmp_path: Path
) -> None:
    machines.certify(tmp_path / "keys", UNIT)
    trustme.CA().cert_pem.write_to_path(tmp_path / "keys" / "ca.crt")
    with courier_in_thread(settings(shared_broker.address, tls=tls_of(tmp_path / "keys"))) as said:
        eventually(lambda: any("not by our authority" in line for line in said))


def test_an_expired_certificate_is_said_and_the_alerts_are_kept(
    machines: Machines, shared_broker: Broker, settings: Settings, maker: AlertMaker, tmp_path: Path
) -> None:
    machines.certify(tmp_path / "keys", UNIT, not_after=in_past())
    chosen = settings(shared_broker.address, tls=tls_of(tmp_path / "keys"), flush_seconds=0.2)
    with courier_in_thread(chosen) as said, linked(chosen) as link:
        link.send(maker.alert(), "alert")
        eventually(lambda: any("expired on" in line for line in said))
        eventually(lambda: link.pending == 0)
    assert stored(chosen) == 1


def test_a_broker_name_that_its_certificate_does_not_hold_is_refused(
    broker: Broker, settings: Settings, machines: Machines
) -> None:
    chosen = settings(BrokerAddress(host="127.0.0.2", port=broker.address.port))
    elsewhere = Broker(machines.broker, [CONTROL], broker._folder, chosen.broker)
    broker.stop()
    elsewhere.start()
    with courier_in_thread(chosen) as said:
        eventually(lambda: any("for another address" in line for line in said))
    elsewhere.stop()


def test_another_units_certificate_is_refused_before_anything_starts(
    machines: Machines, settings: Settings, shared_broker: Broker
) -> None:
    with pytest.raises(ConfigError, match="issued to 'van-2', but this unit is 'van-1'"):
        run_courier(settings(shared_broker.address, tls=machines.tls("van-2")))


def test_missing_or_mixed_tls_files_are_one_clear_error(
    machines: Machines, settings: Settings, shared_broker: Broker, tmp_path: Path
) -> None:
    machines.certify(tmp_path / "keys", UNIT)
    write_private(tmp_path / "keys" / "tls.key", (machines.folders["van-2"] / "tls.key").read_bytes())
    with pytest.raises(KeyFileError, match="do not belong together"):
        run_courier(settings(shared_broker.address, tls=tls_of(tmp_path / "keys")))
    (tmp_path / "keys" / "tls.key").unlink()
    with pytest.raises(KeyFileError, match=r"tls\.key"):
        run_courier(settings(shared_broker.address, tls=tls_of(tmp_path / "keys")))


def test_expired_alerts_are_counted_and_said(
    machines: Machines, broker: Broker, settings: Settings, maker: AlertMaker
) -> None:
    broker.stop()
    chosen = settings(broker.address)
    with courier_in_thread(chosen.model_copy(update={"flush_seconds": 0.2})), linked(chosen) as link:
        link.send(maker.alert(lifetime=0.5), "alert")
        link.send(maker.alert(), "alert")
        eventually(lambda: link.pending == 0)
    time.sleep(0.6)
    broker.start()
    with Listener(machines, broker.address) as listener, courier_in_thread(chosen) as said:
        eventually(lambda: listener.sequences == [2])
        eventually(lambda: any("1 envelope(s) expired" in line for line in said))


def test_a_broker_killed_at_the_moment_of_its_acknowledgement_gets_the_alerts_again(
    machines: Machines, broker: Broker, settings: Settings, maker: AlertMaker
) -> None:
    """The control room is away, so the broker alone has them, and its disk does not have them yet."""
    with Listener(machines, broker.address):
        pass
    time.sleep(2.5)  # the session itself is on the broker's disk
    chosen = settings(broker.address, settle_seconds=SETTLE)
    with courier_in_thread(chosen) as said, linked(chosen) as link:
        eventually(lambda: any("connected" in line for line in said))
        for _ in range(5):
            link.send(maker.alert(), "alert")
        eventually(lambda: link.pending == 0)
        eventually(lambda: link.send(maker.health(), "health") and link.counts.queued == 0)  # all acknowledged
        broker.kill()
        broker.start()
        with Listener(machines, broker.address) as listener:
            eventually(lambda: listener.sequences == [1, 2, 3, 4, 5])


def test_a_full_disk_is_survived_and_clears_itself_once_the_broker_is_back(
    machines: Machines, broker: Broker, settings: Settings, maker: AlertMaker, small_disk: Path
) -> None:
    """Deleting needs space too: it must not be what a full disk prevents."""
    broker.stop()
    chosen = settings(broker.address, outbox=small_disk / "o.sqlite")
    wanted = 200
    with courier_in_thread(chosen), linked(chosen) as link:
        for _ in range(wanted):
            link.send(maker.alert(size=16000), "alert")
        eventually(lambda: 0 < link.pending < wanted)
        time.sleep(1)
        assert link.pending > 0
        broker.start()
        with Listener(machines, broker.address) as listener:
            eventually(lambda: sorted(listener.sequences) == list(range(1, wanted + 1)), 60)
    assert stored(chosen) == 0


def test_a_socket_that_systemd_passed_is_used_and_left_alone(
    machines: Machines, shared_broker: Broker, settings: Settings, maker: AlertMaker, tmp_path: Path
) -> None:
    chosen = settings(shared_broker.address)
    (tmp_path / "courier.json").write_text(chosen.model_dump_json())
    chosen.socket.parent.mkdir(mode=0o700)
    starter = (
        "import os, socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); "
        "os.dup2(s.fileno(), 3); os.set_inheritable(3, True); os.environ['LISTEN_PID'] = str(os.getpid()); "
        "os.execv(sys.executable, [sys.executable, '-m', 'appliance.courier', '--config', sys.argv[2]])"
    )
    arguments = [sys.executable, "-c", starter, str(chosen.socket), str(tmp_path / "courier.json")]
    process = subprocess.Popen(arguments)
    try:
        with Listener(machines, shared_broker.address) as listener:
            eventually(chosen.socket.exists)
            with linked(chosen) as link:
                link.send(maker.alert(), "alert")
                eventually(lambda: listener.sequences == [1])
        process.terminate()
        assert process.wait(20) == 0
        assert chosen.socket.exists()
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [("{", 2, "courier settings"), ('{"unit": "van-1", "brokr": 1}', 2, "broker"), (None, 7, "No such file")],
)
def test_wrong_settings_are_one_clear_line(tmp_path: Path, text: str | None, code: int, words: str) -> None:
    path = tmp_path / "courier.json"
    if text is not None:
        path.write_text(text)
    command = [sys.executable, "-m", "appliance.courier", "--config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


class Wire:
    """A network between a client and a broker that can go silent without hanging up."""

    def __init__(self, to: BrokerAddress) -> None:
        self._to, self.silent = to, threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = BrokerAddress(host="127.0.0.1", port=self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection((self._to.host, self._to.port))
            except OSError:
                return
            for pair in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        dead = False
        try:
            while data := source.recv(65536):
                dead = dead or self.silent.is_set()
                if not dead:
                    sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)
        except OSError:
            return


@pytest.mark.slow
def test_a_link_that_goes_silent_is_noticed_and_nothing_is_lost(
    machines: Machines, broker: Broker, settings: Settings, maker: AlertMaker
) -> None:
    wire = Wire(broker.address)
    chosen = settings(wire.address)
    with Listener(machines, broker.address) as listener, courier_in_thread(chosen), linked(chosen) as link:
        link.send(maker.alert(), "alert")
        eventually(lambda: listener.sequences == [1])
        wire.silent.set()
        link.send(maker.alert(), "alert")
        time.sleep(5)
        assert listener.sequences == [1]
        wire.silent.clear()  # the old connection stays dead: only a new one gets through
        eventually(lambda: listener.sequences == [1, 2], 60)
    wire.close()


@pytest.mark.slow
def test_everything_is_killed_at_random_for_a_minute_and_nothing_is_lost_or_repeated(
    machines: Machines, broker: Broker, settings: Settings, maker: AlertMaker
) -> None:
    chance = random.Random(7)
    chosen = settings(broker.address, settle_seconds=SETTLE)
    with Listener(machines, broker.address) as listener, linked(chosen) as link:
        process = spawn(chosen)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            for _ in range(chance.randrange(8)):
                link.send(maker.alert(size=chance.randrange(8000)), "alert")
            time.sleep(chance.random())
            if chance.random() < 0.15:
                process.kill()
                process.wait()
                process = spawn(chosen)
            if chance.random() < 0.15:
                broker.kill()
                broker.start()
        eventually(lambda: len(listener.sequences) >= maker.sequence, 60)
        process.terminate()
        assert process.wait(20) == 0
        assert sorted(listener.sequences) == list(range(1, maker.sequence + 1))
        assert set(listener.tail.inbox.refused) <= {Reason.DUPLICATE}
    assert stored(chosen) == 0
