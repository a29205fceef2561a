"""A broker may be hostile: a packet larger than any of ours is refused before it is read."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from appliance.limits import LIMITS
from appliance.pace import Wake
from appliance.transport.mqtt import BrokerAddress, Connection, Handlers, MqttError, Peer
from tests.support.machines import UNIT, Machines, eventually

_CONNACK = b"\x20\x03\x00\x00\x00"
_PUBLISH = b"\x30\x80\xe5\x9a\x77"  # the start of a packet of 250,000,000 bytes


class Hostile:
    """A broker that takes the first client and sends it the start of an endless packet."""

    def __init__(self, machines: Machines) -> None:
        self.heard = b""
        files = machines.broker
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(files.certificate, files.key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = BrokerAddress(host="127.0.0.1", port=self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._talk, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()
        self._thread.join(10)

    def _talk(self) -> None:
        with suppress(OSError):
            plain, _ = self._listener.accept()
            with self._context.wrap_socket(plain, server_side=True) as stream:
                stream.settimeout(5)
                self.heard = stream.recv(4096)
                stream.sendall(_CONNACK + _PUBLISH)
                for _ in range(200):
                    stream.sendall(bytes(10_000))


@pytest.fixture
def hostile(machines: Machines) -> Iterator[Hostile]:
    """Such a broker."""
    broker = Hostile(machines)
    yield broker
    broker.close()


def test_a_packet_that_is_too_large_ends_the_connection_and_the_limit_is_told(
    machines: Machines, hostile: Hostile
) -> None:
    connection = Connection(Peer(hostile.address, machines.tls(UNIT), UNIT), Handlers(), Wake())

    def ends() -> bool:
        connection.step(0.1)
        return False

    with pytest.raises(MqttError, match="250000000 bytes; at most"):
        connection.open()
        eventually(ends)
    assert b"\x27" + LIMITS.mqtt_packet_bytes.to_bytes(4, "big") in hostile.heard
