"""Times as people and records write them."""

from __future__ import annotations

from datetime import datetime, timezone


def utc(seconds: float) -> str:
    """UTC seconds as people read them."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
