"""Bounds of a container's public header: checked before it is stored, and once more before it is sent.

Vision may have been taken over. A time that no calendar holds, or a number that no database holds, must stop nobody.
"""

from __future__ import annotations

from appliance.limits import LIMITS
from appliance.records import Header


def out_of_bounds(header: Header) -> str | None:
    """What is wrong with a header, or None."""
    for name in ("created", "expires"):
        value = getattr(header, name)
        if not 0 <= value <= LIMITS.latest_time:  # an endless number and no number are refused as well
            return f"{name} is {value}; it must be a time between 1970 and 2100"
    if header.expires < header.created:
        return "it expires before it was created"
    if header.sequence > LIMITS.sequence:
        return f"sequence is {header.sequence}; the greatest is {LIMITS.sequence}"
    for name in ("id", "chain", "sender", "recipient"):
        value = getattr(header, name)
        if not (value.isascii() and value.isprintable()) or (name == "id" and not value):
            return f"{name} is not plain text"
    return None
