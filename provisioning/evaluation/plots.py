"""Plots as SVG text: they stand in the report itself, and take their colours from its light or dark style."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, LEFT, BOTTOM = 560, 340, 62, 46


@dataclass(frozen=True)
class Line:
    """One curve: a name and its points, in data units."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Bar:
    """One estimate with its limits."""

    name: str
    value: float
    low: float
    high: float


def curves(title: str, x: str, y: str, lines: Sequence[Line], log_y: bool = True, key: int = WIDTH - 162) -> str:
    """Curves over a logarithmic x axis, and a logarithmic y axis if wanted; points at or below zero are left out.

    `key` is where the names of the curves stand, from the left.
    """
    kept = [Line(n.name, [p for p in n.points if p[0] > 0 and (p[1] > 0 or not log_y)]) for n in lines]
    points = [p for line in kept for p in line.points]
    if not points:
        return ""
    x0, x1 = _decades(min(p[0] for p in points)), _decades(max(p[0] for p in points)) + 1
    y0, y1 = (_decades(min(p[1] for p in points)), _decades(max(p[1] for p in points)) + 1) if log_y else (0, 1)

    def place(point: tuple[float, float]) -> tuple[float, float]:
        across = (math.log10(point[0]) - x0) / max(x1 - x0, 1)
        up = (math.log10(point[1]) - y0) / max(y1 - y0, 1) if log_y else point[1]
        return LEFT + across * (WIDTH - LEFT - 12), HEIGHT - BOTTOM - up * (HEIGHT - BOTTOM - 28)

    parts = [_vertical(place((10.0**k, 10.0**y0 if log_y else 0.0))[0], _power(k)) for k in range(x0, x1 + 1)]
    ticks = [(10.0**k, _power(k)) for k in range(y0, y1 + 1)] if log_y else [(k / 5, f"{k / 5:.1f}") for k in range(6)]
    parts += [_horizontal(place((10.0**x0, value))[1], name) for value, name in ticks]
    for number, line in enumerate(kept):
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in map(place, line.points))
        parts.append(f'<polyline class="c{number % 5}" points="{path}"><title>{escape(line.name)}</title></polyline>')
        parts.append(_key(number, line.name, key + 12))
    return _framed(title, x, y, parts)


def bars(title: str, x: str, rows: Sequence[Bar], log: bool = False) -> str:
    """Estimates as dots with their limits as lines, one a row; over decades, or with a line at zero."""
    usable = [r for r in rows if r.high > 0 or not log]
    if not usable:
        return ""
    left = 16 + 6.4 * max(len(r.name) for r in usable)
    width, height = left + 360, 60 + 24 * len(usable)
    low = min(max(r.low, r.high / 1000) if log else min(r.low, 0.0) for r in usable)
    top = max(max(r.high for r in usable), low + 1e-12)
    first, last = (math.log10(low), math.log10(top)) if log else (low, top)

    def across(value: float) -> float:
        shown = math.log10(max(value, low)) if log else value
        return left + (shown - first) / max(last - first, 1e-12) * (width - left - 24)

    parts = []
    for value in _marks(first, last, log):
        name = f"{10**value:.0e}" if log else f"{value:g}"
        place = across(10**value if log else value)
        kind = "z" if value == 0 and not log else "g"
        parts.append(
            f'<line class="{kind}" x1="{place:.1f}" x2="{place:.1f}" y1="26" y2="{height - 40}"/>'
            f'<text x="{place:.1f}" y="{height - 26}" text-anchor="middle">{name}</text>'
        )
    for number, row in enumerate(usable):
        y = 38 + 24 * number
        limits = f"{row.value:.3g} [{row.low:.3g}, {row.high:.3g}]"
        parts.append(
            f'<g><title>{escape(row.name)}: {limits}</title><text x="{left - 8:.0f}" y="{y + 4}" text-anchor="end">'
            f'{escape(row.name)}</text><line class="c0" x1="{across(row.low):.1f}" x2="{across(row.high):.1f}" '
            f'y1="{y}" y2="{y}"/>'
            f'<circle class="d0" cx="{across(row.value):.1f}" cy="{y}" r="4"/></g>'
        )
    return (
        f'<svg viewBox="0 0 {width:.0f} {height}" style="max-width:{width / 14:.0f}rem" role="img" '
        f'aria-label="{escape(title)}"><text class="t" x="{width / 2:.0f}" y="18" text-anchor="middle">{escape(title)}'
        f'</text>{"".join(parts)}<text x="{(left + width) / 2:.0f}" y="{height - 6}" text-anchor="middle">{escape(x)}'
        "</text></svg>"
    )


def _marks(first: float, last: float, log: bool) -> list[float]:
    """Where an axis is labelled: whole decades (halves of short ones), or some five round numbers."""
    span = max(last - first, 1e-12)
    step = (1.0 if span > 1 else 0.5) if log else 10 ** math.floor(math.log10(span / 3))
    step *= 1 if log else next(k for k in (1, 2, 5, 10) if span / (step * k) <= 6)
    return [step * k for k in range(math.ceil(first / step - 1e-9), math.floor(last / step + 1e-9) + 1)]


def _power(exponent: int) -> str:
    return "1" if exponent == 0 else "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _decades(value: float) -> int:
    return math.floor(math.log10(value) - 1e-9)


def _vertical(x: float, name: str) -> str:
    return (
        f'<line class="g" x1="{x:.1f}" x2="{x:.1f}" y1="28" y2="{HEIGHT - BOTTOM}"/>'
        f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{name}</text>'
    )


def _horizontal(y: float, name: str) -> str:
    return (
        f'<line class="g" x1="{LEFT}" x2="{WIDTH - 12}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{name}</text>'
    )


def _key(number: int, name: str, left: int) -> str:
    y = 44 + 16 * number
    return (
        f'<line class="c{number % 5}" x1="{left}" x2="{left + 24}" y1="{y}" y2="{y}"/>'
        f'<text x="{left + 30}" y="{y + 4}">{escape(name)}</text>'
    )


def _framed(title: str, x: str, y: str, parts: list[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f'<text class="t" x="{WIDTH / 2}" y="18" '
        f'text-anchor="middle">{escape(title)}</text>{"".join(parts)}<text x="{WIDTH / 2}" y="{HEIGHT - 8}" '
        f'text-anchor="middle">{escape(x)}</text><text transform="translate(14 {HEIGHT / 2}) rotate(-90)" '
        f'text-anchor="middle">{escape(y)}</text></svg>'
    )
