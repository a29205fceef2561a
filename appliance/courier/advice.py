"""What an operator can do about an outbox that SQLite cannot use."""

from __future__ import annotations

import sqlite3
from pathlib import Path

FULL = "{}: the disk is full; free some space, the envelope is kept in memory and tried again"


def advice(path: Path, error: sqlite3.Error) -> str:
    """One line for an error."""
    if "full" in str(error) or "I/O" in str(error):
        return FULL.format(path) + f" ({error})"
    if "locked" in str(error):
        return f"{path}: another courier uses this outbox; stop it, one outbox has one courier"
    if "readonly" in str(error):
        return f"{path}: cannot be written; the outbox needs a folder it may write"
    return f"{path}: cannot be used ({error}); check the disk"
