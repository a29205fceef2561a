"""A shift: scan while the permit allows, pause outside the place, and end the deployment when it is over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from appliance import unit
from appliance.arming import Permit
from appliance.config import UnitConfig
from appliance.vision import Summary

_PAUSE_SECONDS = 1.0  # how often a paused unit looks whether it may go on


@dataclass
class Shift:
    """One run of a unit, from assembly to the last delivery. `stop` may be called from a signal handler."""

    config: UnitConfig
    say: Callable[[str], None]
    undelivered: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _unit: unit.Unit | None = None

    def run(self) -> Summary:
        """Scan to the end; the summary is of the last stretch between two pauses. Raises BluelampError."""
        while True:
            summary, permit = self._stretch()
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

    def _stretch(self) -> tuple[Summary, Permit | None]:
        assembled = unit.assemble(self.config, self.say)
        self._unit = assembled
        if self._stop.is_set():
            assembled.vision.stop()
        try:
            summary = assembled.vision.run()
            assembled.end(summary)
        finally:
            self.undelivered += assembled.close()
        return summary, assembled.permit
