"""Two recordings of what left vision: a tap in the local socket to the courier, and packets on the broker's port.

The tap stands where the courier's socket would stand: vision connects to it, and it connects to the courier. It passes
every frame on as it came and keeps a copy. The last report of a run can be held back: vision waits for the courier's
reply then, all its tracks have ended, and its memory can be looked at.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

from appliance.attest.record import AttestError
from appliance.errors import CourierError, SealError
from appliance.limits import LIMITS
from appliance.sockets import link
from appliance.trust import seal

_KEPT = 256 << 20  # bytes of a recording
_WAIT = 30.0  # seconds: for a capture to begin, for a relay to be let go


class Tap:
    """A relay between vision and courier that keeps what passes. `hold` keeps back all health reports but the first."""

    def __init__(self, front: Path, back: Path) -> None:
        self._front, self._back = front, back
        self.carried = bytearray()
        self.frames = 0
        self.scanning, self.held = threading.Event(), threading.Event()
        self._go = threading.Event()
        self._hold = False
        link.make_folder(front.parent)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        front.unlink(missing_ok=True)
        self._listener.bind(str(front))
        front.chmod(0o600)
        self._listener.listen(2)
        self._thread = threading.Thread(target=self._run, name="tap", daemon=True)
        self._thread.start()

    def expect(self, *, hold: bool) -> None:
        """A new run begins."""
        self.scanning.clear()
        self.held.clear()
        self._go.clear()
        self._hold = hold

    def release(self) -> None:
        """Let go what is held back, now and from now on."""
        self._hold = False
        self._go.set()

    def close(self) -> None:
        """Listen no more."""
        self.release()
        with suppress(OSError):  # it may not be listening any more
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._front.unlink(missing_ok=True)

    def _run(self) -> None:
        while True:
            try:
                stream, _ = self._listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._relay, args=(stream,), name="tap-relay", daemon=True).start()

    def _relay(self, front: socket.socket) -> None:
        """One connection: each frame of vision is answered by one of the courier's, so they take turns."""
        reports = 0
        with front, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as back, suppress(OSError, CourierError):
            back.connect(str(self._back))
            while (frame := self._passed(front, back)) is not None:
                if _is_health(frame):
                    reports += 1
                    self.scanning.set()
                    if reports > 1 and self._hold:
                        self.held.set()
                        self._go.wait(_WAIT)
                if self._passed(back, front) is None:
                    return

    def _passed(self, source: socket.socket, target: socket.socket) -> bytes | None:
        frame = link.read_frame(source, LIMITS.envelope_bytes)
        if frame is not None:
            if len(self.carried) < _KEPT:
                self.carried += frame
            self.frames += 1
            link.write_frame(target, frame)
        return frame


def _is_health(frame: bytes) -> bool:
    try:
        return seal.take_apart(frame, LIMITS.envelope_bytes).header.kind == "health"
    except SealError:
        return False  # the greeting, which is no container


class Capture:
    """Packets of some TCP ports, written by tshark. Raises AttestError where this user may not capture."""

    def __init__(self, path: Path, ports: list[int]) -> None:
        program = shutil.which("tshark")
        if program is None:
            raise AttestError("tshark is not installed; install it with: apt-get install tshark")
        self.path, self.start = path, 0  # where the part begins that is searched
        wanted = " or ".join(f"tcp port {port}" for port in ports)
        command = [program, "-q", "-n", "-i", "any", "-f", wanted, "-w", str(path)]
        self._said = path.with_suffix(".log")
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
        deadline = time.monotonic() + _WAIT
        while b"Capturing on" not in self._said.read_bytes() or not path.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                words = self._said.read_text(errors="replace").strip().splitlines()
                raise AttestError(f"packets cannot be captured here: {words[-1] if words else 'no answer'}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End the recording; everything taken so far is in the file then."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(_WAIT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def wait_for(self, size: int) -> None:
        """Until the file has at least so many bytes: packets arrive in it a moment later. Gives up after a while."""
        deadline = time.monotonic() + 5.0
        while self.path.stat().st_size < size and time.monotonic() < deadline:
            time.sleep(0.05)


class OpenLine:
    """A TCP connection on loopback that a capture can see: what is sent is received and thrown away."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])

    def send(self, blob: bytes) -> None:
        """Send bytes in the open."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as client:
            server, _ = self._listener.accept()
            thread = threading.Thread(target=_drain, args=(server,))
            thread.start()
            client.sendall(blob)
            client.shutdown(socket.SHUT_WR)
            thread.join(5)

    def close(self) -> None:
        """Listen no more."""
        self._listener.close()


def _drain(stream: socket.socket) -> None:
    with stream:
        while stream.recv(65536):
            pass
