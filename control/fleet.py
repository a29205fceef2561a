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

    def units(self) -> list[UnitView]:
        """Every unit, by name."""
        with self._lock:
            return [self._units[name] for name in sorted(self._units)]

    def unit(self, name: str) -> UnitView | None:
        """One unit, or None where nothing was heard of it."""
        with self._lock:
            return self._units.get(name)

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

    def note_heard(self, unit: str) -> None:
        """Something else of a unit came."""
        with self._lock:
            self._units[unit] = self._heard(unit)

    def note_counts(self, missing: Mapping[str, int], quarantined: Mapping[str, int]) -> None:
        """How many alerts each unit's chains miss, and how many messages of each unknown unit wait for a roster.

        A unit that is known only by its quarantine goes when that is empty.
        """
        with self._lock:
            for name in {*self._units, *quarantined}:
                counts = {"missing": missing.get(name, 0), "quarantined": quarantined.get(name, 0)}
                self._units[name] = self._view(name).model_copy(update=counts)
            self._units = {name: view for name, view in self._units.items() if _is_known(view)}

    def _view(self, name: str) -> UnitView:
        return self._units.get(name) or UnitView(unit=name, seen=self._clock(), courier=None, health=None)

    def _heard(self, name: str) -> UnitView:
        return self._view(name).model_copy(update={"seen": self._clock()})


def _is_known(view: UnitView) -> bool:
    return bool(view.courier or view.health or view.missing or view.quarantined)
