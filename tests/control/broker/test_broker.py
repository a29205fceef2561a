"""The broker as the project ships it: TLS 1.3, certificates, a unit writes only its own topics."""

from __future__ import annotations

import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.pace import Wake
from appliance.transport.mqtt import REFUSED, Connection, Handlers, Message, MqttError, Peer, Received, topic
from appliance.transport.tls import TlsFiles, tls_context
from control.broker import broker as brokers
from control.broker.broker import Broker, BrokerError, BrokerFiles, free_port, render_acl, render_config, running_broker
from tests.support.machines import CONTROL, Machines, tls_of


class Client:
    """A connection that remembers what it hears."""

    def __init__(self, broker: Broker, files: TlsFiles, name: str) -> None:
        self.answers: dict[int, int] = {}
        self.received: list[Received] = []
        self.subscribed: list[int] = []
        handlers = Handlers(self.answers.__setitem__, self.received.append, self.subscribed.append)
        self.connection = Connection(Peer(broker.address, files, name), handlers, Wake())
        self.connection.open()

    def publish(self, where: str, body: bytes = b"x", retain: bool = False) -> int:
        """The broker's reason code."""
        mid = self.connection.publish(Message(where, body, retain=retain))
        while mid not in self.answers:
            self.connection.step(0.2)
        return self.answers[mid]

    def subscribe(self, *filters: str) -> None:
        self.connection.subscribe(list(filters))
        while not self.subscribed:
            self.connection.step(0.2)


def test_a_unit_writes_its_own_four_topics_and_no_other(machines: Machines, shared_broker: Broker) -> None:
    unit = Client(shared_broker, machines.tls("van-1"), "van-1-x")
    for kind in ("alert", "health", "receipt", "state"):
        assert unit.publish(topic("van-1", kind)) < REFUSED
    for where in (topic("van-2", "alert"), topic("van-1", "other"), "bluelamp/v1/van-1", "elsewhere", "$SYS/x"):
        assert unit.publish(where) == 0x87
    unit.connection.close()


def test_a_unit_reads_nothing_and_a_control_room_everything(machines: Machines, shared_broker: Broker) -> None:
    curious = Client(shared_broker, machines.tls("van-2"), "van-2-x")
    curious.subscribe("#", topic("van-1", "alert"), topic("van-1", "recall"))
    control = Client(shared_broker, machines.tls(CONTROL), "control-x")
    control.subscribe("bluelamp/v1/+/alert")
    unit = Client(shared_broker, machines.tls("van-1"), "van-1-y")
    assert unit.publish(topic("van-1", "alert"), b"sealed") == 0
    control.connection.step(1)
    curious.connection.step(0.3)
    assert [m.payload for m in control.received] == [b"sealed"]
    assert curious.received == []
    for client in (curious, control, unit):
        client.connection.close()


def test_a_control_room_writes_recalls_and_nothing_else_of_a_unit(machines: Machines, shared_broker: Broker) -> None:
    """A unit reads its own recalls only, and cannot recall another."""
    control = Client(shared_broker, machines.tls(CONTROL), "control-y")
    units = [Client(shared_broker, machines.tls(name), f"{name}-r") for name in ("van-1", "van-2")]
    for unit in units:
        unit.subscribe("bluelamp/v1/+/recall")
    assert control.publish(topic("van-1", "alert")) == 0x87
    assert control.publish(topic("van-1", "recall"), b"stop") < REFUSED
    assert units[1].publish(topic("van-1", "recall")) == 0x87
    for unit in units:
        unit.connection.step(0.5)
    assert [[m.payload for m in unit.received] for unit in units] == [[b"stop"], []]
    for client in (control, *units):
        client.connection.close()


def test_no_certificate_no_connection(machines: Machines, shared_broker: Broker) -> None:
    context = ssl.create_default_context(cafile=str(machines.tls("van-1").ca))
    with pytest.raises((ssl.SSLError, ConnectionError)):  # noqa: SIM117 - two different things may fail
        with socket.create_connection((shared_broker.address.host, shared_broker.address.port)) as raw:
            with context.wrap_socket(raw, server_hostname="127.0.0.1") as stream:
                assert stream.recv(1)  # TLS 1.3 reports it with the first read
                raise AssertionError("the broker talks to somebody without a certificate")


def test_nothing_older_than_tls_1_3(machines: Machines, shared_broker: Broker) -> None:
    context = tls_context(machines.tls("van-1"))
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2
    with (
        pytest.raises(ssl.SSLError),
        socket.create_connection((shared_broker.address.host, shared_broker.address.port)) as raw,
    ):
        context.wrap_socket(raw, server_hostname="127.0.0.1")


def test_a_message_larger_than_ours_can_be_is_refused(machines: Machines, shared_broker: Broker) -> None:
    unit = Client(shared_broker, machines.tls("van-1"), "van-1-z")
    with pytest.raises(MqttError):
        assert unit.publish(topic("van-1", "alert"), b"x" * 100_000) < REFUSED


def test_the_shipped_files_are_what_is_run(machines: Machines, tmp_path: Path) -> None:
    shipped = (Path(brokers.__file__).parent / "mosquitto" / "mosquitto.conf").read_text()
    rendered = render_config(machines.broker, brokers.BrokerAddress(host="127.0.0.1", port=1), tmp_path)
    different = [a for a, b in zip(shipped.splitlines(), rendered.splitlines(), strict=False) if a != b]
    own = ("listener", "cafile", "certfile", "keyfile", "crlfile", "acl_file", "persistence_location")
    lines = [line for line in shipped.splitlines() if line.split(" ")[0] not in own]
    assert [line for line in rendered.splitlines() if line.split(" ")[0] not in (*own, "user")] == lines
    assert different


def test_the_access_list_names_each_control_room_once() -> None:
    text = render_acl(["b", "a", "b"])
    assert text.count("user ") == 2
    assert text.count("topic write bluelamp/v1/+/recall") == 2
    assert text.index("user a") < text.index("user b")
    assert "pattern write bluelamp/v1/%u/alert" in text


def test_a_broker_that_cannot_start_says_why(machines: Machines, mosquitto: None, shared_broker: Broker) -> None:
    with (
        pytest.raises(BrokerError, match=r"did not start|in use"),
        running_broker(machines.broker, [CONTROL], port=1, host="192.0.2.1"),
    ):
        pass


def test_missing_broker_files_say_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="bluelamp-provision keys broker"):
        BrokerFiles.of(tmp_path)


def test_a_revoked_certificate_is_refused(machines: Machines, mosquitto: None, tmp_path: Path) -> None:
    """The revocation list is OpenSSL's; the base makes the same kind."""
    from datetime import datetime, timedelta, timezone

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    machines.certify(tmp_path / "lost", "van-1")
    serial = x509.load_pem_x509_certificate((tmp_path / "lost" / "tls.crt").read_bytes()).serial_number
    now = datetime.now(timezone.utc)
    authority = x509.load_pem_x509_certificate(machines.ca.cert_pem.bytes())
    key = serialization.load_pem_private_key(machines.ca.private_key_pem.bytes(), None)
    entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
    builder = x509.CertificateRevocationListBuilder().issuer_name(authority.subject).last_update(now)
    crl = builder.next_update(now + timedelta(days=1)).add_revoked_certificate(entry).sign(key, hashes.SHA256())  # type: ignore[arg-type]
    (tmp_path / "crl.pem").write_bytes(crl.public_bytes(serialization.Encoding.PEM))
    files = machines.broker
    files = BrokerFiles(files.ca, files.certificate, files.key, tmp_path / "crl.pem")
    with running_broker(files, [CONTROL]) as broker:
        Client(broker, machines.tls("van-1"), "van-1").connection.close()
        with pytest.raises(MqttError, match="revoked"):
            Client(broker, tls_of(tmp_path / "lost"), "van-1")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_runs_a_broker_until_it_is_told_to_stop(
    machines: Machines, mosquitto: None, tmp_path: Path, number: int
) -> None:
    port = free_port()
    command = [sys.executable, "-m", "control.cli", "broker", "run", "--files", str(machines.folders["broker"]),
               "--control", CONTROL, "--port", str(port), "--state", str(tmp_path / "state")]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert "broker listens" in process.stdout.readline()
    socket.create_connection(("127.0.0.1", port), 1).close()
    process.send_signal(number)
    assert process.wait(20) == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 1)
    assert (tmp_path / "state" / "mosquitto.db").exists()


@pytest.mark.slow
def test_without_root_debians_packages_are_unpacked_and_run(machines: Machines, tmp_path: Path) -> None:
    found = brokers._unpack(tmp_path)
    assert found is not None
    done = subprocess.run([found.program, "-h"], env=found.environment(), capture_output=True, text=True)
    assert "mosquitto version" in done.stdout
