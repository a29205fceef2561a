"""A local socket to listen on: one's own, or one that systemd passes to one process after another."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from appliance.errors import CourierError
from appliance.sockets.listen import Gate


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "courier.sock"


def ask(path: Path) -> bytes:
    """What whoever listens there says."""
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(10)
        stream.connect(str(path))
        return stream.recv(10)


def served_once(listener: socket.socket, path: Path, word: bytes) -> int:
    """A child to which systemd passed `listener`: it answers one connection, closes its gate and ends."""
    pid = os.fork()
    if pid == 0:
        os.environ["LISTEN_PID"] = str(os.getpid())
        os.dup2(listener.fileno(), 3)
        gate = Gate(path)
        stream = gate.accept(10)
        if stream is not None:
            stream.sendall(word)
        gate.close()
        os._exit(0 if gate.accept() is None else 1)
    return pid


def test_a_passed_socket_serves_the_next_process_too(path: Path) -> None:
    """systemd keeps it when the service ends: shut down by one, it would be shut for the next."""
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(4)
        for word in (b"first", b"second"):
            pid = served_once(listener, path, word)
            assert ask(path) == word
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert path.exists(), "it is systemd's to remove"


def test_close_ends_the_wait_and_removes_the_socket(path: Path) -> None:
    gate = Gate(path)
    answers: list[object] = []
    thread = threading.Thread(target=lambda: answers.append(gate.accept()))
    thread.start()
    gate.close()
    thread.join(10)
    assert answers == [None]
    assert not path.exists()


def test_nobody_came(path: Path) -> None:
    gate = Gate(path)
    assert gate.accept(0.01) is None
    gate.close()


def test_only_its_owner_may_connect(path: Path) -> None:
    """Or its group, where the unit's processes are users of their own."""
    gate = Gate(path)
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    with pytest.raises(CourierError, match="another courier is running"):
        Gate(path)
    gate.close()
    Gate(path, 0o660)
    assert path.stat().st_mode & 0o777 == 0o660
