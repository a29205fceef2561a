"""The control room's connection: a persistent MQTT 5 session, each message acknowledged after it was handled."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable

from appliance.errors import BluelampError
from appliance.pace import Backoff, Wake
from appliance.transport import mqtt, tls
from appliance.transport.mqtt import BrokerAddress, Connection, Handlers, Peer, Received
from appliance.trust import keys

SESSION_SECONDS = 48 * 3600  # how long the broker keeps alerts for a control room that is away
_KINDS = ("alert", "health", "receipt", "state")


def client_id(name: str, purpose: str, files: tls.TlsFiles) -> str:
    """A session name nobody else can guess: who connects with our client id would take over our queue of alerts."""
    secret = hashlib.sha256(b"bluelamp client id" + purpose.encode() + keys.read_private(files.key)).hexdigest()
    return f"{name}-{purpose}-{secret[:16]}"


class Subscriber:
    """Hands every message to `handler` and acknowledges it when the handler has returned.

    A handler that raises is not acknowledged: the exception leaves `run`, and the broker sends the message again to the
    next connection. `status` hears what happens to the connection, in words.
    """

    def __init__(
        self, broker: BrokerAddress, files: tls.TlsFiles, session: str, handler: Callable[[Received], None],
        *, status: Callable[[str], None], keep: int = SESSION_SECONDS,
    ) -> None:  # fmt: skip
        self._peer = Peer(broker, files, session, session=keep)
        self._handler, self._status = handler, status
        self._wake = Wake()
        self._stopped = threading.Event()
        self._connection: Connection | None = None
        self._failure: BaseException | None = None
        self.connected = self.reached = False  # now, and ever

    def stop(self) -> None:
        """End `run` soon; any thread may call this."""
        self._stopped.set()
        self._wake.set()

    def run(self) -> None:
        """Connect, receive, reconnect; until `stop`. Raises what the handler raises, and may be called again then."""
        backoff = Backoff(0.2, 15.0)
        said, self._failure = "", None
        while not self._stopped.is_set() and self._failure is None:
            try:
                self._attempt(backoff)
            except BluelampError as error:
                lost, self.connected = self.connected, False
                if lost or str(error) != said:
                    said = str(error)
                    self._status(said)
                self._wake.wait(backoff.next())
            finally:
                self.connected = False
        if self._failure is not None:
            raise self._failure

    def _attempt(self, backoff: Backoff) -> None:
        tls.check_validity(self._peer.tls, time.time())
        handlers = Handlers(received=self._received, subscribed=self._subscribed)
        self._connection = connection = Connection(self._peer, handlers, self._wake)
        connection.open()
        connection.subscribe([f"{mqtt.ROOT}/+/{kind}" for kind in _KINDS])
        while not self._stopped.is_set() and self._failure is None:
            connection.step(0.5)
            if self.connected:
                backoff.reset()
        connection.close()

    def _received(self, message: Received) -> None:
        """Called by paho, which would take our handler's exception for its own: it is kept and raised by `run`."""
        if self._failure is not None or self._connection is None or self._stopped.is_set():
            return
        try:
            self._handler(message)
        except BaseException as error:  # noqa: BLE001 - raised again by run
            self._failure = error
            return
        self._connection.acknowledge(message)

    def _subscribed(self, code: int) -> None:
        self.connected = code < mqtt.REFUSED
        self.reached = self.reached or self.connected
        where = f"broker {self._peer.broker}"
        self._status(
            f"subscribed at {where}" if self.connected else f"{where}: no subscription: {mqtt.reason_text(code)}"
        )
