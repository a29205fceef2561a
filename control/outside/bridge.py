"""For other systems, off by default: how the room and its units do, over MQTT, without a face or an identifier.

Two forms at once, both common: retained values with Home Assistant's discovery, so that a lamp in the duty room or a
screen can show them; and one JSON line in the manner of ONVIF's event topics for each change. The broker is another
than the units': nothing of theirs passes here, and nothing is read from it.

 homeassistant/.../config      discovery, retained
 bluelamp-room/ROOM/values     {"waiting": 2, "disputed": 0, "engage": 1, "broker": "ON"}, retained
 bluelamp-room/ROOM/unit/UNIT  {"armed": "ON", "missing": 0, "queued": 0}, retained
 bluelamp-room/ROOM/event      {"UtcTime": ..., "Topic": "tns1:Bluelamp/Case", "Source": {...}, "Data": {...}}
"""

from __future__ import annotations

import json
import threading
from collections import deque
from datetime import datetime, timezone
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from appliance.errors import ConfigError
from control.listen import Listen
from control.records import Event, UnitView
from control.room import Room

_CHANGES = 1000  # that wait to be told; the oldest are dropped: the values are always the newest
_SETTLE_SECONDS = 0.2
_REFRESH_SECONDS = 30.0
_ROOM_VALUES = ("waiting", "disputed", "engage")


class Bridge:
    """Tells a broker of changes until stopped. `run` is one thread's."""

    def __init__(self, room: Room, address: Listen) -> None:
        """Raises ConfigError for an address that is not loopback: a local broker may pass it on over TLS."""
        if not address.is_loopback():
            raise ConfigError(f"--bridge {address}: only a broker on this machine; let it pass things on over TLS")
        self._room, self._address = room, address
        self._root = f"bluelamp-room/{room.name}"
        self._changes: deque[Event] = deque(maxlen=_CHANGES)
        self._poke, self._stopped = threading.Event(), threading.Event()
        self._announced: set[str] = set()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=f"bluelamp-{room.name}", protocol=MQTTProtocolVersion.MQTTv5
        )
        self._client.will_set(f"{self._root}/status", "offline", 1, True)
        self._client.on_connect = lambda *_: self._poke.set()
        self._end = room.ledger.listen(self._heard)

    def run(self) -> None:
        """Connect, tell, reconnect; until `stop`."""
        self._client.connect_async(self._address.host, self._address.port)
        self._client.loop_start()
        while not self._stopped.is_set():
            self._poke.wait(_REFRESH_SECONDS)
            self._poke.clear()
            if self._client.is_connected():
                self._tell([self._changes.popleft() for _ in range(len(self._changes))])
            self._stopped.wait(_SETTLE_SECONDS)  # a flood of alerts becomes a few values
        if self._client.is_connected():
            self._client.publish(f"{self._root}/status", "offline", 1, True).wait_for_publish(_SETTLE_SECONDS)
        self._client.disconnect()
        self._client.loop_stop()

    def stop(self) -> None:
        """End `run` soon."""
        self._end()
        self._stopped.set()
        self._poke.set()

    def _heard(self, event: Event) -> None:
        self._changes.append(event)
        self._poke.set()

    def _tell(self, events: list[Event]) -> None:
        self._announce_room()
        counts = self._room.ledger.counts()
        values: dict[str, Any] = {name: counts.get(name, 0) for name in _ROOM_VALUES}  # type: ignore[call-overload]
        self._publish("values", {**values, "broker": _on(self._room.fleet.broker().connected)})
        for view in self._room.fleet.units():
            self._announce_unit(view.unit)
            self._publish(f"unit/{view.unit}", _unit_values(view))
        for event in events:
            self._publish("event", onvif(event), retain=False)
        self._publish("status", "online")

    def _announce_room(self) -> None:
        if "" in self._announced:
            return
        self._announced.add("")
        for name in _ROOM_VALUES:
            self._announce("sensor", name, f"Alerts: {name}", "values", {"unit_of_measurement": "alerts"})
        self._announce("binary_sensor", "broker", "Broker", "values", {"device_class": "connectivity"})

    def _announce_unit(self, unit: str) -> None:
        if unit in self._announced:
            return
        self._announced.add(unit)
        self._announce("binary_sensor", "armed", f"{unit} armed", f"unit/{unit}", {})
        for name in ("missing", "queued"):
            self._announce("sensor", name, f"{unit} {name}", f"unit/{unit}", {})

    def _announce(self, kind: str, name: str, words: str, topic: str, more: dict[str, str]) -> None:
        identifier = f"bluelamp_{self._room.name}_{topic.replace('/', '_')}_{name}"
        told = {
            "name": words, "unique_id": identifier, "state_topic": f"{self._root}/{topic}",
            "value_template": f"{{{{ value_json.{name} }}}}", "availability_topic": f"{self._root}/status",
            "device": {"identifiers": [f"bluelamp_{self._room.name}"], "name": f"Control room {self._room.name}"},
            **more,
        }  # fmt: skip
        self._client.publish(f"homeassistant/{kind}/{identifier}/config", json.dumps(told), 1, True)

    def _publish(self, topic: str, value: object, retain: bool = True) -> None:
        text = value if isinstance(value, str) else json.dumps(value)
        self._client.publish(f"{self._root}/{topic}", text, 1, retain)


def onvif(event: Event) -> dict[str, Any]:
    """A change in the manner of an ONVIF event. A case is not named: who needs it, asks the console."""
    topic = {"alert": "Case", "case": "Case", "erased": "Erased"}.get(event.kind, event.kind.capitalize())
    source = {} if topic in ("Case", "Erased") else {"Name": event.subject}
    when = datetime.fromtimestamp(event.at, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "UtcTime": when, "PropertyOperation": "Changed", "Topic": f"tns1:Bluelamp/{topic}", "Source": source,
        "Data": {"State": event.detail},
    }  # fmt: skip


def _unit_values(view: UnitView) -> dict[str, Any]:
    return {
        "armed": _on(view.health is not None and view.health.state == "armed"),
        "missing": view.missing,
        "queued": view.courier.queued if view.courier else 0,
    }


def _on(value: bool) -> str:
    return "ON" if value else "OFF"
