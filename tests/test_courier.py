"""From a sealed container in vision's hands to an opened alert in the control room's, over a real broker."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from conftest import CONTROL, DEPLOYMENT, AlertMaker, Machines, eventually

from appliance.courier import CourierSettings, run_courier
from appliance.link import CourierLink
from appliance.mqtt import BrokerAddress
from control.broker import Broker
from control.inbox import Opened
from control.tail import Tail, Until

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
    thread = threading.Thread(
        target=run_courier, args=(settings,), kwargs={"stop": stop, "say": said.append}, daemon=True
    )
    thread.start()
    try:
        eventually(settings.socket.exists)
        yield said
    finally:
        stop.set()
        thread.join(20)
        assert not thread.is_alive()


def test_an_alert_reaches_the_subscriber_verified_and_opened(
    machines: Machines, broker: Broker, settings: Settings, maker: AlertMaker
) -> None:
    chosen = settings(broker.address)
    with Listener(machines, broker.address) as listener, courier_in_thread(chosen) as said:
        link = CourierLink(chosen.socket, DEPLOYMENT)
        for _ in range(20):
            link.send(maker.alert(size=16000), "alert")
        eventually(lambda: len(listener.sequences) == 20)
        assert listener.sequences == list(range(1, 21))
        link.send(maker.health(), "health")
        eventually(lambda: "van-1" in listener.tail.healths)
        eventually(lambda: listener.tail.units["van-1"].state == "online")
        assert link.close(5) == 0
    eventually(lambda: True)
    assert not listener.tail.inbox.refused, said
