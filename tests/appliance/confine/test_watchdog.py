"""The service manager hears of real progress and of nothing else: a stuck camera thread starves the watchdog."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from appliance.capture import camera as capture
from appliance.capture.camera import Camera
from appliance.capture.mailbox import Bell
from appliance.capture.sources import Shots
from appliance.confine import watchdog
from appliance.confine.watchdog import CAMERA_SECONDS, Watchdog
from tests.support.machines import eventually
from tests.support.service_manager import Manager

SECOND = "1000000"


@pytest.fixture(params=["file", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "notify") if request.param == "file" else f"@bluelamp-{tmp_path.name}-{id(tmp_path)}")
    yield made
    made.close()


def watchdog_of(manager: Manager, said: list[str] | None = None) -> Watchdog:
    """With four seconds to live without a sign."""
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "4" + SECOND[1:]}
    return Watchdog((said if said is not None else []).append, environment)


class Blocking:
    """A source that gives `pictures` and then hangs in the driver until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, pictures: int) -> None:
        self.let_go, self._pictures = threading.Event(), pictures
        monkeypatch.setattr(capture, "open_source", lambda *_: self._shots())

    def _shots(self) -> Shots:
        for number in range(self._pictures):
            yield np.zeros((32, 32, 3), np.uint8), float(number)
        self.let_go.wait(60)


@pytest.fixture
def said() -> list[str]:
    return []


def started(said: list[str]) -> Camera:
    """A live camera whose thread runs."""
    camera = Camera("gate", "/dev/video0", Bell(), report=said.append)
    camera.start()
    return camera


def test_ready_comes_with_the_first_picture_and_signs_of_life_with_every_second(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    source, dog = Blocking(monkeypatch, 1), watchdog_of(manager)
    camera = Camera("gate", "/dev/video0", Bell(), report=said.append)
    dog.turned([camera], 100.0)
    assert manager.heard() == ["WATCHDOG=1"], "the loop turns, but no picture yet: alive and not ready"
    camera.start()
    eventually(lambda: camera.take() is not None)
    dog.turned([camera], 102.0)
    assert manager.heard() == ["READY=1", "STATUS=scanning", "WATCHDOG=1"]
    dog.turned([camera], 102.5)
    assert manager.heard() == [], "four signs in the watchdog's time are enough"
    dog.turned([camera], 103.1)
    assert manager.heard() == ["WATCHDOG=1"]
    dog.stopping("ended")
    assert manager.heard() == ["STOPPING=1", "STATUS=ended"]
    source.let_go.set()
    camera.stop()


def test_a_source_whose_read_blocks_trips_it(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    """The loop goes on turning, and yet nothing more is sent; when the camera answers, it is."""
    source, dog = Blocking(monkeypatch, 1), watchdog_of(manager, said)
    camera = started(said)
    eventually(lambda: camera.take() is not None)
    now = time.monotonic()
    dog.turned([camera], now)
    assert "WATCHDOG=1" in manager.heard()
    for later in range(1, 40):
        dog.turned([camera], now + CAMERA_SECONDS + later)
    heard = manager.heard()
    assert "WATCHDOG=1" not in heard
    assert "STATUS=camera gate: no answer for 15 s, its thread is stuck" in heard
    assert said.count("camera gate: no answer for 15 s, its thread is stuck; the watchdog is starved") == 1
    source.let_go.set()
    camera.stop()
    dog.turned([camera], now + CAMERA_SECONDS + 41)
    assert "WATCHDOG=1" in manager.heard()


def test_a_thread_that_broke_down_is_stuck_for_ever(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    """Not a camera that went away, which is tried again and said: a fault of ours that nobody expected."""

    def broken(*_: object) -> Shots:
        raise RuntimeError("a fault")

    monkeypatch.setattr(capture, "open_source", broken)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    camera = started(said)
    eventually(lambda: camera.stuck_for(time.monotonic()) == float("inf"))
    dog = watchdog_of(manager, said)
    dog.turned([camera])
    assert "WATCHDOG=1" not in manager.heard()


def test_a_camera_that_is_away_and_said_so_starves_nothing(manager: Manager, said: list[str]) -> None:
    """It is tried again with backoff: the unit works, and is ready with the cameras it has."""
    camera = Camera("gate", "/dev/video63", Bell(), report=said.append)
    camera.start()
    eventually(lambda: said)
    dog = watchdog_of(manager, said)
    dog.turned([camera])
    assert manager.heard() == ["READY=1", "STATUS=scanning", "WATCHDOG=1"]
    camera.stop()


def test_a_pause_is_no_fault(manager: Manager) -> None:
    """Outside the ordered place the loop does not run, and need not."""
    watchdog_of(manager).paused("40 m outside High Street")
    assert manager.heard() == ["READY=1", "WATCHDOG=1", "STATUS=paused: 40 m outside High Street"]


def test_without_a_service_manager_nothing_is_sent(said: list[str]) -> None:
    dog = Watchdog(said.append, {})
    dog.turned([])
    dog.stopping("ended")
    assert said == []


def test_a_service_manager_that_is_gone_is_said_once(manager: Manager, said: list[str]) -> None:
    dog = watchdog_of(manager, said)
    manager.close()
    Path(manager.address).unlink(missing_ok=True)
    for number in range(5):
        dog.turned([], 10.0 * number)
    assert len(said) == 1
    assert watchdog.CAMERA_SECONDS > 10, "longer than OpenCV waits for a picture of a V4L2 camera"
