"""Counts of groups that may be published: a small one could point at somebody, so it is not shown.

Below LEAST a count is withheld, none at all included. Where what is withheld adds up to less than LEAST, a reader could
subtract it from the published total; the smallest count shown is then withheld, too, until it no longer does.
"""

from __future__ import annotations

from collections.abc import Mapping

from appliance.records import Record

LEAST = 5


class Cell(Record):
    """One group; `count` is None where it is withheld."""

    group: str
    count: int | None


def suppressed(counts: Mapping[str, int]) -> tuple[Cell, ...]:
    """The groups in their order, small counts withheld."""
    shown = {name for name, count in counts.items() if count >= LEAST}
    hidden = sum(count for name, count in counts.items() if name not in shown)
    while shown and 0 < hidden < LEAST:
        smallest = min(shown, key=lambda name: counts[name])
        shown.discard(smallest)
        hidden += counts[smallest]
    return tuple(Cell(group=name, count=count if name in shown else None) for name, count in counts.items())
