"""What is known of each unit now: its courier's state, its last signed health report, what is missing or quarantined.

The receiver's thread writes, the console and the metrics read. Nothing here decides anything.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from appliance.records import CourierState, Health
from control.records import UnitView


@dataclass(frozen=True)
class BrokerLink:
    """The control room's own connection: whether it stands, since when (UTC seconds), and what was last said of it."""

    connected: bool
    since: float
    words: str


class Fleet:
    """The units that were heard of since the start, by name. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._units: dict[str, UnitView] = {}
        self._strangers: dict[str, UnitView] = {}
        self._broker = BrokerLink(False, clock(), "not connected yet")

    def broker(self) -> BrokerLink:
        """Whether alerts can arrive now. While they cannot, they wait at the broker, or at the units."""
        with self._lock:
            return self._broker

    def note_broker(self, connected: bool, words: str) -> bool:
        """What became of the connection. True where it came or went."""
        with self._lock:
            changed = connected != self._broker.connected
            since = self._clock() if changed else self._broker.since
            self._broker = BrokerLink(connected, since, words)
            return changed

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

    def note_heard(self, unit: str, missing: int) -> bool:
        """Something verified came from a unit whose chains now miss so many alerts. True where that number changed."""
        with self._lock:
            before = self._view(unit).missing
            self._units[unit] = self._heard(unit).model_copy(update={"missing": missing})
            return missing != before

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
