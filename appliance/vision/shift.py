"""A shift of the vision process: scan while the permit allows, pause outside the place, and have an ended deployment
erased by the keeper, who alone may."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from appliance.camera_kinds import kind_of
from appliance.config import UnitConfig
from appliance.confine import beacon, sandbox
from appliance.confine.sandbox import Sandbox
from appliance.confine.watchdog import Watchdog
from appliance.deployment.layout import figures_path, keeper_path
from appliance.errors import CourierError
from appliance.records import Health
from appliance.sockets import health as figures
from appliance.sockets import parent as leash
from appliance.sockets.ending import ask
from appliance.sockets.health import Figures
from appliance.vision import unit
from appliance.vision.loop import Summary
from appliance.vision.unit import Gear

_PAUSE_SECONDS = 1.0  # how often a paused unit looks whether it may go on
_KEEPER_SECONDS = 15.0  # how long a keeper that is just starting is waited for


@dataclass
class Shift:
    """One run of vision, from keys to the last delivery. `stop` may be called from a signal handler."""

    config: UnitConfig
    say: Callable[[str], None]
    leashed: bool = False  # whether to end when standard input closes
    undelivered: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _unit: unit.Unit | None = None

    def run(self) -> Summary:
        """Scan to the end; the summary is of the last stretch between two pauses. Raises BluelampError."""
        gear, shown = self._gear()
        try:
            return self._stretches(gear)
        finally:
            gear.watchdog.stopping("ended")
            if shown is not None:
                shown.stop()

    def stop(self) -> None:
        """End after the frame at hand."""
        self._stop.set()
        if self._unit is not None:
            self._unit.vision.stop()

    def _gear(self) -> tuple[Gear, Figures | None]:
        """What lasts for the whole shift, in the order in which rights are given up (sandbox.py)."""
        config, given_up = self.config, Sandbox(self.say, self.config.sandbox.require)
        folder = unit.open_keys(config)
        lamp = beacon.open_beacon(config.beacon, self.say)
        shown = self._figures()
        kinds = {kind_of(c.source) for c in config.camera}
        given_up.files([*beacon.writable(config.beacon), *sandbox.devices(bool(kinds & {"v4l2", "gstreamer"}))])
        if self.leashed:
            leash.follow_parent(self.stop)
        networks = unit.open_networks(config)
        given_up.calls(_networked(config))
        if shown is not None:
            shown.start()
        show = shown.show if shown is not None else lambda health: None
        return Gear(folder, networks, lamp, Watchdog(self.say), show, given_up.got), shown

    def _figures(self) -> Figures | None:
        try:
            return figures.serve(figures_path(self.config))
        except (OSError, CourierError) as error:
            self.say(f"no figures for status: {error}")
            return None

    def _stretches(self, gear: Gear) -> Summary:
        while True:
            assembled, summary, health = self._stretch(gear)
            permit = assembled.permit
            if permit is None or permit.ending is not None or not summary.stopped or self._stop.is_set():
                return summary
            self.say(f"paused: {summary.stopped}")
            while permit(time.time(), time.monotonic()) is not None and permit.ending is None:
                gear.watchdog.paused(summary.stopped)
                gear.show(health.model_copy(update={"time": time.time()}))
                if self._stop.wait(_PAUSE_SECONDS):
                    return summary
            if permit.ending is not None:
                self._have_erased(assembled, summary)
                return replace(summary, stopped=f"{permit.ending} while paused")
            self.say("going on")

    def _stretch(self, gear: Gear) -> tuple[unit.Unit, Summary, Health]:
        assembled = unit.assemble(self.config, gear, self.say)
        self._unit = assembled
        if self._stop.is_set():
            assembled.vision.stop()
        try:
            summary = assembled.vision.run()
            health = assembled.vision.health("disarmed" if summary.stopped else "ended")
            gear.show(health)
            self._have_erased(assembled, summary)
        finally:
            self.undelivered += assembled.close()
        return assembled, summary, health

    def _have_erased(self, assembled: unit.Unit, summary: Summary) -> None:
        """Where the deployment is over for good. Raises KeeperError."""
        over = assembled.over(summary)
        if over is not None:
            ask(keeper_path(self.config), over, _KEEPER_SECONDS)


def _networked(config: UnitConfig) -> str:
    """What needs the network in this very process, in words; empty: nothing."""
    needed = [f"camera {c.name}" for c in config.camera if kind_of(c.source) == "rtsp"]
    if config.unit.position is not None and config.unit.position.startswith("gpsd"):
        needed.append("gpsd")
    return ", ".join(needed)
