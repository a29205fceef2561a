"""A USB camera made of software: it speaks UVC over QEMU's usb-redir socket, so the guest's own uvcvideo driver sees
it.

The unit under test needs no virtual driver and no test hook for it: to its kernel this is a camera on a USB port,
which can be plugged in and pulled out. Pictures are Motion JPEG, sent by bulk transfers.

Sources: usbredir protocol 0.7 (usb-redir-protocol.md of the usbredir project), USB Video Class 1.0.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2

PAYLOAD = 16384
"""Bytes of one bulk transfer; the driver asks for no more."""
ENDPOINT = 0x81
HELLO, CONNECT, INTERFACES, ENDPOINTS = 0, 1, 4, 5
SET_CONFIGURATION, GET_CONFIGURATION, CONFIGURATION_STATUS = 6, 7, 8
SET_ALT, GET_ALT, ALT_STATUS, CANCEL = 9, 10, 11, 21
CONTROL, BULK = 100, 101
CAP_VERSION, CAP_PACKET_SIZE, CAP_64_BITS, CAP_LONG_BULK = 1, 4, 5, 6
CAPABILITIES = 1 << CAP_VERSION | 1 << CAP_PACKET_SIZE | 1 << CAP_64_BITS | 1 << CAP_LONG_BULK
STALL = 4  # usb_redir_stall
GET_DESCRIPTOR, PROBE, COMMIT = 6, 1, 2


@dataclass(frozen=True)
class Pictures:
    """A clip as JPEG pictures of one size, and its own rate."""

    width: int
    height: int
    rate: float
    jpegs: tuple[bytes, ...]


def pictures_of(clip: Path, quality: int = 85, size: tuple[int, int] | None = None) -> Pictures:
    """Decode a clip once. `size` (width, height) scales it."""
    video = cv2.VideoCapture(str(clip))
    rate = video.get(cv2.CAP_PROP_FPS)
    jpegs = []
    while True:
        there, image = video.read()
        if not there:
            break
        if size is not None:
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        jpegs.append(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes())
        height, width = image.shape[:2]
    return Pictures(width, height, rate, tuple(jpegs))


@dataclass
class Camera:
    """Serves one camera on a listening UNIX socket; QEMU connects. `speed`: the clip's seconds for one of ours."""

    path: Path
    pictures: Pictures
    speed: float = 1.0
    fps: int = 10
    sent: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Listen, and serve whoever connects, one after the other, in a thread."""
        self.path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.path))
        listener.listen(1)
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    def _accept(self, listener: socket.socket) -> None:
        while not self._stop.is_set():
            connection, _ = listener.accept()
            try:
                _Connection(self, connection).serve()
            except (ConnectionError, OSError):
                continue  # pulled out, or the machine was switched off

    def picture(self) -> bytes:
        """The picture that the street shows now."""
        at = time.monotonic() * self.speed * self.pictures.rate
        self.sent += 1
        return self.pictures.jpegs[int(at) % len(self.pictures.jpegs)]


class _Connection:
    """One plugging in, from the first packet to the last."""

    def __init__(self, camera: Camera, connection: socket.socket) -> None:
        self.camera, self.socket = camera, connection
        self.lock = threading.Lock()
        self.waiting: deque[tuple[int, int]] = deque()  # (packet id, bytes asked)
        self.wake = threading.Event()
        self.wide = False
        self.closed = False
        self.probe = _probe(camera)

    def serve(self) -> None:
        self._hello()
        threading.Thread(target=self._stream, daemon=True).start()
        try:
            while True:
                kind, number, body = self._packet()
                self._answer(kind, number, body)
        finally:
            self.closed = True
            self.wake.set()
            self.socket.close()

    def _hello(self) -> None:
        self._send(HELLO, 0, b"bluelamp camera".ljust(64, b"\0") + struct.pack("<I", CAPABILITIES))
        kind, _, body = self._packet()
        if kind != HELLO:
            raise ConnectionError("no greeting")
        theirs = struct.unpack("<I", body[64:68])[0] if len(body) >= 68 else 0
        self.wide = bool(theirs >> CAP_64_BITS & 1)
        self.sizes = bool(theirs >> CAP_PACKET_SIZE & 1)
        self.long = bool(theirs >> CAP_LONG_BULK & 1)
        self._describe()
        self._send(CONNECT, 0, struct.pack("<BBBBHHH", 2, 0xEF, 2, 1, 0x1D6B, 0x0102, 0x0100))

    def _describe(self) -> None:
        """Which interfaces and endpoints there are."""
        classes, subclasses = bytearray(32), bytearray(32)
        classes[0:2], subclasses[0:2] = b"\x0e\x0e", b"\x01\x02"
        numbers = bytearray(32)
        numbers[1] = 1
        self._send(
            INTERFACES, 0, struct.pack("<I", 2) + bytes(numbers) + bytes(classes) + bytes(subclasses) + bytes(32)
        )
        types, interfaces, sizes = bytearray(b"\xff" * 32), bytearray(32), [0] * 32
        types[0] = types[16] = 0  # control, both ways
        sizes[0] = sizes[16] = 64
        types[17], interfaces[17], sizes[17] = 2, 1, 512  # bulk in, endpoint 1
        body = bytes(types) + bytes(32) + bytes(interfaces)
        self._send(ENDPOINTS, 0, body + (struct.pack("<32H", *sizes) if self.sizes else b""))

    def _answer(self, kind: int, number: int, body: bytes) -> None:
        if kind == SET_CONFIGURATION:
            self._describe()
            self._send(CONFIGURATION_STATUS, number, bytes([0, body[0]]))
        elif kind == GET_CONFIGURATION:
            self._send(CONFIGURATION_STATUS, number, bytes([0, 1]))
        elif kind == SET_ALT:
            self._describe()
            self._send(ALT_STATUS, number, bytes([0, body[0], body[1]]))
        elif kind == GET_ALT:
            self._send(ALT_STATUS, number, bytes([0, body[0], 0]))
        elif kind == CONTROL:
            self._control(number, body)
        elif kind == BULK:
            endpoint, _, low, _, high = (
                struct.unpack("<BBHIH", body[:10]) if self.long else (*struct.unpack("<BBHI", body[:8]), 0)
            )
            if endpoint == ENDPOINT:
                self.waiting.append((number, high << 16 | low))
                self.wake.set()
        elif kind == CANCEL:
            self.waiting = deque(w for w in self.waiting if w[0] != number)
            self._bulk(number, b"", status=1)

    def _control(self, number: int, body: bytes) -> None:
        endpoint, request, kind, _, value, index, length = struct.unpack("<BBBBHHH", body[:10])
        answer, status = self._control_answer(kind, request, value, index, body[10:])
        answer = answer[:length]
        size = len(answer) if kind & 0x80 else length
        self._send(
            CONTROL, number, struct.pack("<BBBBHHH", endpoint, request, kind, status, value, index, size) + answer
        )

    def _control_answer(self, kind: int, request: int, value: int, index: int, data: bytes) -> tuple[bytes, int]:
        if (kind, request) == (0x80, GET_DESCRIPTOR):
            found = _descriptor(self.camera.pictures, value >> 8, value & 0xFF)
            return (found, 0) if found else (b"", STALL)
        if kind & 0x60 == 0x20 and index & 0xFF == 1 and value >> 8 in (PROBE, COMMIT):
            if request == 0x01:  # SET_CUR: there is one format, one size, one rate
                return b"", 0
            if request == 0x86:
                return b"\x03", 0
            if request == 0x85:
                return struct.pack("<H", len(self.probe)), 0
            return self.probe, 0
        if kind & 0xE0 == 0x80 and request == 0:
            return b"\0\0", 0  # the device's state, asked when it wakes up
        if kind & 0x80 == 0:
            return b"", 0  # clearing a halt, and the like
        return b"", STALL

    def _stream(self) -> None:
        """Answer each bulk request with the next part of a picture; a new picture starts when its time has come."""
        flag, rest, due = 0, b"", time.monotonic()
        while not self.closed:
            if not self.waiting:
                self.wake.wait(1)
                self.wake.clear()
                continue
            if not rest:
                time.sleep(max(0.0, due - time.monotonic()))
                due = max(due + 1 / self.camera.fps, time.monotonic())
                rest, flag = self.camera.picture(), flag ^ 1
                if not self.waiting:
                    continue
            number, size = self.waiting.popleft()
            room = min(size, PAYLOAD) - 2
            part, rest = rest[:room], rest[room:]
            try:
                self._bulk(number, bytes([2, 0x80 | flag | (0 if rest else 2)]) + part)
            except OSError:
                return

    def _bulk(self, number: int, data: bytes, status: int = 0) -> None:
        head = struct.pack("<BBHI", ENDPOINT, status, len(data) & 0xFFFF, 0)
        self._send(BULK, number, head + (struct.pack("<H", len(data) >> 16) if self.long else b"") + data)

    def _send(self, kind: int, number: int, body: bytes) -> None:
        head = struct.pack("<IIQ" if self.wide else "<III", kind, len(body), number)
        with self.lock:
            self.socket.sendall(head + body)

    def _packet(self) -> tuple[int, int, bytes]:
        kind, length = struct.unpack("<II", self._read(8))
        number = struct.unpack("<Q", self._read(8))[0] if self.wide else struct.unpack("<I", self._read(4))[0]
        return kind, number, self._read(length)

    def _read(self, count: int) -> bytes:
        got = bytearray()
        while len(got) < count:
            part = self.socket.recv(count - len(got))
            if not part:
                raise ConnectionError("closed")
            got += part
        return bytes(got)


def _probe(camera: Camera) -> bytes:
    """The one setting there is, as PROBE and COMMIT have it in UVC 1.0 (26 bytes)."""
    largest = max(len(j) for j in camera.pictures.jpegs)
    return struct.pack("<HBBIHHHHHII", 0, 1, 1, 10_000_000 // camera.fps, 0, 0, 0, 0, 0, largest, PAYLOAD)


def _descriptor(pictures: Pictures, kind: int, number: int) -> bytes:
    """A descriptor of the device; empty where there is none."""
    if kind == 1:
        return struct.pack("<BBHBBBBHHHBBBB", 18, 1, 0x0200, 0xEF, 2, 1, 64, 0x1D6B, 0x0102, 0x0100, 1, 2, 3, 1)
    if kind == 2:
        return _configuration(pictures)
    if kind == 3:
        if number == 0:
            return b"\x04\x03\x09\x04"
        text = {1: "Bluelamp", 2: "Street camera", 3: "0001"}.get(number, "")
        raw = text.encode("utf-16-le")
        return bytes([2 + len(raw), 3]) + raw
    if kind == 6:
        return struct.pack("<BBHBBBBBB", 10, 6, 0x0200, 0xEF, 2, 1, 64, 1, 0)
    return b""


def _configuration(pictures: Pictures) -> bytes:
    largest = max(len(j) for j in pictures.jpegs)
    interval = 1_000_000  # 100 ns: ten pictures a second
    terminals = (
        struct.pack("<BBBBHBBHHHB", 18, 0x24, 2, 1, 0x0201, 0, 0, 0, 0, 0, 3)
        + bytes(3)
        + struct.pack("<BBBBHBBB", 9, 0x24, 3, 2, 0x0101, 0, 1, 0)
    )
    header = struct.pack("<BBBHHIBB", 13, 0x24, 1, 0x0100, 13 + len(terminals), 48_000_000, 1, 1)
    frame = struct.pack(
        "<BBBBBHHIIIIB",
        30,
        0x24,
        7,
        1,
        0,
        pictures.width,
        pictures.height,
        largest * 8,
        largest * 80,
        largest,
        interval,
        1,
    ) + struct.pack("<I", interval)
    form = struct.pack("<BBBBBBBBBBB", 11, 0x24, 6, 1, 1, 1, 1, 0, 0, 0, 0)
    colour = struct.pack("<BBBBBB", 6, 0x24, 13, 1, 1, 4)
    streams = struct.pack(
        "<BBBBHBBBBBBB", 14, 0x24, 1, 1, 14 + len(form) + len(frame) + len(colour), ENDPOINT, 0, 2, 0, 0, 0, 1
    )
    streams += b"\0"
    parts: Sequence[bytes] = (
        struct.pack("<BBBBBBBB", 8, 11, 0, 2, 0x0E, 3, 0, 2),
        struct.pack("<BBBBBBBBB", 9, 4, 0, 0, 0, 0x0E, 1, 0, 2),
        header,
        terminals,
        struct.pack("<BBBBBBBBB", 9, 4, 1, 0, 1, 0x0E, 2, 0, 0),
        streams,
        form,
        frame,
        colour,
        struct.pack("<BBBBHB", 7, 5, ENDPOINT, 2, 512, 0),
    )
    body = b"".join(parts)
    return struct.pack("<BBHBBBBB", 9, 2, 9 + len(body), 2, 1, 0, 0x80, 250) + body
