"""Space kept for the moment the disk is full: deleting from a database needs room too.

A file of zeros beside the outbox. It is given up when a deletion fails for lack of space, and taken back as soon as
there is room; as long as it is gone, nothing new is stored.
"""

from __future__ import annotations

import os
from pathlib import Path

RESERVE_BYTES = 1 << 20
_LEAST_BYTES = 1 << 16


class Reserve:
    """One reserve file. Not thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def held(self) -> bool:
        """Whether the space is kept."""
        return self._path.exists()

    @property
    def size(self) -> int:
        """How much is kept, in bytes."""
        return self._path.stat().st_size if self.held else 0

    def hold(self) -> bool:
        """Keep the space, or on a nearly full disk less of it; False where there is none."""
        size = RESERVE_BYTES
        while not self.held and size >= _LEAST_BYTES:
            self._allocate(size)
            size //= 2
        return self.held

    def release(self) -> None:
        """Give the space up."""
        self._path.unlink(missing_ok=True)

    def _allocate(self, size: int) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError:
            self.release()  # no room for that much
        finally:
            os.close(descriptor)
