"""Whether the courier runs, and what waits with it: its local socket is asked. Nobody there is an answer too."""

from __future__ import annotations

import socket
from pathlib import Path

from appliance.errors import CourierError
from appliance.sockets import link
from appliance.sockets.link import Greeting, Hello

_SECONDS = 2.0


def ask_courier(path: Path) -> Greeting | None:
    """The courier's greeting, or None where none runs."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
            stream.settimeout(_SECONDS)
            stream.connect(str(path))
            link.write_record(stream, Hello(deployment=link.ASKING))
            return link.read_record(stream, Greeting)
    except (OSError, CourierError):
        return None  # not there, or another user's: either way it does nothing for whoever asks
