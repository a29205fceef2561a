"""The local socket between vision and courier, and vision's end of it.

    client -> server   u32 length | JSON Hello (at most HELLO_BYTES)          once
    server -> client   u32 length | JSON Greeting                             once
    client -> server   u32 length | sealed container (LIMITS.envelope_bytes)  again and again
    server -> client   u32 length | JSON Reply                                after each, once it is on disk

Nothing else crosses. The socket is a file only its owner can open (0600 in a 0700 folder), and the courier asks the
kernel who the other end is. Containers are answered one by one: a reply means "on disk", so what has no reply is sent
again, and the courier recognises it by its identifier.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import Field, ValidationError

from appliance.errors import CourierError
from appliance.pace import Backoff
from appliance.records import Record

HELLO_BYTES = 1024
ASKING = "status"  # instead of a deployment: whoever says so wants the greeting and nothing else
PENDING_BYTES = 32_000_000  # unacknowledged containers vision may hold: some 1,500 alerts with their chips
_GRACE_SECONDS = 5.0  # vision and courier start together: no word about a courier that is not there yet
_REPLY_SECONDS = 20.0  # a slow card may take long to commit, but not this long
_LENGTH = struct.Struct(">I")
_PEER = struct.Struct("3i")  # struct ucred: pid, uid, gid
RecordType = TypeVar("RecordType", bound=Record)


class Hello(Record):
    """The first words of vision."""

    format: int = Field(default=1, ge=1, le=1)
    deployment: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")


class Greeting(Record):
    """The courier's answer: where the deployment's chain stands. `chain` is empty where it knows none."""

    chain: str = Field(default="", max_length=64)
    sequence: int = Field(default=0, ge=0)
    previous: str = Field(default="0" * 64, pattern=r"^[0-9a-f]{64}$")
    queued: int = 0
    broker: bool = False  # the courier is connected to the broker


class Reply(Record):
    """After each container. `stored`: it is the courier's now. `refused`: it never will be. Neither: try again."""

    id: str = Field(max_length=64)
    stored: bool = False
    refused: bool = False
    queued: int = 0
    error: str = Field(default="", max_length=600)


def read_frame(stream: socket.socket, limit: int) -> bytes | None:
    """The next frame, None at the end of the stream. Raises CourierError where it is too long or cut short."""
    prefix = _read(stream, _LENGTH.size)
    if not prefix:
        return None
    size = _LENGTH.unpack(prefix)[0] if len(prefix) == _LENGTH.size else -1
    if not 0 < size <= limit:
        raise CourierError(f"a frame of {size} bytes where 1 to {limit} are allowed; this is not Bluelamp's other half")
    body = _read(stream, size)
    if len(body) != size:
        raise CourierError("a frame was cut short; the other process ended")
    return body


def write_frame(stream: socket.socket, body: bytes) -> None:
    """Send one frame. Raises OSError."""
    stream.sendall(_LENGTH.pack(len(body)) + body)


def read_record(stream: socket.socket, kind: type[RecordType], limit: int = HELLO_BYTES) -> RecordType:
    """The next frame as a record. Raises CourierError."""
    body = read_frame(stream, limit)
    if body is None:
        raise CourierError("the other process closed the socket")
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise CourierError(f"malformed {kind.__name__.lower()}: {error.errors()[0]['msg']}") from error


def write_record(stream: socket.socket, record: Record) -> None:
    """Send a record as one frame. Raises OSError."""
    write_frame(stream, record.model_dump_json().encode())


def peer_uid(stream: socket.socket) -> int:
    """The user the other end runs as; the kernel says so, not the other end."""
    _, uid, _ = _PEER.unpack(stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return int(uid)


def _read(stream: socket.socket, size: int) -> bytes:
    parts: list[bytes] = []
    while size and (part := stream.recv(min(size, 65536))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


@dataclass(frozen=True)
class LinkCounts:
    """`pending` containers wait for a reply, `queued` wait in the courier; `dropped` alerts are lost for good."""

    pending: int
    queued: int
    stored: int
    dropped: int


class CourierLink:
    """Vision's end: takes sealed containers at once, delivers them in order from its own thread.

    An alert is dropped only where PENDING_BYTES are unacknowledged already or the courier refuses it as malformed;
    both are counted and said. A newer health report replaces one that still waits.
    """

    def __init__(
        self, path: Path, deployment: str, *, limit: int = PENDING_BYTES, say: Callable[[str], None] | None = None
    ) -> None:
        self._path, self._hello, self._limit = path, Hello(deployment=deployment), limit
        self._say = say or logging.getLogger("bluelamp.link").warning
        self._changed = threading.Condition()
        self._alerts: deque[bytes] = deque()
        self._bytes = 0
        self._health: bytes | None = None
        self._greeting: Greeting | None = None
        self._queued = self._stored = self._dropped = 0
        self._closing = self._abandoned = False
        self._since = time.monotonic()
        self._trouble = ""
        self._thread = threading.Thread(target=self._run, name="courier-link", daemon=True)
        self._thread.start()

    @property
    def greeting(self) -> Greeting | None:
        """The courier's latest greeting; None until it was first reached."""
        return self._greeting

    def wait_greeting(self, seconds: float) -> Greeting | None:
        """The greeting as soon as there is one, None where there is none after `seconds`."""
        with self._changed:
            self._changed.wait_for(lambda: self._greeting is not None, seconds)
        return self._greeting

    @property
    def pending(self) -> int:
        """Containers that the courier has not yet stored."""
        with self._changed:
            return len(self._alerts) + (self._health is not None)

    @property
    def counts(self) -> LinkCounts:
        """What happened so far."""
        with self._changed:
            return LinkCounts(len(self._alerts), self._queued, self._stored, self._dropped)

    def send(self, container: bytes, kind: str) -> bool:
        """Take a sealed container; returns at once. False where it had to be dropped (counted and said)."""
        with self._changed:
            if self._closing:
                raise CourierError("the link to the courier is closed; nothing more can be sent")
            if kind == "health":
                self._health = container
            elif self._bytes + len(container) > self._limit:
                self._drop(f"{len(self._alerts)} sealed alerts wait and the memory for them is used up")
                return False
            else:
                self._alerts.append(container)
                self._bytes += len(container)
            self._changed.notify_all()
            return True

    def close(self, timeout: float) -> int:
        """Deliver what is left, for at most `timeout` seconds; the result is how many alerts were not delivered."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()
            left = len(self._alerts)
            if left:
                self._say(f"{left} alert(s) could not be given to the courier at {self._path}; is it running?")
            return left

    def _drop(self, why: str) -> None:
        self._dropped += 1
        self._say(f"an alert was lost ({self._dropped} so far): {why}; look at the courier")

    def _run(self) -> None:
        backoff = Backoff(0.05, 2.0)
        while not self._finished():
            try:
                with self._connect() as stream:
                    backoff.reset()
                    self._deliver(stream, backoff)
            except (OSError, CourierError) as error:
                if self._greeting is not None or time.monotonic() - self._since > _GRACE_SECONDS:
                    self._complain(f"courier at {self._path}: {error}; trying again")
                self._pause(backoff.next())

    def _finished(self) -> bool:
        with self._changed:
            return self._abandoned or (self._closing and not self._alerts and self._health is None)

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._abandoned, seconds)

    def _complain(self, line: str) -> None:
        """Say a trouble once, not at each attempt."""
        if line != self._trouble:
            self._trouble = line
            self._say(line)

    def _connect(self) -> socket.socket:
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stream.settimeout(_REPLY_SECONDS)
        try:
            stream.connect(str(self._path))
            write_record(stream, self._hello)
            greeting = read_record(stream, Greeting)
        except BaseException:
            stream.close()
            raise
        with self._changed:
            self._greeting, self._queued = greeting, greeting.queued
            self._changed.notify_all()
        return stream

    def _deliver(self, stream: socket.socket, backoff: Backoff) -> None:
        while not self._finished():
            kind, container = self._next(stream)
            if container is None:
                continue
            write_frame(stream, container)
            reply = read_record(stream, Reply)
            self._settle(kind, container, reply)
            if not reply.error or reply.refused:
                backoff.reset()
                self._trouble = ""
            else:
                self._complain(f"the courier cannot store: {reply.error}")
                self._pause(backoff.next())

    def _next(self, stream: socket.socket) -> tuple[str, bytes | None]:
        """The oldest alert, else the newest health report, else nothing after a while. Raises OSError at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._alerts or self._health is not None or self._closing, 0.5)
            if self._alerts:
                return "alert", self._alerts[0]
            if self._health is not None:
                return "health", self._health
        stream.setblocking(False)
        try:
            if stream.recv(1, socket.MSG_PEEK) == b"":
                raise CourierError("the courier ended")
        except BlockingIOError:
            return "", None
        finally:
            stream.settimeout(_REPLY_SECONDS)
        raise CourierError("the courier spoke out of turn")

    def _settle(self, kind: str, container: bytes, reply: Reply) -> None:
        with self._changed:
            self._queued = reply.queued
            if kind == "health":
                # Refused or not: a report that is a moment old is worth no second attempt.
                self._health = None if self._health is container else self._health
                return
            if reply.refused:
                self._drop(f"the courier refuses it: {reply.error}")
            if reply.stored or reply.refused:
                self._alerts.popleft()
                self._bytes -= len(container)
                self._stored += reply.stored


def make_folder(path: Path) -> None:
    """The private folder of a socket. Raises CourierError where others could put a socket of theirs in it."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        mode = path.stat()
    except OSError as error:
        raise CourierError(f"{path}: {error.strerror}; choose a folder this user may write for the socket") from error
    if mode.st_mode & 0o022 or mode.st_uid not in (0, os.getuid()):
        raise CourierError(f"{path}: others can write here; put the socket in a folder of its own, mode 0700")


def answers(path: Path) -> bool:
    """Whether somebody listens at `path`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True
