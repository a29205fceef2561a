"""Counts and stage times of a running unit; the numbers identify nobody."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance.records import StageTimes

_KEPT = 2000  # readings a stage's median is taken over
_THERMAL = Path("/sys/class/thermal")


class Meter:
    """Counters, and milliseconds of each stage over the last frames. Not thread-safe."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.frames = self.faces = self.probes = self.alerts = 0
        self._times: dict[str, deque[float]] = {name: deque(maxlen=_KEPT) for name in StageTimes.model_fields}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one run of a stage."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._times[name].append((time.perf_counter() - began) * 1e3)

    def stages(self) -> StageTimes:
        """Median milliseconds of each stage that ran."""
        return StageTimes(**{n: round(statistics.median(t), 3) if t else 0.0 for n, t in self._times.items()})

    @property
    def uptime(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started


def resident_bytes() -> int:
    """Resident memory of this process, in bytes."""
    with Path("/proc/self/statm").open() as file:
        return int(file.read().split()[1]) * 4096


def temperature() -> float | None:
    """The hottest thermal zone in degrees Celsius, or None where the machine tells none."""
    readings = []
    for zone in _THERMAL.glob("thermal_zone*/temp"):
        try:
            readings.append(int(zone.read_text()) / 1000.0)
        except (OSError, ValueError):
            continue  # a zone may be switched off; the others still tell
    return max(readings) if readings else None
