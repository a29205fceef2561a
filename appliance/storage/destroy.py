"""Overwrites and removes a file, so that its bytes cannot be read back from the file system."""

from __future__ import annotations

import os
from pathlib import Path


def destroy(path: Path) -> None:
    """Take a key file out of use, overwrite it once, remove it; each step on disk before the next.

    Out of use first: half overwritten it would be in the way of every other key in its folder. A run that was cut off
    is finished by calling it again.
    """
    doomed = path.with_name(path.name + ".gone")
    if path.exists():
        path.replace(doomed)
        sync_folder(path.parent)
    if not doomed.exists():
        return
    size = doomed.stat().st_size
    descriptor = os.open(doomed, os.O_WRONLY)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        file.write(os.urandom(size))
        os.fsync(descriptor)
    doomed.unlink()
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Names that were made or removed in a folder are on disk when this returns."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
