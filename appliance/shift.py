"""A shift of the vision process: scan while the permit allows, pause outside the place, and have an ended deployment
erased by the keeper, who alone may."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from appliance import keeper, unit
from appliance.arming import Permit
from appliance.beacon import Beacon, open_beacon
from appliance.config import UnitConfig
from appliance.keys import KeyFolder
from appliance.layout import keeper_path
from appliance.unit import Networks
from appliance.vision import Summary

_PAUSE_SECONDS = 1.0  # how often a paused unit looks whether it may go on
_KEEPER_SECONDS = 15.0  # how long a keeper that is just starting is waited for


@dataclass
class Shift:
    """One run of vision, from keys to the last delivery. `stop` may be called from a signal handler."""

    config: UnitConfig
    say: Callable[[str], None]
    undelivered: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _unit: unit.Unit | None = None

    def run(self) -> Summary:
        """Scan to the end; the summary is of the last stretch between two pauses. Raises BluelampError."""
        folder = unit.open_keys(self.config)
        beacon = open_beacon(self.config.beacon, self.say)
        networks = unit.open_networks(self.config)
        while True:
            summary, permit = self._stretch(folder, networks, beacon)
            if permit is None or permit.ending is not None or not summary.stopped or self._stop.is_set():
                return summary
            self.say(f"paused: {summary.stopped}")
            while permit(time.time(), time.monotonic()) is not None and permit.ending is None:
                if self._stop.wait(_PAUSE_SECONDS):
                    return summary
            self.say("going on")

    def stop(self) -> None:
        """End after the frame at hand."""
        self._stop.set()
        if self._unit is not None:
            self._unit.vision.stop()

    def _stretch(self, folder: KeyFolder, networks: Networks, beacon: Beacon) -> tuple[Summary, Permit | None]:
        assembled = unit.assemble(self.config, folder, networks, beacon, self.say)
        self._unit = assembled
        if self._stop.is_set():
            assembled.vision.stop()
        try:
            summary = assembled.vision.run()
            over = assembled.over(summary)
            if over is not None:
                keeper.ask(keeper_path(self.config), over, _KEEPER_SECONDS)
        finally:
            self.undelivered += assembled.close()
        return summary, assembled.permit
