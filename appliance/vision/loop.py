"""The vision loop: frames of several cameras through detect, track, extract, identify, decide, seal.

Everything it needs is handed in; it opens nothing by itself. Its one way out is the link to the courier.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from appliance.capture.camera import Camera
from appliance.capture.mailbox import Bell
from appliance.confine.beacon import Beacon, NoBeacon
from appliance.deployment.blue_list import BlueList
from appliance.recognition.decide import Decider
from appliance.recognition.detect import Detector
from appliance.recognition.extract import Extractor
from appliance.recognition.identify import Identifier
from appliance.recognition.track import Tracker
from appliance.records import Candidate, Frame, Health, Probe
from appliance.sockets.link import LinkCounts
from appliance.vision.meter import Meter, resident_bytes, temperature
from appliance.vision.sealer import Sealer

Allowed = Callable[[float, float], str | None]
"""(UTC seconds, steady seconds) to the reason why scanning must stop now, or None while it is allowed."""


class Outlet(Protocol):
    """Where sealed containers go. `send` never blocks the loop; False means that an alert was lost, and was said."""

    @property
    def pending(self) -> int: ...

    @property
    def counts(self) -> LinkCounts: ...

    def send(self, container: bytes, kind: str) -> bool: ...


@dataclass(frozen=True)
class Lane:
    """One camera and what follows its picture alone: tracks never leave their camera."""

    camera: Camera
    tracker: Tracker
    extractor: Extractor


@dataclass(frozen=True)
class Summary:
    """What a run did; counts only. `stopped` is the permit's refusal, or empty where the cameras ended."""

    frames: int
    dropped: int
    faces: int
    tracks: int
    probes: int
    alerts: int
    seconds: float
    stopped: str
    failed_cameras: tuple[str, ...]


@dataclass
class Vision:
    """The loop. `run` returns when every camera has ended, the permit refuses, or `stop` was called."""

    unit: str
    deployment: str
    lanes: Sequence[Lane]
    bell: Bell
    detector: Detector
    identifier: Identifier
    decider: Decider
    sealer: Sealer
    outlet: Outlet
    permit: Allowed
    health_seconds: float = 10.0
    meter: Meter = field(default_factory=Meter)
    on_alert: Callable[[Probe, Candidate], None] | None = None
    on_turn: Callable[[], object] = lambda: None
    each_second: list[Callable[[], object]] = field(default_factory=list)
    beacon: Beacon = field(default_factory=NoBeacon)
    blue: BlueList | None = None
    sandbox: tuple[str, ...] = ()
    _newer: Identifier | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _health_due: float = 0.0
    _permit_due: float = 0.0

    def run(self) -> Summary:
        """Scan until there is a reason not to. Raises BeaconError where the lamp cannot be lit, and reads nothing."""
        refusal = self._refusal()
        if refusal is None:
            refusal = self._scan()
        for lane in self.lanes:
            lane.extractor.forget(lane.tracker.finish())
        self._send_health("ended" if refusal is None else "disarmed")
        return self._summary(refusal or "")

    def _scan(self) -> str | None:
        """The lamp burns from before the first picture until after the last."""
        with self.beacon.lit():
            try:
                for lane in self.lanes:
                    lane.camera.start()
                return self._loop()
            finally:
                for lane in self.lanes:
                    lane.camera.stop()

    def use(self, newer: Identifier) -> None:
        """Search another version of the watchlist from the next frame on; the old one is erased. From any thread."""
        self._newer = newer

    @property
    def compared(self) -> int:
        """Tracks of which at least one face was compared."""
        return sum(lane.extractor.compared for lane in self.lanes)

    def stop(self) -> None:
        """Ask the loop to end after the frame it is at. Safe from any thread or signal handler."""
        self._stop.set()
        self.bell.ring()

    def _loop(self) -> str | None:
        while not self._stop.is_set():
            refusal = self._refusal()
            if refusal is not None:
                return refusal
            worked = False
            for lane in self.lanes:
                with self.meter.stage("capture"):
                    frame = lane.camera.take()
                if frame is not None:
                    self._process(lane, frame)
                    worked = True
            self._tick()
            self.on_turn()
            if not worked:
                if all(lane.camera.finished for lane in self.lanes):
                    return None
                self.bell.wait(0.25)
        return None

    def _process(self, lane: Lane, frame: Frame) -> None:
        meter = self.meter
        meter.frames += 1
        with meter.stage("detect"):
            faces = self.detector.detect(frame.image)
        meter.faces += len(faces)
        with meter.stage("track"):
            tracks, ended = lane.tracker.update(faces, frame.clock)
        for track in ended:
            self.decider.forget(lane.camera.name, track.number)
        lane.extractor.forget(ended)
        with meter.stage("extract"):
            probes = lane.extractor.extract(frame, tracks)
        for probe in probes:
            meter.probes += 1
            self._compare(probe)

    def _compare(self, probe: Probe) -> None:
        with self.meter.stage("identify"):
            candidates = self.identifier.identify(probe)
            templates = self.identifier.watchlist.templates
            chosen = self.decider.decide(probe, candidates, templates, time.monotonic())
        if chosen is None:
            return
        with self.meter.stage("seal"):
            container = self.sealer.alert(probe, chosen, time.time())
        self.outlet.send(container, "alert")
        self.meter.alerts += 1
        if self.on_alert is not None:
            self.on_alert(probe, chosen)

    def _refusal(self) -> str | None:
        steady = time.monotonic()
        if steady < self._permit_due:
            return None
        self._permit_due = steady + 1.0
        for act in self.each_second:
            act()
        return self.permit(time.time(), steady)

    def _swap(self) -> None:
        newer, self._newer = self._newer, None
        if newer is not None:
            old, self.identifier = self.identifier, newer
            self.sealer.use_watchlist(newer.watchlist.digest)
            old.watchlist.erase()

    def _tick(self) -> None:
        self._swap()
        if time.monotonic() >= self._health_due:
            self._health_due = time.monotonic() + self.health_seconds
            self._send_health("armed")

    def _send_health(self, state: Literal["armed", "disarmed", "ended"]) -> None:
        self.outlet.send(self.sealer.health(self.health(state)), "health")

    def health(self, state: Literal["armed", "disarmed", "ended"] = "armed") -> Health:
        """The counts of this moment."""
        meter = self.meter
        passes, found, false = self.blue.counts() if self.blue is not None else (0, 0, 0)
        return Health(
            unit=self.unit, deployment=self.deployment, time=time.time(), uptime=round(meter.uptime, 1), state=state,
            cameras=tuple(lane.camera.health() for lane in self.lanes), faces=meter.faces,
            tracks=sum(lane.tracker.count for lane in self.lanes), probes=meter.probes, alerts=meter.alerts,
            compared=self.compared, queued=self.outlet.counts.queued + self.outlet.pending, stages=meter.stages(),
            resident_bytes=resident_bytes(),
            temperature=temperature(), watchlist_entries=len(self.identifier.watchlist.templates),
            watchlist_recall=self.identifier.recall.share, blue_passes=passes, blue_found=found, false_alerts=false,
            beacon=self.beacon.state, sandbox=self.sandbox,
        )  # fmt: skip

    def _summary(self, stopped: str) -> Summary:
        health = [lane.camera.health() for lane in self.lanes]
        return Summary(
            frames=self.meter.frames, dropped=sum(h.dropped for h in health), faces=self.meter.faces,
            tracks=sum(lane.tracker.count for lane in self.lanes), probes=self.meter.probes, alerts=self.meter.alerts,
            seconds=round(self.meter.uptime, 3), stopped=stopped,
            failed_cameras=tuple(lane.camera.name for lane in self.lanes if lane.camera.failed),
        )  # fmt: skip
