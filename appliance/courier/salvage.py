"""What can still be read from a damaged outbox."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from appliance.errors import SealError
from appliance.limits import LIMITS
from appliance.records import Header
from appliance.trust import seal


def salvage(path: Path) -> Iterator[tuple[bytes, Header, str, float]]:
    """Rows of a damaged file, from both ends until it no longer reads; every container is checked."""
    done: set[int] = set()
    for order in ("ASC", "DESC"):
        try:
            db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
            cursor = db.execute(f"SELECT number, container, boot, stored FROM envelopes ORDER BY number {order}")
            for number, container, boot, stored in cursor:
                if number not in done:
                    done.add(number)
                    yield container, seal.take_apart(container, LIMITS.envelope_bytes).header, boot, stored
        except (sqlite3.Error, SealError, TypeError, OSError):
            continue  # the damage begins here


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file itself is bad, rather than the disk full or the file in use."""
    text = str(error)
    return isinstance(error, sqlite3.DatabaseError) and any(
        mark in text for mark in ("malformed", "not a database", "corrupt", "no such table", "no such column")
    )
