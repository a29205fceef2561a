"""One line of `bluelamp-unit check`: what was found, or what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from appliance.errors import BluelampError

Found = TypeVar("Found")


@dataclass(frozen=True)
class Line:
    """One finding. `good`: scanning is possible with it; `look`: it is, but somebody should look at it."""

    name: str
    good: bool
    text: str
    look: bool = False


def tried(name: str, act: Callable[[], Found], tell: Callable[[Any], str] = str) -> tuple[Found | None, Line]:
    """What `act` gave and a line that tells it; None and its message where it failed as expected."""
    try:
        found = act()
    except BluelampError as error:
        return None, Line(name, False, str(error))
    return found, Line(name, True, tell(found))
