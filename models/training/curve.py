"""Draw a run's learning curve as SVG: held-out TAR against chips seen."""

from __future__ import annotations

import csv
from pathlib import Path

_LEFT, _TOP, _WIDTH, _HEIGHT = 56, 24, 520, 240
_LINES = (("tar_1e-3", "TAR at FAR 1e-3", "#1b4f8f"), ("tar_1e-4", "1e-4", "#c2661f"), ("tar_1e-5", "1e-5", "#3f7d3a"))
_FONT = 'font-family="sans-serif" font-size="11"'


def draw_curve(table: Path, picture: Path) -> None:
    """``table`` is the run's curve.csv; ``picture`` gets one line for each rate."""
    with table.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    chips = [int(row["chips"]) for row in rows]
    most = max(chips[-1], 1)
    parts = [_axes(most)]
    for place, (column, name, colour) in enumerate(_LINES):
        points = [_point(x / most, float(row[column])) for x, row in zip(chips, rows, strict=True)]
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{" ".join(points)}"/>')
        parts.append(f'<text x="{_LEFT + 8 + 110 * place}" y="16" fill="{colour}" {_FONT}>{name}</text>')
    size = f'width="{_LEFT + _WIDTH + 16}" height="{_TOP + _HEIGHT + 40}"'
    picture.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{"".join(parts)}</svg>\n', encoding="utf-8")


def _point(x: float, y: float) -> str:
    return f"{_LEFT + x * _WIDTH:.1f},{_TOP + (1 - y) * _HEIGHT:.1f}"


def _axes(most: int) -> str:
    marks = []
    for tenth in range(0, 11, 2):
        y = _TOP + (1 - tenth / 10) * _HEIGHT
        marks.append(f'<line x1="{_LEFT}" x2="{_LEFT + _WIDTH}" y1="{y}" y2="{y}" stroke="#ddd"/>')
        marks.append(f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end" {_FONT}>{tenth / 10}</text>')
    for quarter in range(5):
        x = _LEFT + quarter / 4 * _WIDTH
        said = f"{most * quarter / 4000:.0f}k"
        marks.append(f'<text x="{x}" y="{_TOP + _HEIGHT + 18}" text-anchor="middle" {_FONT}>{said}</text>')
    under = f'x="{_LEFT + _WIDTH / 2}" y="{_TOP + _HEIGHT + 34}" text-anchor="middle"'
    return "".join(marks) + f"<text {under} {_FONT}>chips seen</text>"
