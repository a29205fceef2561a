"""A map that needs no internet: an order's polygon in metres, north up, with a scale and a grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_METRES = 111_320.0  # one degree of latitude
_WIDTH, _HEIGHT, _MARGIN, _FOOT = 320.0, 216.0, 22.0, 18.0  # of the drawing, in its own units; the scale is at its foot
_STEPS = (5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 50_000, 200_000)  # metres between grid lines


@dataclass(frozen=True)
class Drawing:
    """Coordinates in a box of `width` by `height` units, y down. `step` is the grid's, in words and in units."""

    width: float
    height: float
    points: str  # of an SVG polygon
    columns: tuple[float, ...]
    rows: tuple[float, ...]
    step: str
    step_units: float
    across: str  # its extent in words


def draw(polygon: Sequence[tuple[float, float]]) -> Drawing:
    """`polygon` is (latitude, longitude) in degrees. Equirectangular around its middle: right to a few centimetres."""
    north, south = max(p[0] for p in polygon), min(p[0] for p in polygon)
    east, west = max(p[1] for p in polygon), min(p[1] for p in polygon)
    squeeze = math.cos(math.radians((north + south) / 2))
    wide = max((east - west) * squeeze * _METRES, 1.0)
    high = max((north - south) * _METRES, 1.0)
    scale = min((_WIDTH - 2 * _MARGIN) / wide, (_HEIGHT - _FOOT - 2 * _MARGIN) / high)  # units a metre
    left, top = (_WIDTH - wide * scale) / 2, (_HEIGHT - _FOOT - high * scale) / 2
    points = (
        (left + (lon - west) * squeeze * _METRES * scale, top + (north - lat) * _METRES * scale) for lat, lon in polygon
    )
    step = next((s for s in _STEPS if s * scale >= 30), _STEPS[-1])
    return Drawing(
        width=_WIDTH, height=_HEIGHT, points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points),
        columns=_lines(_WIDTH, step * scale), rows=_lines(_HEIGHT, step * scale), step=_metres(step),
        step_units=round(step * scale, 1), across=f"{_metres(wide)} by {_metres(high)}",
    )  # fmt: skip


def _lines(length: float, step: float) -> tuple[float, ...]:
    """Beyond both ends too: a page may show more than the box."""
    beyond = math.ceil(length / step)
    return tuple(round(i * step, 1) for i in range(-beyond, 2 * beyond + 1))


def _metres(value: float) -> str:
    return f"{value:.0f} m" if value < 1000 else f"{value / 1000:.3g} km"
