"""What is known of each unit now: its courier's state, its last signed health report, what is missing or quarantined.

The receiver's thread writes, the console and the metrics read. Nothing here decides anything.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from appliance.records import CourierState, Health
from control.records import UnitView


class Fleet:
    """The units that were heard of since the start, by name. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._units: dict[str, UnitView] = {}
        self._strangers: dict[str, UnitView] = {}

    def units(self) -> list[UnitView]:
        """Every unit, and every name that is not on the roster and wants to be heard, by name."""
        with self._lock:
            return [view for _, view in sorted({**self._strangers, **self._units}.items())]

    def note_state(self, state: CourierState) -> bool:
        """A courier's state. True where it came or went, which people should see at once."""
        with self._lock:
            before = self._view(state.unit).courier
            self._units[state.unit] = self._heard(state.unit).model_copy(update={"courier": state})
            return before is None or (before.state, before.vision) != (state.state, state.vision)

    def note_health(self, health: Health) -> bool:
        """A health report. True where the unit's own state changed."""
        with self._lock:
            before = self._view(health.unit).health
            self._units[health.unit] = self._heard(health.unit).model_copy(update={"health": health})
            return before is None or (before.state, before.deployment) != (health.state, health.deployment)

    def note_heard(self, unit: str, missing: int) -> None:
        """Something verified came from a unit whose chains now miss so many alerts."""
        with self._lock:
            self._units[unit] = self._heard(unit).model_copy(update={"missing": missing})

    def note_quarantine(self, quarantined: Mapping[str, int]) -> None:
        """How many messages of each unit that is not on the roster wait for a newer one."""
        with self._lock:
            self._strangers = {
                name: UnitView(unit=name, seen=self._clock(), courier=None, health=None, quarantined=count)
                for name, count in quarantined.items()
            }

    def _view(self, name: str) -> UnitView:
        return self._units.get(name) or UnitView(unit=name, seen=self._clock(), courier=None, health=None)

    def _heard(self, name: str) -> UnitView:
        return self._view(name).model_copy(update={"seen": self._clock()})
