"""The service manager is told what this process really does: ready, working, stopping (sd_notify, by hand).

READY is sent when every camera gave a picture or said why it gives none. WATCHDOG is fed by progress alone: the loop
turned, and no camera's thread has been inside its source for CAMERA_SECONDS. A stuck thread or a stuck loop starves
it, and systemd kills and restarts the service. Without a service manager nothing is sent.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

CAMERA_SECONDS = 15.0  # OpenCV waits 10 s for a V4L2 picture, RTSP 5 s to connect and 5 s for a packet
_SHARE = 0.25  # of the watchdog's time between two signs of life


class Watched(Protocol):
    """A camera, as far as its progress goes."""

    name: str

    def stuck_for(self, now: float) -> float: ...

    @property
    def reported(self) -> bool: ...


class Watchdog:
    """One process's word to its service manager. Not thread-safe: the loop's thread speaks."""

    def __init__(self, say: Callable[[str], None], environment: Mapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        self._address = environment.get("NOTIFY_SOCKET", "")
        limit = int(environment.get("WATCHDOG_USEC", "0")) / 1e6
        self._starves, self._interval = limit > 0, min(limit * _SHARE, 1.0) if limit > 0 else 1.0
        self._say = say
        self._fed = float("-inf")
        self._ready = False
        self._stuck: tuple[str, ...] = ()

    def turned(self, cameras: Sequence[Watched], now: float | None = None) -> None:
        """The loop turned once: feed, where the cameras move too. `now` is steady seconds."""
        now = time.monotonic() if now is None else now
        if now - self._fed < self._interval:
            return
        stuck = tuple(c.name for c in cameras if c.stuck_for(now) > CAMERA_SECONDS)
        if stuck != self._stuck:
            self._stuck = stuck
            self._tell(stuck)
        if stuck:
            return
        self._fed = now
        if not self._ready and all(c.reported for c in cameras):
            self._ready = True
            self._send("READY=1\nSTATUS=scanning")
        self._send("WATCHDOG=1")

    def paused(self, why: str) -> None:
        """The loop is not running and need not: outside its place, for example. Called again and again."""
        self._send(f"READY=1\nWATCHDOG=1\nSTATUS=paused: {why}")

    def stopping(self, why: str) -> None:
        """The last word."""
        self._send(f"STOPPING=1\nSTATUS={why}")

    def _tell(self, stuck: tuple[str, ...]) -> None:
        if stuck:
            line = f"camera {', '.join(stuck)}: no answer for {CAMERA_SECONDS:.0f} s, its thread is stuck"
            self._say(line + ("; the watchdog is starved" if self._starves else ""))
            self._send(f"STATUS={line}")
        else:
            self._say("every camera answers again")
            self._send("STATUS=scanning")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stream:
            try:
                stream.sendto(text.encode(), address)
            except OSError as error:
                self._say(f"the service manager does not hear: {error.strerror}")
                self._address = ""
