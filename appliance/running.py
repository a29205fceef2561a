"""Who is running: what a local socket says when it is asked. Nobody there is an answer too."""

from __future__ import annotations

import socket
from pathlib import Path

from appliance import link
from appliance.errors import CourierError
from appliance.limits import LIMITS
from appliance.link import Greeting, Hello
from appliance.records import Health

_SECONDS = 2.0
_ASKING = "status"  # no deployment of this name has a chain: the courier tells its queue and nothing else


def ask_courier(path: Path) -> Greeting | None:
    """The courier's greeting, or None where none runs."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
            stream.settimeout(_SECONDS)
            stream.connect(str(path))
            link.write_record(stream, Hello(deployment=_ASKING))
            return link.read_record(stream, Greeting)
    except (OSError, CourierError):
        return None  # not there, or another user's: either way it does nothing for whoever asks


def ask_vision(path: Path) -> Health | None:
    """Vision's newest figures, or None where it does not run."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
            stream.settimeout(_SECONDS)
            stream.connect(str(path))
            return link.read_record(stream, Health, LIMITS.envelope_bytes)
    except (OSError, CourierError):
        return None
