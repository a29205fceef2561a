"""What lies on a stick or in an upload folder, read once and bounded, before any of it is believed.

 I1  names are counted before a file is opened: a folder with more than LIMITS.intake_names is no delivery
 I2  one level of folders and no more; every file is opened by the descriptor of its folder, and a link is not followed:
     nothing outside can be read through it, and nothing can be exchanged between look and read
 I3  only regular files whose name says that they are for this unit's intake, none larger than its kind may be
 I4  each is read whole into memory; where reading fails, the stick was pulled out, and nothing at all is taken

What was read is judged, and taken or left, in intake.py.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from appliance.errors import SealError
from appliance.formats.performance import REPORT_BYTES
from appliance.limits import LIMITS
from appliance.trust.envelope import DOCUMENT_BYTES

Kind = Literal["roster", "order", "preflight", "report", "watchlist"]
Read = Callable[[int, int], bytes]
"""(descriptor, most bytes) to bytes, none at the end; `os.read`. Raises OSError."""

_FORMS: tuple[tuple[str, Kind, int], ...] = (
    (r"roster\.json", "roster", LIMITS.config_bytes),
    (r"(.+[._-])?order\.json", "order", LIMITS.config_bytes),
    (r"preflight\.json", "preflight", DOCUMENT_BYTES),
    (r"report\.json", "report", REPORT_BYTES),
    (r".+\.(watchlist|blw)", "watchlist", LIMITS.watchlist_bytes),
)
_CHUNK = 1 << 20


class IntakeError(SealError):
    """Nothing of a delivery was taken; the text says why and what to do."""


@dataclass(frozen=True)
class File:
    """A file that was read: its name below the folder, what its name says it is, its bytes."""

    name: str
    kind: Kind
    blob: bytes


@dataclass(frozen=True)
class Left:
    """Something that was not read, and why."""

    name: str
    why: str


@dataclass(frozen=True)
class Delivery:
    """Everything a folder holds for the intake; `others` names meant nothing to it."""

    files: tuple[File, ...]
    left: tuple[Left, ...]
    others: int


@dataclass
class _Reading:
    """One walk: what is still allowed, what was found."""

    read: Read
    names: int = LIMITS.intake_names
    room: int = LIMITS.intake_bytes
    others: int = 0

    def folder(self, descriptor: int, prefix: str = "") -> Iterator[File | Left]:
        for name in self._listed(descriptor):
            about = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if stat.S_ISDIR(about.st_mode) and not prefix:
                with _opened(name, os.O_DIRECTORY | os.O_NOFOLLOW, descriptor) as inner:
                    yield from self.folder(inner, f"{name}/")
            elif stat.S_ISLNK(about.st_mode):
                yield Left(prefix + name, "a link, which is not followed; copy the file itself")
            elif (form := _form(name)) is None:
                self.others += 1
            elif not stat.S_ISREG(about.st_mode):
                yield Left(prefix + name, "not a file; copy the file itself")
            else:
                yield self._file(descriptor, name, prefix + name, form)

    def _listed(self, descriptor: int) -> list[str]:
        found = []
        with os.scandir(descriptor) as entries:
            for entry in entries:
                found.append(entry.name)
                self.names -= 1
                if self.names < 0:  # I1
                    raise IntakeError(
                        f"more than {LIMITS.intake_names} files: this is no delivery from the base, nothing was "
                        "looked at; bring a stick that holds the issued files alone"
                    )
        return sorted(found)

    def _file(self, descriptor: int, name: str, shown: str, form: tuple[Kind, int]) -> File | Left:
        kind, limit = form
        try:
            with _opened(name, os.O_NOFOLLOW | os.O_NONBLOCK, descriptor) as file:
                about = os.fstat(file)
                if not stat.S_ISREG(about.st_mode):
                    return Left(shown, "not a file; copy the file itself")
                if about.st_size > min(limit, self.room):
                    return Left(
                        shown,
                        f"{about.st_size} bytes are too many for this kind of file ({kind}); choose the right one",
                    )
                blob = self._whole(file, about.st_size)
        except PermissionError as error:
            return Left(shown, f"{error.strerror}; let the group of the upload folder read it")
        if len(blob) != about.st_size:
            return Left(shown, "cut short, or still being written; it is tried again when it is whole")
        self.room -= len(blob)
        return File(shown, kind, blob)

    def _whole(self, file: int, size: int) -> bytes:
        """At most one byte more than `size`: a file that grows is noticed, not followed."""
        blob = bytearray()
        while len(blob) <= size and (part := self.read(file, min(_CHUNK, size + 1 - len(blob)))):
            blob += part
        return bytes(blob)


def read_folder(path: Path, read: Read = os.read) -> Delivery:
    """Read a delivery, I1 to I4. Raises IntakeError where the folder cannot be read whole; then nothing was taken."""
    reading = _Reading(read)
    try:
        with _opened(path, os.O_DIRECTORY) as descriptor:
            found = list(reading.folder(descriptor))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise IntakeError(f"{path}: {error.strerror}; put the stick in again, or name a folder") from error
    except OSError as error:
        raise IntakeError(
            f"{path}: {error.strerror}: pulled out, or damaged; nothing was taken, put it in again"
        ) from error
    files, left = (tuple(f for f in found if isinstance(f, kind)) for kind in (File, Left))
    return Delivery(files, left, reading.others)  # type: ignore[arg-type]  # sorted by kind in the line above


def _form(name: str) -> tuple[Kind, int] | None:
    """What a name says: the kind of file, and the most bytes it may have."""
    return next(((kind, limit) for form, kind, limit in _FORMS if re.fullmatch(form, name.lower())), None)


@contextmanager
def _opened(path: Path | str, flags: int, folder: int | None = None) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
