"""Vision's newest figures, for whoever is on this machine: connect, receive one Health record, done.

Nothing is read from who connects, and what is given identifies nobody.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path

from appliance.errors import CourierError
from appliance.limits import LIMITS
from appliance.records import Health
from appliance.sockets import link
from appliance.sockets.listen import Gate

_TALK_SECONDS = 2.0


class Figures:
    """The newest Health record, and the socket it is served on. `show` may be called from any thread."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._newest: Health | None = None
        self._thread = threading.Thread(target=self._serve, name="figures", daemon=True)

    def start(self) -> None:
        """Serve from a thread of its own."""
        self._thread.start()

    def show(self, health: Health) -> None:
        """Serve this one from now on."""
        self._newest = health

    def stop(self) -> None:
        """Serve no more."""
        self._gate.close()
        self._thread.join(_TALK_SECONDS)

    def _serve(self) -> None:
        while (stream := self._gate.accept()) is not None:
            with stream, suppress(OSError):  # who hung up early wanted no figures
                stream.settimeout(_TALK_SECONDS)
                if self._newest is not None:
                    link.write_record(stream, self._newest)


def serve(path: Path, mode: int = 0o660) -> Figures:
    """Bind now, before the process may no longer; `start` follows once threads may run. Raises CourierError."""
    return Figures(Gate(path, mode))


def ask(path: Path) -> Health | None:
    """The newest figures of a vision process at `path`; None where none runs, or it has none yet."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.settimeout(_TALK_SECONDS)
        try:
            stream.connect(str(path))
            return link.read_record(stream, Health, LIMITS.envelope_bytes)
        except (OSError, CourierError):
            return None
