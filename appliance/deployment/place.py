"""Where the unit is: the polygon of an order, and a position from gpsd or from a file.

No position is not a position outside: the design stops capture outside the polygon "where a position is known". A
source that is configured but says nothing for a minute is another matter: then the unit does not know any more that
it is where it may be, and stops.
"""

from __future__ import annotations

import json
import math
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from appliance.formats.order import Degrees

STALE_SECONDS = 60.0
_METRES_PER_DEGREE = 111_320.0
_LINE = 65_536


@dataclass(frozen=True)
class Position:
    """Latitude and longitude in degrees (WGS 84), `steady` the monotonic second it was known, `error` in metres."""

    latitude: float
    longitude: float
    steady: float
    error: float = 0.0


class PositionSource(Protocol):
    """Where a position comes from; None where none is known yet."""

    def latest(self) -> Position | None: ...


def inside(polygon: Sequence[Degrees], latitude: float, longitude: float) -> bool:
    """Whether a point lies in the polygon or on its edge: crossing number; exact enough for streets."""
    crossed = False
    for (a_lat, a_lon), (b_lat, b_lon) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        if _on_edge((a_lat, a_lon), (b_lat, b_lon), latitude, longitude):
            return True
        if (a_lon > longitude) != (b_lon > longitude):
            at = a_lat + (longitude - a_lon) / (b_lon - a_lon) * (b_lat - a_lat)
            crossed ^= latitude < at
    return crossed


def outside_by(polygon: Sequence[Degrees], latitude: float, longitude: float) -> float:
    """Metres from a point outside to the polygon's nearest edge; 0 inside."""
    if inside(polygon, latitude, longitude):
        return 0.0
    shrink = math.cos(math.radians(latitude))
    points = [((p[1] - longitude) * shrink, p[0] - latitude) for p in polygon]
    edges = zip(points, [*points[1:], points[0]], strict=True)
    return min(_distance(a, b) for a, b in edges) * _METRES_PER_DEGREE


class FilePosition:
    """A position from a JSON file {"latitude": ..., "longitude": ...}: for tests, and for receivers that write one.

    The file's age counts: a receiver that stopped writing is not a position.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def latest(self) -> Position | None:
        try:
            age = max(0.0, time.time() - self._path.stat().st_mtime)
            data = json.loads(self._path.read_bytes()[:4096])
            return Position(float(data["latitude"]), float(data["longitude"]), time.monotonic() - age,
                            float(data.get("error", 0.0)))  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None  # an unreadable file is no position; the permit treats a silent source as a reason to stop


class GpsdPosition:
    """A position from gpsd's JSON protocol (`?WATCH`), read in a thread of its own, which reconnects by itself."""

    def __init__(self, host: str = "127.0.0.1", port: int = 2947, retry: float = 5.0) -> None:
        self._address, self._retry = (host, port), retry
        self._latest: Position | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gpsd", daemon=True)
        self._thread.start()

    def latest(self) -> Position | None:
        return self._latest

    def close(self) -> None:
        """Stop the thread."""
        self._stop.set()
        self._thread.join(timeout=2)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with socket.create_connection(self._address, timeout=2) as stream:
                    stream.sendall(b'?WATCH={"enable":true,"json":true};\n')
                    self._listen(stream)
            except OSError:
                pass  # gpsd is away: the position grows stale, which the permit sees; try again
            self._stop.wait(self._retry)

    def _listen(self, stream: socket.socket) -> None:
        waiting = b""
        stream.settimeout(1)
        while not self._stop.is_set():
            try:
                part = stream.recv(4096)
            except TimeoutError:
                continue
            if not part or len(waiting) > _LINE:
                return
            *lines, waiting = (waiting + part).split(b"\n")
            for line in lines:
                self._latest = parse_tpv(line, time.monotonic()) or self._latest


def parse_tpv(line: bytes, steady: float) -> Position | None:
    """A gpsd report with a fix of two or three dimensions, or None for anything else."""
    try:
        data = json.loads(line)
        if data.get("class") != "TPV" or int(data.get("mode", 0)) < 2:
            return None
        position = Position(float(data["lat"]), float(data["lon"]), steady, float(data.get("eph", 0.0)))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return None
    return position if math.isfinite(position.latitude) and math.isfinite(position.longitude) else None


def source_of(text: str) -> PositionSource:
    """`gpsd`, `gpsd://host:port`, or the path of a JSON file."""
    if text == "gpsd":
        return GpsdPosition()
    if text.startswith("gpsd://"):
        host, _, port = text.removeprefix("gpsd://").partition(":")
        return GpsdPosition(host or "127.0.0.1", int(port or 2947))
    return FilePosition(Path(text))


PositionReader = Callable[[], Position | None]


def _on_edge(a: Degrees, b: Degrees, latitude: float, longitude: float) -> bool:
    cross = (b[0] - a[0]) * (longitude - a[1]) - (b[1] - a[1]) * (latitude - a[0])
    between = min(a[0], b[0]) <= latitude <= max(a[0], b[0]) and min(a[1], b[1]) <= longitude <= max(a[1], b[1])
    return between and abs(cross) < 1e-12


def _distance(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Distance of the origin from the segment a to b."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    length = dx * dx + dy * dy
    along = 0.0 if length == 0 else min(1.0, max(0.0, -(a[0] * dx + a[1] * dy) / length))
    return math.hypot(a[0] + along * dx, a[1] + along * dy)
