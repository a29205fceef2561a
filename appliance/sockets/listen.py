"""A local socket that a process listens on: its own, or one that systemd made and passed to it."""

from __future__ import annotations

import os
import select
import socket
from contextlib import suppress
from pathlib import Path

from appliance.errors import CourierError
from appliance.pace import Wake
from appliance.sockets.link import answers, make_folder

_WAITING = 4  # connections that may wait to be accepted
_PASSED = 3  # the first descriptor systemd passes (sd_listen_fds)


class Gate:
    """`close` may be called from any thread. Raises CourierError where the socket cannot be had.

    A socket that was passed is only let go: shutting it down would shut it for systemd too, and for the next process
    it is passed to.
    """

    def __init__(self, path: Path, mode: int = 0o600) -> None:
        self._passed = os.environ.get("LISTEN_PID") == str(os.getpid())
        self._path = path
        self._listener = socket.socket(fileno=_PASSED) if self._passed else _bound(path, mode)
        self._listener.setblocking(False)
        self._closed = False
        self._wake = Wake()

    def accept(self, idle: float | None = None) -> socket.socket | None:
        """The next connection; None once closed, or when nobody came for `idle` seconds."""
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while poll.poll(None if idle is None else idle * 1000):
            if self._closed:
                self._listener.close()
                return None
            with suppress(BlockingIOError):  # whoever came is gone again
                return self._listener.accept()[0]
        return None

    def close(self) -> None:
        """Let nobody in any more; whoever waits in `accept` returns."""
        self._closed = True
        if not self._passed:
            with suppress(OSError):  # vision may remove nothing; who started it does, or its next start
                self._path.unlink(missing_ok=True)
        self._wake.set()


def _bound(path: Path, mode: int) -> socket.socket:
    make_folder(path.parent)
    if path.exists() and answers(path):
        raise CourierError(f"{path}: another {path.stem} is running; stop it first")
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o777 & ~mode)
    try:
        listener.bind(str(path))
    except OSError as error:
        raise CourierError(f"{path}: {error}; a socket's path has at most 107 characters") from error
    finally:
        os.umask(mask)
    listener.listen(_WAITING)
    return listener
