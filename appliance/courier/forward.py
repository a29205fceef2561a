"""From the outbox to the broker: publish, wait for the acknowledgement, forget.

A row is deleted when the broker has acknowledged it with a reason code below 0x80, and not at once: it stays SETTLE
seconds longer, and where the connection breaks in that time it is sent again. A broker answers before its own disk has
the message; this bridges the gap, and control drops the duplicate by its identifier. 0x10 (nobody is subscribed) is an
acknowledgement too, but the broker has thrown the message away: the row then stays and is tried again.

All timing is monotonic. The thread that runs `run` owns the connection; others only call `wake`, `health` and `stop`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from appliance.courier.bounds import out_of_bounds
from appliance.courier.outbox import Outbox, Row
from appliance.errors import BluelampError, CourierError
from appliance.limits import LIMITS
from appliance.pace import Backoff, Wake
from appliance.records import CourierState, Header
from appliance.transport import mqtt, tls
from appliance.transport.mqtt import Connection, Handlers, Message, MqttError, Peer, Received
from appliance.trust.seal import payload_type

WINDOW = 16  # envelopes on their way at once
SETTLE = 3.0  # seconds between acknowledgement and deletion; the broker saves every 2 (control/broker/mosquitto)
_STATE_SECONDS = 10.0
_EXPIRE_SECONDS = 30.0
_STEP_SECONDS = 0.25
_STEADY_SECONDS = 60.0  # a connection that lasted so long was a good one
_LOSSES, _LOSSES_SECONDS = 3, 120.0


def envelope_message(header: Header, container: bytes, remaining: float) -> Message:
    """The MQTT message of a container: CloudEvents 1.0 in binary content mode.

    Health has QoS 0: nobody wants an old report, and a broker must not queue them for a control room that is away.
    """
    attributes = (
        ("specversion", "1.0"),
        ("id", header.id),
        ("source", f"/{mqtt.ROOT}/{header.unit}"),
        ("type", f"bluelamp.{header.kind}.v1"),
        ("time", datetime.fromtimestamp(header.created, timezone.utc).isoformat().replace("+00:00", "Z")),
    )
    return Message(
        topic=mqtt.topic(header.unit, header.kind), payload=container, qos=0 if header.kind == "health" else 1,
        expiry=max(1, int(remaining)), content_type=payload_type(header.kind), attributes=attributes,
    )  # fmt: skip


class Forwarder:
    """Forwards one outbox to one broker until stopped."""

    def __init__(
        self, outbox: Outbox, unit: str, broker: mqtt.BrokerAddress, files: tls.TlsFiles, software: str,
        *, say: Callable[[str], None], settle: float = SETTLE, wall: Callable[[], float] = time.time,
        recall: Path | None = None,
    ) -> None:  # fmt: skip
        self._recall = recall
        self._outbox, self._unit, self._broker, self._files = outbox, unit, broker, files
        self._software, self._say, self._wall, self._settle_seconds = software, say, wall, settle
        self._wake = Wake()
        self._lock = threading.Lock()
        self._health: tuple[Header, bytes] | None = None
        self._stop_at: float | None = None
        self._said = ""
        self._refusals = 0
        self.vision_connected = False
        self.connected = False  # to the broker
        self._retry = Backoff(1.0, 30.0)
        self._open_since: float | None = None
        self._losses: deque[float] = deque(maxlen=_LOSSES)
        self._begin_anew()

    def wake(self) -> None:
        """There may be something to send."""
        self._wake.set()

    def health(self, header: Header, container: bytes) -> None:
        """The newest health report; one that still waits is replaced."""
        with self._lock:
            self._health = (header, container)
        self._wake.set()

    def stop(self, seconds: float) -> None:
        """Send what can be sent in `seconds`, say goodbye, and return from `run`."""
        self._stop_at = time.monotonic() + seconds
        self._wake.set()

    def run(self) -> None:
        """Connect, forward, reconnect; until `stop`."""
        backoff = Backoff(0.2, 10.0)
        while not self._stop_over():
            try:
                self._attempt(backoff)
            except MqttError as error:
                self._trouble(self._explained(error))
                self._pause(30.0 + backoff.next() if error.code == mqtt.TAKEN_OVER else backoff.next())
            except BluelampError as error:
                self._trouble(str(error))
                self._pause(max(5.0, backoff.next()))
            else:  # it said goodbye with envelopes left that nobody takes yet: somebody may in the time that is left
                self._pause(backoff.next())
            if self._stop_at is not None and self._outbox.depth() == 0:
                break
        left = self._outbox.depth()
        if left:
            self._say(f"{left} envelope(s) stay in the outbox for the next start")

    def _attempt(self, backoff: Backoff) -> None:
        tls.check_validity(self._files, self._wall())
        peer = Peer(self._broker, self._files, self._unit, will=self._state("offline", 0))
        handlers = Handlers(self._acknowledged, lambda message: self._recalled(connection, message))
        connection = Connection(peer, handlers, self._wake)
        connection.open()
        if self._recall is not None:
            connection.subscribe([mqtt.topic(self._unit, "recall")])
        self._begin_anew()
        self._say(f"connected to broker {self._broker}; {self._outbox.depth()} envelope(s) wait")
        self._said = ""
        since = self._open_since = time.monotonic()
        self.connected = True
        try:
            self._serve(connection)
        except BaseException:
            if time.monotonic() - since > _STEADY_SECONDS:
                backoff.reset()
            connection.close(with_will=True)
            raise
        finally:
            self.connected = False
        connection.close()

    def _explained(self, error: MqttError) -> str:
        """Debian's mosquitto 2.0.11 closes the elder of two clients of one name without a word; three times tell."""
        since, self._open_since = self._open_since, None
        if since is None or error.code:
            self._losses.clear()
            return str(error)
        self._losses.append(time.monotonic())
        if len(self._losses) < _LOSSES or self._losses[-1] - self._losses[0] > _LOSSES_SECONDS:
            return str(error)
        return (
            f"{error} again and again: is another machine connected with the name "
            f"{self._unit}? Two must not share one certificate; take one out of service"
        )

    def _serve(self, connection: Connection) -> None:
        connection.publish(self._state("online", self.waiting()))
        while True:
            self._expire()
            self._feed(connection)
            connection.step(_STEP_SECONDS)
            self._settle()
            self._report(connection)
            if self._stop_at is not None and (self._is_done() or self._stop_over()):
                self._goodbye(connection)
                return

    def _begin_anew(self) -> None:
        """A new connection: whatever was not settled is sent again."""
        self._cursor = 0
        self._sent: dict[int, Row] = {}  # by MQTT message number
        self._settling: deque[tuple[float, int]] = deque()
        self._kept: set[int] = set()  # rows not to be sent in this pass: on their way, settling or refused
        self._again_at: float | None = None
        self._reported: tuple[float, tuple[int, ...]] = (time.monotonic(), ())
        self._expired_at = float("-inf")

    def _feed(self, connection: Connection) -> None:
        """Fill the window with the oldest rows that were not yet sent, then the newest health report."""
        if self._again_at is not None and time.monotonic() >= self._again_at:
            self._again_at, self._cursor = None, 0
        while len(self._sent) < WINDOW:
            rows = self._outbox.rows(self._cursor, WINDOW - len(self._sent))
            if not rows:
                break
            self._cursor = rows[-1].number
            for row in rows:
                self._send(connection, row)
        with self._lock:
            report, self._health = self._health, None
        if report is not None and report[0].expires > self._wall():
            connection.publish(envelope_message(*report, report[0].expires - self._wall()))

    def _send(self, connection: Connection, row: Row) -> None:
        if row.number in self._kept:
            return
        if (fault := out_of_bounds(row.header)) is not None:
            self._set_aside(row, fault)
        elif row.remaining > 0:
            mid = connection.publish(envelope_message(row.header, row.container, row.remaining))
            self._sent[mid] = row
            self._kept.add(row.number)

    def _set_aside(self, row: Row, fault: str) -> None:
        """A row that cannot be sent must not hold up those behind it."""
        self._kept.add(row.number)
        try:
            self._outbox.set_aside(row.number, fault)
            self._say(
                f"{row.header.kind} {row.header.id!r} cannot be sent ({fault}); it is kept among the dead letters"
            )
        except CourierError as error:  # it stays in the outbox, and is tried again with the next connection
            self._trouble(str(error))

    def _acknowledged(self, mid: int, code: int) -> None:
        row = self._sent.pop(mid, None)
        if row is None:
            return  # our own state message
        if code < mqtt.REFUSED and code != mqtt.NOBODY_LISTENS:
            self._settling.append((time.monotonic() + self._settle_seconds, row.number))
            self._retry.reset()
            return
        self._kept.discard(row.number)
        if code >= mqtt.REFUSED:
            self._refusals += 1
            self._trouble(f"the broker refuses {row.header.kind} {row.header.id}: {mqtt.reason_text(code)}; it is kept")
        else:
            self._trouble("no control room is subscribed: alerts are kept until one is")
        if self._again_at is None:
            longest = 60.0 if code >= mqtt.REFUSED else 5.0
            self._again_at = time.monotonic() + min(self._retry.next(), longest)

    def _recalled(self, connection: Connection, message: Received) -> None:
        """Lay down what came as a recall, for vision to judge: we hold no key that could. Nothing else is taken."""
        wanted = message.topic == mqtt.topic(self._unit, "recall") and 0 < len(message.payload) <= LIMITS.envelope_bytes
        if self._recall is not None and wanted:
            part = self._recall.with_suffix(".part")
            try:
                part.write_bytes(message.payload)
                part.replace(self._recall)
            except OSError as error:  # not acknowledged: the broker sends it again
                self._trouble(f"{self._recall}: a recall cannot be written ({error.strerror}); make room")
                return
        connection.acknowledge(message)

    def _settle(self) -> None:
        """Delete what was acknowledged long enough ago."""
        if not self._settling or self._settling[0][0] > time.monotonic():
            return
        ready = [number for when, number in self._settling if when <= time.monotonic()]
        try:
            self._outbox.delete(ready)
        except CourierError as error:  # still on disk, and after a restart sent twice: better than not at all
            self._trouble(f"{error} (acknowledged envelopes are kept meanwhile)")
            self._settling.extendleft((time.monotonic() + 5.0, number) for _, number in self._drop_ready(len(ready)))
            return
        self._drop_ready(len(ready))
        self._kept.difference_update(ready)

    def _drop_ready(self, count: int) -> list[tuple[float, int]]:
        return [self._settling.popleft() for _ in range(count)]

    def _expire(self) -> None:
        if time.monotonic() - self._expired_at < _EXPIRE_SECONDS:
            return
        self._expired_at = time.monotonic()
        try:
            gone = self._outbox.expire()
        except CourierError as error:  # a full disk must not keep us from sending what would free it
            self._trouble(str(error))
            return
        if gone:
            total = self._outbox.count("expired")
            self._say(f"{gone} envelope(s) expired before the broker took them ({total} so far); check the connection")

    def _report(self, connection: Connection) -> None:
        """Refresh the retained state where its figures changed."""
        when, before = self._reported
        if time.monotonic() - when < _STATE_SECONDS:
            return
        figures = (self.waiting(), self._outbox.count("expired"), self._refusals, int(self.vision_connected))
        self._reported = (time.monotonic(), figures)
        if figures != before:
            connection.publish(self._state("online", figures[0]))

    def _state(self, state: str, queued: int) -> Message:
        record = CourierState.model_validate(
            {
                "unit": self._unit, "state": state, "time": self._wall(), "software": self._software, "queued": queued,
                "vision": self.vision_connected, "expired": self._outbox.count("expired"), "refused": self._refusals,
            }
        )  # fmt: skip
        return Message(mqtt.topic(self._unit, "state"), record.model_dump_json().encode(), retain=True)

    def _is_done(self) -> bool:
        return not self._sent and not self._outbox.rows(self._cursor, 1) and self._health is None

    def _goodbye(self, connection: Connection) -> None:
        """Leave when all that was acknowledged is settled, or the time to stop is over; the state says offline."""
        mid = connection.publish(self._state("offline", self.waiting()))
        while (self._settling or connection.awaits(mid)) and not self._stop_over():
            connection.step(0.05)
            self._settle()

    def waiting(self) -> int:
        """How many envelopes the broker does not have yet."""
        return max(0, self._outbox.depth() - len(self._settling))

    def _stop_over(self) -> bool:
        return self._stop_at is not None and time.monotonic() >= self._stop_at

    def _pause(self, seconds: float) -> None:
        """Wait, but notice a stop: then one more attempt within its time, not a long wait."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if self._stop_at is not None:
                deadline = min(deadline, time.monotonic() + 0.2, self._stop_at)
                left = deadline - time.monotonic()
            self._wake.wait(min(left, 1.0))

    def _trouble(self, line: str) -> None:
        """Say a trouble when it begins or changes, not at each attempt."""
        if line != self._said:
            self._said = line
            self._say(line)
