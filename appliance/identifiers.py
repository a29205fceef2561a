"""Identifiers that sort by time (RFC 9562, version 7) and tell nothing else."""

from __future__ import annotations

import os
import time
import uuid


def uuid7(now: float | None = None) -> str:
    """A version 7 UUID: 48 bits of milliseconds, the rest random."""
    milliseconds = int((time.time() if now is None else now) * 1000) & (1 << 48) - 1
    value = milliseconds << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))
