"""One MQTT 5 connection with mutual TLS, driven by its owner's thread.

A connection is used once: when it ends, its owner makes another. paho keeps unacknowledged messages in memory and would
send them again after a reconnect; ours are in the outbox, which knows better what is still wanted.
"""

from __future__ import annotations

import re
import select
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from appliance.errors import ConfigError, CourierError
from appliance.limits import LIMITS
from appliance.pace import Wake
from appliance.records import Record
from appliance.transport.tls import HUNG_UP, TlsFiles, explain, tls_context

ROOT = "bluelamp/v1"
TAKEN_OVER = 0x8E  # MQTT 5 reason code: another client connected with our client id
NOBODY_LISTENS = 0x10  # MQTT 5 reason code: accepted, but no subscriber matched
REFUSED = 0x80  # MQTT 5: this and all greater reason codes are failures
_CONNECT_SECONDS = 10.0
_KEEPALIVE = 15
_REASONS = {
    0x85: "the broker refuses this client id",
    0x86: "the broker does not accept this certificate's name",
    0x87: "not authorised: the broker's access list does not allow it",
    0x88: "the broker is unavailable",
    0x89: "the broker is busy",
    0x8A: "this client is banned by the broker",
    0x8B: "the broker is shutting down",
    TAKEN_OVER: "another machine connected with the same name: two share one certificate; take one out of service",
    0x95: "larger than the broker accepts; raise its max_packet_size",
    0x97: "the broker's quota is used up",
}


class MqttError(CourierError):
    """The connection could not be made or has ended. `code` is MQTT's reason code, or 0."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class BrokerAddress(Record):
    """Where the broker listens. The host must be a name or address in the broker's certificate."""

    host: str
    port: int = 8883

    @classmethod
    def parse(cls, text: str) -> BrokerAddress:
        """From HOST:PORT or HOST, also after mqtts://: the connection is always TLS. Raises ConfigError."""
        named = re.sub(r"^mqtts://", "", text, flags=re.IGNORECASE)
        host, _, port = named.rpartition(":") if ":" in named else (named, "", "8883")
        if not host or "/" in host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ConfigError(f"broker {text!r}: write HOST:PORT, for example broker.example:8883")
        return cls(host=host.strip("[]"), port=int(port))

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def topic(unit: str, kind: str) -> str:
    """A unit's topic of one kind: alert, health, receipt, state, or recall, which alone it reads."""
    return f"{ROOT}/{unit}/{kind}"


def reason_text(code: int) -> str:
    """A reason code in words an operator can act on."""
    return _REASONS.get(code, f"reason code 0x{code:02x}")


@dataclass(frozen=True)
class Message:
    """Something to publish. `expiry` is seconds, 0 for none; `attributes` become MQTT user properties."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    expiry: int = 0
    content_type: str = "application/json"
    attributes: tuple[tuple[str, str], ...] = ()

    def properties(self, packet: int) -> Properties:
        """As MQTT 5 properties of a PUBLISH or of a will."""
        properties = Properties(packet)  # type: ignore[no-untyped-call]
        properties.ContentType = self.content_type
        if self.expiry:
            properties.MessageExpiryInterval = self.expiry
        if self.attributes:
            properties.UserProperty = list(self.attributes)
        return properties


@dataclass(frozen=True)
class Received:
    """Something that arrived; `mid` and `qos` are for acknowledging it."""

    topic: str
    payload: bytes
    qos: int
    mid: int
    retain: bool


@dataclass
class Handlers:
    """What the owner wants to hear. All are called inside `step`, in the owner's own thread."""

    acknowledged: Callable[[int, int], None] = lambda mid, code: None
    received: Callable[[Received], None] = lambda message: None
    subscribed: Callable[[int], None] = lambda code: None


@dataclass(frozen=True)
class Peer:
    """Whom to connect to, as whom. `session` is how many seconds the broker keeps our session; 0 starts clean."""

    broker: BrokerAddress
    tls: TlsFiles
    client_id: str
    session: int = 0
    will: Message | None = None


@dataclass
class _Outcome:
    connected: bool = False
    code: int = 0
    text: str = ""
    last_error: str = ""


class _Client(paho.Client):
    """paho's client, which alone would read a packet of any size into memory."""

    def _sock_recv(self, bufsize: int) -> bytes:
        """Receive; `bufsize` is what is still to come of a packet."""
        if bufsize > LIMITS.mqtt_packet_bytes:
            raise OSError(f"a packet of {bufsize} bytes; at most {LIMITS.mqtt_packet_bytes} are taken")
        return super()._sock_recv(bufsize)


class Connection:
    """One connection: `open`, then `step` again and again, then `close`. Not thread-safe; MqttError ends it."""

    def __init__(self, peer: Peer, handlers: Handlers, wake: Wake) -> None:
        self._peer, self._handlers, self._wake = peer, handlers, wake
        self._outcome = _Outcome()
        self._unanswered: set[int] = set()
        self._client = _Client(
            CallbackAPIVersion.VERSION2, client_id=peer.client_id, protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False, manual_ack=True,
        )  # fmt: skip
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_publish = self._on_publish
        self._client.on_subscribe = lambda c, u, mid, codes, p: self._handlers.subscribed(max(r.value for r in codes))
        self._client.on_message = lambda c, u, m: self._handlers.received(
            Received(m.topic, bytes(m.payload), m.qos, m.mid, m.retain)
        )
        self._client.on_log = self._on_log
        if peer.will is not None:
            will = peer.will
            properties = will.properties(PacketTypes.WILLMESSAGE)
            self._client.will_set(will.topic, will.payload, will.qos, will.retain, properties)

    def open(self) -> None:
        """Connect and wait for the broker's answer, at most some ten seconds. Raises MqttError, KeyFileError."""
        peer = self._peer
        self._client.tls_set_context(tls_context(peer.tls))
        self._client.connect_timeout = _CONNECT_SECONDS
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = peer.session
        properties.MaximumPacketSize = LIMITS.mqtt_packet_bytes
        try:
            self._client.connect(
                peer.broker.host, peer.broker.port, _KEEPALIVE, clean_start=peer.session == 0, properties=properties
            )
        except ssl.SSLError as error:
            raise MqttError(f"broker {peer.broker}: TLS refused: {explain(error)}") from error
        except OSError as error:
            raise MqttError(f"broker {peer.broker}: cannot be reached ({error}); trying again") from error
        stream = self._client.socket()
        if isinstance(stream, socket.socket):
            # Small packets at once: else the kernel holds each back until the one before was acknowledged (40 ms).
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        deadline = time.monotonic() + _CONNECT_SECONDS
        while not self._outcome.connected:
            if time.monotonic() > deadline:
                raise MqttError(f"broker {peer.broker}: does not answer; is this its MQTT port?")
            self.step(0.2)

    def step(self, seconds: float) -> None:
        """Wait at most `seconds` for the network or `wake`, and do what is to be done. Raises MqttError at the end."""
        stream = self._client.socket()
        if stream is None:
            raise self._ended()
        poll = select.poll()
        poll.register(stream, select.POLLIN | (select.POLLOUT if self._client.want_write() else 0))
        poll.register(self._wake, select.POLLIN)
        decrypted = isinstance(stream, ssl.SSLSocket) and stream.pending() > 0
        events = dict(poll.poll(0 if decrypted else seconds * 1000))
        if self._wake.fileno() in events:
            self._wake.clear()
        state = events.get(stream.fileno(), 0)
        if decrypted or state & ~select.POLLOUT:
            self._client.loop_read()
        if self._client.socket() is not None and self._client.want_write():
            self._client.loop_write()
        if self._client.socket() is not None:
            self._client.loop_misc()
        if self._client.socket() is None or self._outcome.code >= REFUSED:
            raise self._ended()

    def publish(self, message: Message) -> int:
        """Hand a message to the broker; the result is the number `acknowledged` will name. Raises MqttError."""
        info = self._client.publish(
            message.topic, message.payload, message.qos, message.retain, message.properties(PacketTypes.PUBLISH)
        )
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise self._ended()
        if message.qos:
            self._unanswered.add(info.mid)
        return info.mid

    def awaits(self, mid: int) -> bool:
        """Whether the broker has not yet answered a message."""
        return mid in self._unanswered

    def subscribe(self, filters: list[str]) -> None:
        """Ask for topics with QoS 1; the answer comes to `subscribed`."""
        self._client.subscribe([(name, SubscribeOptions(qos=1)) for name in filters])

    def acknowledge(self, message: Received) -> None:
        """Tell the broker that a message is safely ours; until then it keeps it and would send it again."""
        self._client.ack(message.mid, message.qos)

    def close(self, *, with_will: bool = False) -> None:
        """Say goodbye; the broker then publishes our will only where asked to."""
        if self._client.socket() is not None:
            words = "Disconnect with will message" if with_will else "Normal disconnection"
            self._client.disconnect(ReasonCode(PacketTypes.DISCONNECT, words))

    def _on_connect(self, client: object, data: object, flags: object, code: ReasonCode, properties: object) -> None:
        if code.value >= REFUSED:
            self._outcome.code, self._outcome.text = code.value, reason_text(code.value)
        else:
            self._outcome.connected = True

    def _on_publish(self, client: object, data: object, mid: int, code: ReasonCode, properties: object) -> None:
        if mid in self._unanswered:
            self._unanswered.discard(mid)
            self._handlers.acknowledged(mid, code.value)

    def _on_disconnect(self, client: object, data: object, flags: object, code: ReasonCode, properties: object) -> None:
        from_broker = getattr(flags, "is_disconnect_packet_from_server", False)
        if from_broker and code.value >= REFUSED:
            self._outcome.code, self._outcome.text = code.value, reason_text(code.value)

    def _on_log(self, client: object, data: object, level: int, text: str) -> None:
        if level == paho.MQTT_LOG_ERR:
            self._outcome.last_error = text

    def _ended(self) -> MqttError:
        outcome = self._outcome
        if outcome.text:
            return MqttError(f"broker {self._peer.broker}: {outcome.text}", outcome.code)
        if not outcome.connected:
            why = explain(outcome.last_error) if outcome.last_error else HUNG_UP
            return MqttError(f"broker {self._peer.broker}: refused: {why}")
        detail = outcome.last_error
        return MqttError(f"broker {self._peer.broker}: connection lost{f' ({detail})' if detail else ''}")
