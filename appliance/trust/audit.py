"""The log of every act, on base and unit: append-only, hash-chained, signed; no image, no template, no name.

One JSON line for each act. A line holds the SHA-256 of the line before and a signature, so a change, a cut in the
middle or a reorder breaks it. A cut at the end leaves a shorter chain that is right in itself: it is found by the
head file, and, if that was put back too, by an anchor (sequence and digest) noted elsewhere. Every receipt and every
issued watchlist's record carries such an anchor, so a log cannot be shortened past what left the machine.

The acts are those of s. 62 Data Protection Act 2018 (requirement 18), and three of our own.
"""

from __future__ import annotations

import errno
import fcntl
import getpass
import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import Key, Signature, Signer

from appliance.errors import SealError
from appliance.records import Record
from appliance.storage.files import write_public

Act = Literal[
    "collection", "alteration", "consultation", "disclosure", "combination", "erasure", "keys", "order", "arming"
]
ZERO = "0" * 64
_LINE = 65_536  # bytes; a longer line was not written here


class Entry(Record):
    """One act. `subject` is an identifier or a digest, `detail` a short text or a count, never biometric."""

    sequence: int = Field(ge=1)
    time: float
    act: Act
    subject: str = Field(max_length=128)
    detail: str = Field(default="", max_length=1000)
    by: str = Field(max_length=128)
    previous: str = Field(pattern=r"^[0-9a-f]{64}$")
    keyid: str = Field(max_length=128)


class _Line(Record):
    entry: Entry
    sig: str


class Anchor(Record):
    """Where a log stood: enough to notice later that it was cut."""

    sequence: int = 0
    digest: str = ZERO


@dataclass(frozen=True)
class Happening:
    """An act to be logged."""

    act: Act
    subject: str
    detail: str = ""


class Audit:
    """The log of one machine: a file, its head file, and the key that signs."""

    def __init__(self, path: Path, signer: Signer, by: str | None = None) -> None:
        self.path, self._signer = path, signer
        self._by = by or _user()

    def add(self, act: Act, subject: str, detail: str = "") -> Anchor:
        """Log one act, on disk when this returns."""
        return self.extend([Happening(act, subject, detail)])

    def extend(self, happenings: Iterable[Happening]) -> Anchor:
        """Log several acts with one write to disk. Raises SealError where the log's end is damaged."""
        with _locked(self.path):
            anchor = _end(self.path)
            lines = []
            for happening in happenings:
                blob = self._line(happening, anchor)
                anchor = Anchor(sequence=anchor.sequence + 1, digest=hashlib.sha256(blob).hexdigest())
                lines.append(blob + b"\n")
            _append(self.path, b"".join(lines))
            write_public(_head(self.path), anchor.model_dump_json().encode())
        return anchor

    def anchor(self) -> Anchor:
        """Where the log stands now."""
        return _end(self.path)

    def _line(self, happening: Happening, last: Anchor) -> bytes:
        entry = Entry(
            sequence=last.sequence + 1, time=time.time(), act=happening.act, subject=happening.subject[:128],
            detail=happening.detail[:1000], by=self._by, previous=last.digest, keyid=self._signer.public_key.keyid,
        )  # fmt: skip
        signature = self._signer.sign(_signed(entry)).signature
        return _encode(_Line(entry=entry, sig=signature))


def verify(path: Path, signers: Sequence[Key], anchors: Iterable[Anchor] = ()) -> list[Entry]:
    """Every entry of a log, each link and signature checked. Raises SealError, which names the line.

    `anchors` are places the log is known to have reached.
    """
    known, at = {k.keyid: k for k in signers}, {0: ZERO}
    entries: list[Entry] = []
    for number, blob in enumerate(_lines(path), 1):
        line = _parsed(blob, number)
        if line.entry.sequence != number:
            raise SealError(f"audit log line {number}: is number {line.entry.sequence}: lines were cut or reordered")
        if line.entry.previous != at[number - 1]:
            raise SealError(f"audit log line {number}: does not follow the line before it, which was changed")
        _check_signature(line, known, number)
        at[number] = hashlib.sha256(blob).hexdigest()
        entries.append(line.entry)
    head = _read_head(path)
    for anchor in [*anchors, *([head] if head else [])]:
        if at.get(anchor.sequence) != anchor.digest:
            raise SealError(f"audit log: once stood at line {anchor.sequence} with another content, or was cut after "
                            f"line {len(entries)}; restore it from a copy and find out who changed it")  # fmt: skip
    if head is None and entries:
        raise SealError(f"{_head(path)}: missing, so a cut at the end cannot be excluded; restore it from a copy")
    return entries


def _check_signature(line: _Line, known: dict[str, Key], number: int) -> None:
    key = known.get(line.entry.keyid)
    if key is None:
        raise SealError(
            f"audit log line {number}: signed by key {line.entry.keyid[:12]}..., which is not this machine's"
        )
    try:
        key.verify_signature(Signature(line.entry.keyid, line.sig), _signed(line.entry))
    except (UnverifiedSignatureError, ValueError) as error:
        raise SealError(f"audit log line {number}: its signature does not verify: it was changed") from error


def _parsed(blob: bytes, number: int) -> _Line:
    try:
        line = _Line.model_validate_json(blob)
    except ValidationError as error:
        raise SealError(f"audit log line {number}: cannot be read; it was changed or cut") from error
    if _encode(line) != blob:
        raise SealError(f"audit log line {number}: was edited")
    return line


def _signed(entry: Entry) -> bytes:
    return b"bluelamp.audit.v1\n" + entry.model_dump_json().encode()


def _encode(line: _Line) -> bytes:
    return json.dumps(line.model_dump(), sort_keys=True, separators=(",", ":")).encode()


def _lines(path: Path) -> Iterator[bytes]:
    if not path.exists():
        return
    with path.open("rb") as file:
        while blob := file.readline(_LINE + 1):
            if not blob.endswith(b"\n"):
                raise SealError(
                    f"{path}: its last line is incomplete or far too long; a write was cut or it was changed"
                )
            yield blob[:-1]


def _end(path: Path) -> Anchor:
    """Where the log stands, from its last line alone; appending never reads the whole file."""
    if not path.exists() or not path.stat().st_size:
        return Anchor()
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LINE))
        last = file.read().split(b"\n")
    if last[-1] or len(last) < 2:
        raise SealError(f"{path}: its last line is incomplete; run 'audit verify', keep a copy, then remove that line")
    return Anchor(sequence=_parsed(last[-2], -1).entry.sequence, digest=hashlib.sha256(last[-2]).hexdigest())


def _read_head(path: Path) -> Anchor | None:
    if not _head(path).exists():
        return None
    try:
        return Anchor.model_validate_json(_head(path).read_bytes())
    except ValidationError as error:
        raise SealError(f"{_head(path)}: damaged; restore it from a copy") from error


def _head(path: Path) -> Path:
    return path.with_suffix(".head")


def _append(path: Path, blob: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    with os.fdopen(descriptor, "ab", buffering=0) as file:
        before = os.fstat(descriptor).st_size
        try:
            if file.write(blob) != len(blob):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, before)  # a full disk leaves whole lines only
            raise


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One writer at a time: two commands at once must not fork the chain."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
