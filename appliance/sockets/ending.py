"""Asks the keeper over its socket to end a deployment."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from pydantic import Field

from appliance.errors import CourierError
from appliance.formats.order import Name
from appliance.formats.receipt import Reason
from appliance.records import Record
from appliance.sockets import link

_ANSWER_SECONDS = 30.0  # a slow card may take long to overwrite a key


class KeeperError(CourierError):
    """The keeper could not end the deployment."""


class NoKeeperError(KeeperError):
    """No keeper answers at its socket."""


class Over(Record):
    """Why a deployment is over, or whichever is armed; `counts` are of tracks and alerts, nobody's."""

    format: int = Field(default=1, ge=1, le=1)
    deployment: str | None = Field(default=None, pattern=Name)
    reason: Reason
    counts: dict[str, int] = Field(default_factory=dict, max_length=20)


class Answer(Record):
    """`ended`: key and list of the deployment are gone. Else `error` says why not."""

    ended: bool
    error: str = Field(default="", max_length=600)


def ask(path: Path, over: Over, patience: float = 0.0) -> None:
    """Have the keeper at `path` end a deployment; tried for `patience` seconds. Raises KeeperError, NoKeeperError."""
    deadline = time.monotonic() + patience
    while True:
        try:
            answer = _asked(path, over)
            break
        except (OSError, CourierError) as error:
            if time.monotonic() >= deadline:
                raise NoKeeperError(f"{path}: no keeper answers ({error}); run: bluelamp-unit keeper --once") from error
            time.sleep(0.5)
    if not answer.ended:
        raise KeeperError(f"the keeper could not end the deployment: {answer.error}; run: bluelamp-unit disarm")


def _asked(path: Path, over: Over) -> Answer:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.settimeout(_ANSWER_SECONDS)
        stream.connect(str(path))
        link.write_record(stream, over)
        return link.read_record(stream, Answer)
