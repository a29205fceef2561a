"""Numbers that can be: what a unit signed is believed to come from it, not to be sane.

A unit that was taken over signs what it likes. An endless number, a time in the year 30,000 or a count beyond what a
database holds would stop every alert behind it, or every page that shows it, so it is refused with its field's name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from appliance.records import Record

GREATEST = 2.5e11  # of any float; as UTC seconds the year 9892, the last a calendar's four digits hold
_MOST = 2**53  # of any count: what every reader of JSON holds exactly


def unbelievable(record: Record) -> str | None:
    """The field of a record whose number cannot be, or None."""
    return next((name for name, value in _numbers(record.model_dump(), "") if not _can_be(value)), None)


def _can_be(value: float) -> bool:
    return abs(value) <= _MOST if isinstance(value, int) else math.isfinite(value) and abs(value) <= GREATEST


def _numbers(value: Any, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, (int, float)):
        yield name, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _numbers(inner, name)
