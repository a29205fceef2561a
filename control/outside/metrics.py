"""Figures for Prometheus, on loopback: how the room and its units do. No reference, no face, no member is in them.

Open cases include decoys: what a decoy is must not be read off a graph either.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from appliance.errors import ConfigError
from control.ledger.ledger import Ledger
from control.listen import Listen
from control.receive.fleet import Fleet
from control.records import Event
from control.service.receiver import Receiver

_DECISIONS = 10_000  # between two scrapes; older ones are not timed
_SECONDS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600)


class Metrics:
    """Collects at each scrape what ledger, receiver and fleet know. `close` ends the server and the listening."""

    def __init__(
        self, ledger: Ledger, receiver: Receiver, fleet: Fleet, clock: Callable[[], float] = time.time
    ) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Now(ledger, receiver, fleet, clock, self._time_decisions))
        self._ledger = ledger
        self._decisions = Histogram(
            "bluelamp_decision_seconds", "From an alert's arrival to its decision.", buckets=_SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self._decided: deque[str] = deque(maxlen=_DECISIONS)
        self._server: tuple[WSGIServer, threading.Thread] | None = None
        self._end = ledger.listen(self._heard)

    def serve(self, listen: Listen) -> None:
        """Answer at http://LISTEN/metrics. Raises ConfigError where the address is not loopback, or in use."""
        if not listen.is_loopback():
            raise ConfigError(f"--metrics {listen}: only a loopback address; let a local agent fetch them from there")
        try:
            self._server = start_http_server(listen.port, listen.host, self.registry)
        except OSError as error:
            raise ConfigError(f"--metrics {listen}: {error.strerror}; choose another port") from error

    def close(self) -> None:
        """Stop answering."""
        self._end()
        if self._server is not None:
            server, thread = self._server
            server.shutdown()
            server.server_close()
            thread.join(5)

    def _heard(self, event: Event) -> None:
        if event.kind == "case" and event.detail in ("engage", "dismissed"):
            self._decided.append(event.subject)

    def _time_decisions(self) -> None:
        """At a scrape: a listener must return soon. One that was taken back and made again counts twice."""
        while self._decided:
            case = self._ledger.case(self._decided.popleft())
            if case.decided is not None:
                self._decisions.observe(max(0.0, case.decided - case.received))


class _Now(Collector):
    """The state of things at the moment of a scrape."""

    def __init__(
        self, ledger: Ledger, receiver: Receiver, fleet: Fleet, clock: Callable[[], float],
        before: Callable[[], None],
    ) -> None:  # fmt: skip
        self._ledger, self._receiver, self._fleet, self._clock = ledger, receiver, fleet, clock
        self._before = before

    def collect(self) -> Iterator[Metric]:
        self._before()
        yield from self._room()
        yield from self._units()

    def _room(self) -> Iterator[Metric]:
        alerts = CounterMetricFamily("bluelamp_alerts", "Alerts stored since the start.", labels=["unit"])
        for unit, count in self._receiver.stored().items():
            alerts.add_metric([unit], count)
        refused = CounterMetricFamily("bluelamp_refused", "Messages refused since the start.", labels=["reason"])
        for reason, count in self._receiver.refused().items():
            refused.add_metric([reason.name.lower()], count)
        cases = GaugeMetricFamily("bluelamp_cases", "Cases in the ledger by state, decoys with them.", labels=["state"])
        for state, count in self._ledger.counts().items():
            cases.add_metric([state], count)
        link = self._fleet.broker()
        connected = GaugeMetricFamily("bluelamp_broker_connected", "Whether the broker is connected.", link.connected)
        return iter((alerts, refused, cases, connected))

    def _units(self) -> Iterator[Metric]:
        def by_unit(name: str, text: str, *more: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"bluelamp_unit_{name}", text, labels=["unit", *more])

        queued = by_unit("queued", "Envelopes that wait in the courier's outbox.")
        missing = by_unit("missing_alerts", "Alerts that the unit's chain shows to be missing.")
        quarantined = by_unit("quarantined", "Messages that wait for a roster that names the unit.")
        age = by_unit("health_age_seconds", "Age of the last signed health report.")
        armed = by_unit("armed", "Whether the unit says it is armed.")
        rate = by_unit("frames_per_second", "Frames a camera delivers.", "camera")
        for view in self._fleet.units():
            missing.add_metric([view.unit], view.missing)
            quarantined.add_metric([view.unit], view.quarantined)
            if view.courier is not None:
                queued.add_metric([view.unit], view.courier.queued)
            if view.health is not None:
                age.add_metric([view.unit], max(0.0, self._clock() - view.health.time))
                armed.add_metric([view.unit], view.health.state == "armed")
                for camera in view.health.cameras:
                    rate.add_metric([view.unit, camera.name], camera.fps)
        return iter((queued, missing, quarantined, age, armed, rate))
