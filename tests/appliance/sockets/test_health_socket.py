"""Vision shows its newest figures to whoever is on the machine, and listens to nobody."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from appliance.records import CameraHealth, Health, StageTimes
from appliance.sockets import health as figures
from appliance.sockets.health import Figures


def health(**changes: object) -> Health:
    cameras = tuple(
        CameraHealth(name=f"camera {i}", state="running", frames=i, dropped=0, fps=15.0, message="m" * 300)
        for i in range(16)
    )
    return Health(
        unit="van-1", deployment="D-1", time=1.0, uptime=1.0, state="armed", cameras=cameras, faces=1, tracks=1,
        probes=1, alerts=0, queued=0, stages=StageTimes(), resident_bytes=1, watchlist_entries=1, watchlist_recall=1.0,
    ).model_copy(update=changes)  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "vision.sock"


@pytest.fixture
def shown(path: Path) -> Iterator[Figures]:
    made = figures.serve(path)
    made.start()
    yield made
    made.stop()


def test_who_asks_gets_the_newest(path: Path, shown: Figures) -> None:
    """The largest record there can be, of sixteen cameras, fits."""
    assert figures.ask(path) is None, "none yet"
    shown.show(health())
    assert figures.ask(path) == health()
    shown.show(health(faces=812, sandbox=("landlock: writes no file",), beacon="lit"))
    newest = figures.ask(path)
    assert newest is not None
    assert (newest.faces, newest.sandbox, newest.beacon) == (812, ("landlock: writes no file",), "lit")


def test_nothing_is_read_from_who_asks(path: Path, shown: Figures) -> None:
    """Whatever is sent, the answer is the same; who sends and hangs up disturbs nobody."""
    shown.show(health())
    for blob in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 4096):
        with socket.socket(socket.AF_UNIX) as stream:
            stream.connect(str(path))
            with suppress(OSError):  # it may have answered and hung up already
                stream.sendall(blob)
    assert figures.ask(path) == health()


def test_no_vision_is_no_figures(path: Path, tmp_path: Path) -> None:
    assert figures.ask(path) is None
    (tmp_path / "file").write_text("no socket")
    assert figures.ask(tmp_path / "file") is None


def test_a_stopped_one_answers_no_more(path: Path) -> None:
    made = figures.serve(path)
    made.start()
    made.show(health())
    made.stop()
    assert figures.ask(path) is None
