"""The adapter for other systems tells how things stand, and of nobody."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from appliance.errors import ConfigError
from appliance.records import CourierState
from control.broker.broker import find_mosquitto, free_port
from control.listen import Listen
from control.outside.bridge import Bridge
from control.people.people import Cost, People
from control.receive.fleet import Fleet
from control.room import Room
from tests.support.controlroom import ANN, Desk
from tests.support.machines import CONTROL, DEPLOYMENT, UNIT, Machines, eventually
from tests.support.paths import ROOT


@pytest.fixture
def house(mosquitto: None) -> Iterator[Listen]:
    """Another system's broker on this machine: plain, open to loopback only."""
    found, port = find_mosquitto(), free_port()
    process = subprocess.Popen(
        [str(found.program), "-p", str(port)], env=found.environment(), stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    yield Listen(host="127.0.0.1", port=port)
    process.kill()
    process.wait()


@pytest.fixture
def desk(machines: Machines, tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path / "store", machines)
    made.ordered()
    yield made
    made.ledger.close()


def room(desk: Desk) -> Room:
    people = People(desk.store, cost=Cost(64, 1, 1))
    return Room(CONTROL, desk.ledger, people, Fleet(), desk.store, desk.machines.keys(CONTROL).signer)


class Screen:
    """Another system that listens."""

    def __init__(self, address: Listen) -> None:
        self.heard: list[tuple[str, str]] = []
        self.client = paho.Client(CallbackAPIVersion.VERSION2)
        self.client.on_connect = lambda client, *_: client.subscribe("#", 1)
        self.client.on_message = lambda _, __, m: self.heard.append((m.topic, m.payload.decode()))
        self.client.connect_async(address.host, address.port)
        self.client.loop_start()

    def last(self, topic: str) -> str | None:
        return next((payload for name, payload in reversed(self.heard) if name == topic), None)

    def values(self) -> dict[str, object]:
        return json.loads(self.last("bluelamp-room/control-1/values") or "{}")  # type: ignore[no-any-return]


def documented(message: str) -> dict[str, object]:
    """What docs/asyncapi.yaml says of a message."""
    yaml = pytest.importorskip("yaml", reason="PyYAML reads the AsyncAPI document")
    text = (ROOT / "docs" / "asyncapi.yaml").read_text()
    return yaml.safe_load(text)["components"]["messages"][message]["payload"]  # type: ignore[no-any-return]


def test_counts_and_states_are_told_and_no_identifier(desk: Desk, house: Listen) -> None:
    scene, screen = room(desk), Screen(house)
    bridge = Bridge(scene, house)
    thread = threading.Thread(target=bridge.run, daemon=True)  # a failed test must not hang the suite
    thread.start()
    eventually(lambda: screen.values().get("waiting") == 0)
    alert = desk.alert(reference_identifier="R-SECRET", category="wanted-on-warrant")
    scene.fleet.note_state(CourierState(unit=UNIT, state="online", time=1.0, software="1", queued=2))
    eventually(lambda: screen.values().get("waiting") == 1)
    desk.see(alert, ANN)
    desk.ledger.judge(alert, ANN, "same", "the scar SECRET-NOTE")
    eventually(lambda: screen.values().get("engage") == 1)
    unit = json.loads(screen.last(f"bluelamp-room/control-1/unit/{UNIT}") or "{}")
    assert unit == {"armed": "OFF", "missing": 0, "queued": 2}
    eventually(lambda: sum(topic.endswith("/event") for topic, _ in screen.heard) >= 2)
    events = [json.loads(text) for topic, text in screen.heard if topic.endswith("/event")]
    assert [(e["Topic"], e["Data"]["State"]) for e in events] == [
        ("tns1:Bluelamp/Case", "waiting"), ("tns1:Bluelamp/Case", "engage"),
    ]  # fmt: skip
    found = json.loads(screen.last("homeassistant/sensor/bluelamp_control-1_values_waiting/config") or "{}")
    assert found["state_topic"] == "bluelamp-room/control-1/values"
    for name, told in (("values", screen.values()), ("unitValues", unit), *(("event", event) for event in events)):
        jsonschema.validate(told, documented(name))
    bridge.stop()
    thread.join(10)
    eventually(lambda: screen.last("bluelamp-room/control-1/status") == "offline")
    everything = " ".join(f"{topic} {text}" for topic, text in screen.heard)
    for secret in ("SECRET", "wanted", alert, ANN.name + '"', DEPLOYMENT + '"'):
        assert secret not in everything
    screen.client.disconnect()
    screen.client.loop_stop()


def test_only_a_broker_on_this_machine_is_told(desk: Desk) -> None:
    with pytest.raises(ConfigError, match="only a broker on this machine"):
        Bridge(room(desk), Listen(host="192.0.2.7", port=1883))
