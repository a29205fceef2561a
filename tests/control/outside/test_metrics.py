"""Figures for Prometheus: on loopback only, right, and about nobody."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from appliance.errors import ConfigError
from appliance.records import CameraHealth, CourierState
from appliance.transport.mqtt import BrokerAddress, Received, topic
from control.broker.broker import free_port
from control.ledger.ledger import Ledger
from control.listen import Listen
from control.outside.metrics import Metrics
from control.receive.fleet import Fleet
from control.receive.quarantine import Quarantine
from control.service.receiver import Books, Receiver
from tests.support.controlroom import ANN, NOON, order
from tests.support.machines import CONTROL, DEPLOYMENT, UNIT, AlertMaker, Machines


class Scene:
    """Ledger, fleet and receiver with their metrics served."""

    def __init__(self, machines: Machines, store: Path) -> None:
        self.ledger, self.fleet = Ledger(store), Fleet()
        books = Books(self.ledger, self.fleet, Quarantine(store / "quarantine"), store / "receipts")
        broker = BrokerAddress(host="127.0.0.1", port=1)
        self.receiver = Receiver(machines.keys(CONTROL), broker, books, say=lambda line: None)
        self.metrics = Metrics(self.ledger, self.receiver, self.fleet)
        self.listen = Listen(host="127.0.0.1", port=free_port())
        self.metrics.serve(self.listen)

    def take(self, kind: str, payload: bytes, unit: str = UNIT) -> None:
        self.receiver.handle(Received(topic=topic(unit, kind), payload=payload, qos=1, mid=1, retain=False))

    def text(self) -> str:
        with urllib.request.urlopen(f"http://{self.listen}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    def value(self, name: str, **labels: str) -> float:
        """One sample of a scrape."""
        for family in text_string_to_metric_families(self.text()):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return float(sample.value)
        raise AssertionError(f"no {name} {labels}")


@pytest.fixture
def scene(machines: Machines, tmp_path: Path) -> Iterator[Scene]:
    made = Scene(machines, tmp_path / "store")
    yield made
    made.metrics.close()
    made.ledger.close()


def test_they_say_what_was_received_refused_decided_and_how_units_do(scene: Scene, maker: AlertMaker) -> None:
    camera = CameraHealth(name="north", state="running", frames=10, dropped=0, fps=14.5)
    scene.take("alert", maker.alert(reference_identifier="R-SECRET", category="wanted-on-warrant"))
    maker.alert()
    scene.take("alert", maker.alert())
    scene.take("alert", b"rubbish")
    scene.take("health", maker.health(cameras=(camera,)))
    scene.take(
        "state", CourierState(unit=UNIT, state="online", time=1, software="1", queued=4).model_dump_json().encode()
    )
    first = scene.ledger.cases()[-1].alert_id
    scene.ledger.first_seen(first, ANN)
    scene.ledger.judge(first, ANN, "not-same")
    assert scene.value("bluelamp_alerts_total", unit=UNIT) == 2
    assert scene.value("bluelamp_refused_total", reason="structure") == 1
    assert scene.value("bluelamp_cases", state="waiting") == 1
    assert scene.value("bluelamp_cases", state="dismissed") == 1
    assert scene.value("bluelamp_decision_seconds_count") == 1
    assert scene.value("bluelamp_unit_missing_alerts", unit=UNIT) == 1
    assert scene.value("bluelamp_unit_queued", unit=UNIT) == 4
    assert scene.value("bluelamp_unit_frames_per_second", unit=UNIT, camera="north") == 14.5
    assert 0 <= scene.value("bluelamp_unit_health_age_seconds", unit=UNIT) < 60
    assert scene.value("bluelamp_unit_armed", unit=UNIT) == 1
    assert scene.value("bluelamp_broker_connected") == 0


def test_nothing_in_them_tells_of_a_reference_a_member_or_a_decoy(scene: Scene, maker: AlertMaker) -> None:
    scene.ledger.add_deployment(order(NOON), "0" * 64)
    scene.take("alert", maker.alert(reference_identifier="R-SECRET", category="wanted-on-warrant"))
    case = scene.ledger.cases()[0]
    scene.ledger.first_seen(case.alert_id, ANN)
    scene.ledger.judge(case.alert_id, ANN, "not-same")
    text = scene.text()
    for secret in ("R-SECRET", "wanted", ANN.name + '"', case.alert_id, DEPLOYMENT + '"', "decoy=", "decoys_"):
        assert secret not in text


def test_only_loopback_is_served_and_a_taken_port_is_said(scene: Scene) -> None:
    again = Metrics(scene.ledger, scene.receiver, scene.fleet)
    with pytest.raises(ConfigError, match="only a loopback address"):
        again.serve(Listen(host="0.0.0.0", port=scene.listen.port))
    with pytest.raises(ConfigError, match="choose another port"):
        again.serve(scene.listen)
    again.close()
