"""Couriers for tests: one in a thread, one as a process, vision's end of the socket, a listener at the control room."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from appliance.courier.outbox import Outbox
from appliance.courier.server import run_courier, spawn
from appliance.courier.settings import CourierSettings
from appliance.pace import Wake
from appliance.sockets.link import CourierLink
from appliance.transport.mqtt import BrokerAddress, Connection, Handlers, Message, Peer, topic
from control.broker.broker import Broker
from control.receive.inbox import Opened
from control.receive.tail import Tail, Until
from tests.support.machines import CONTROL, DEPLOYMENT, Machines, eventually

Settings = Callable[..., CourierSettings]


class Listener:
    """A tail in a thread."""

    def __init__(self, machines: Machines, address: BrokerAddress, session: str = "test") -> None:
        self.tail = Tail(machines.folders[CONTROL], address, Until(), session=session)
        self.opened: list[Opened] = []
        self.said: list[str] = []
        self._thread = threading.Thread(target=self.tail.run, args=(self.opened.append, self.said.append), daemon=True)

    def __enter__(self) -> Listener:
        self._thread.start()
        eventually(lambda: self.tail.subscriber.connected)
        return self

    def __exit__(self, *_: object) -> None:
        self.tail.subscriber.stop()
        self._thread.join(10)

    @property
    def sequences(self) -> list[int]:
        """Sequence numbers in the order they came."""
        return [o.alert.sequence for o in self.opened if o.alert is not None]


@contextmanager
def courier_in_thread(settings: CourierSettings) -> Iterator[list[str]]:
    """A courier that runs in this process; yields what it says."""
    said: list[str] = []
    stop = threading.Event()
    keywords = {"stop": stop, "say": said.append}
    thread = threading.Thread(target=run_courier, args=(settings,), kwargs=keywords, daemon=True)
    thread.start()
    try:
        eventually(settings.socket.exists)
        yield said
    finally:
        stop.set()
        thread.join(20)
        assert not thread.is_alive()


@contextmanager
def courier_process(settings: CourierSettings) -> Iterator[subprocess.Popen[bytes]]:
    """A courier as a child process, killed at the end where the test did not end it."""
    process = spawn(settings)
    try:
        eventually(settings.socket.exists)
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def linked(settings: CourierSettings) -> Iterator[CourierLink]:
    """Vision's end."""
    link = CourierLink(settings.socket, DEPLOYMENT, say=lambda line: None)
    try:
        yield link
    finally:
        link.close(5)


def stored(settings: CourierSettings) -> int:
    """How many envelopes a stopped courier has left in its outbox."""
    outbox = Outbox(settings.outbox)
    try:
        return outbox.depth()
    finally:
        outbox.close()


def publish(machines: Machines, broker: Broker, unit: str, container: bytes, kind: str = "alert") -> None:
    """What a dishonest machine of that name might send."""
    answers: list[int] = []
    handlers = Handlers(acknowledged=lambda mid, code: answers.append(code))
    connection = Connection(Peer(broker.address, machines.tls(unit), f"{unit}-test"), handlers, Wake())
    connection.open()
    connection.publish(Message(topic(unit, kind), container))
    while not answers:
        connection.step(0.2)
    connection.close()
