"""Moments as technicians write them: always with a time zone, because a window an hour off arms an hour off."""

from __future__ import annotations

import datetime
import re
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from appliance.errors import ConfigError

_IN = re.compile(r"\+(\d{1,4})(m|h|d)")
_SECONDS = {"m": 60, "h": 3600, "d": 86400}


def moment(text: str, zone: str | None, now: float) -> float:
    """UTC seconds of `now`, `+90m`, `+2h`, or an ISO date and time with an offset, or without one and a zone given.

    Raises ConfigError for one without a zone, and for one that the zone's clocks skip or show twice.
    """
    text = text.strip()
    if text == "now":
        return now
    if relative := _IN.fullmatch(text):
        return now + int(relative[1]) * _SECONDS[relative[2]]
    try:
        parsed = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError as error:
        raise ConfigError(f"{text!r}: write 2026-11-22T18:00+00:00, or +2h from now") from error
    if parsed.tzinfo is not None:
        return parsed.timestamp()
    if zone is None:
        raise ConfigError(f"{text!r}: in which time zone? add Z or +01:00, or give --zone Europe/London")
    return _in_zone(parsed, zone)


def _in_zone(naive: datetime.datetime, zone: str) -> float:
    try:
        local = naive.replace(tzinfo=ZoneInfo(zone))
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ConfigError(f"{zone!r}: no such time zone; Europe/London, for example") from error
    if local.utcoffset() != local.replace(fold=1).utcoffset():
        raise ConfigError(
            f"{naive}: the clocks of {zone} change then, so it is no time or two; write it with an offset"
        )
    return local.timestamp()
