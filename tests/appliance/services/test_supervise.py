"""`bluelamp-unit run`: three processes under one command, and what happens when one of them dies."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.courier import server as courier
from appliance.courier.settings import CourierSettings
from appliance.errors import BluelampError
from appliance.services import supervise
from appliance.services.supervise import RESTARTS, CourierChild, Ended, summary_of
from appliance.sockets import health as figures
from appliance.sockets import link
from appliance.transport.mqtt import BrokerAddress
from appliance.transport.tls import TlsFiles
from appliance.trust import locker
from demo import rehearsal
from demo.run import ASSETS
from tests.support.led import Driver
from tests.support.machines import eventually
from tests.support.service_manager import Manager

BEACON = '[beacon]\nled = "leds/beacon"\n'


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A unit with a sealed list, a clip that plays at its own pace, an LED, and a broker that is away."""
    folder = tmp_path_factory.mktemp("unit")
    made = rehearsal.prepare(folder)
    rehearsal.enrol(made, ASSETS / "watchlist.csv")
    rehearsal.seal_list(made, "D-1", fpir=1e-3)
    led = folder / "unit" / "leds" / "beacon"
    led.mkdir(parents=True)
    (led / "brightness").write_text("0\n")
    text = '[unit]\nkeys = "keys"\nwatchlist = "watchlist.blw"\nstate = "state"\n[[camera]]\nname = "street"\n'
    text += f'source = "{ASSETS.resolve() / "street.mp4"}"\npace = "real"\n[broker]\nhost = "127.0.0.1"\nport = 9\n'
    (folder / "unit" / "unit.toml").write_text(text + BEACON)
    return folder / "unit" / "unit.toml"


class Run:
    """A running unit."""

    def __init__(self, config: Path, *more: str) -> None:
        command = [sys.executable, "-m", "appliance.cli", "run", "--config", str(config), "--json", *more]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line.strip())

    def child(self, words: str) -> int:
        """The process id of the child whose command line holds `words`; 0 where there is none."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        for pid in path.read_text().split():
            with contextlib.suppress(OSError):
                if words in Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode():
                    return int(pid)
        return 0

    def end(self) -> int:
        """Wait; the exit code."""
        code = self.process.wait(60)
        self._reader.join(10)
        return code


@pytest.fixture
def driver(config: Path) -> Iterator[Driver]:
    made = Driver(config.parent / "leds" / "beacon")
    yield made
    made.close()
    (config.parent / "leds" / "beacon" / "brightness").unlink()
    (config.parent / "leds" / "beacon" / "brightness").write_text("0\n")


def scanning(run: Run, config: Path) -> bool:
    health = figures.ask(config.parent / "state" / "run" / "vision.sock")
    assert run.process.poll() is None, run.said
    return health is not None and health.beacon == "lit"


def test_killed_parts(config: Path, driver: Driver) -> None:
    """The courier is killed and comes again; vision is killed, and the lamp goes out, nothing of it stays, and it is
    told. Until then the figures are there to see, and say what vision gave up."""
    run = Run(config)
    eventually(lambda: scanning(run, config), 60)
    assert driver.seen[-1] == "1"
    health = figures.ask(config.parent / "state" / "run" / "vision.sock")
    assert health is not None
    assert "no new privileges" in health.sandbox
    assert (health.unit, health.deployment, health.cameras[0].name) == (rehearsal.UNIT, "D-1", "street")

    threads = list(Path(f"/proc/{run.child('vision')}/task").iterdir())
    held = [(thread / "status").read_text() for thread in threads]
    assert len(held) > 4, "loop, camera, link, figures, and the runtimes' own"
    assert all("NoNewPrivs:\t1" in status and "Seccomp:\t2" in status for status in held), "every thread is held"

    first = run.child("appliance.courier")
    os.kill(first, signal.SIGKILL)
    eventually(lambda: run.child("appliance.courier") not in (0, first), 30)
    assert "the courier crashed (code -9); starting it again" in run.said
    eventually(lambda: link.answers(config.parent / "state" / "run" / "courier.sock"), 30)

    os.kill(run.child("vision"), signal.SIGKILL)
    assert run.end() == 1
    assert "vision was ended by SIGKILL" in run.said[-1]
    assert driver.seen[-1] == "0"
    assert list((config.parent / "state" / "run").iterdir()) == []


def test_a_killed_supervisor_leaves_no_part_behind(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both children hang on a pipe that it held, and end in order."""
    text = config.read_text().replace(BEACON, "")
    alone = config.with_name("alone.toml")
    alone.write_text(text)
    manager = Manager(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
    run = Run(alone)
    heard: list[str] = []
    eventually(lambda: heard.extend(manager.heard()) or "READY=1" in heard, 60)
    assert "WATCHDOG=1" in heard, "the confined process reaches its service manager"
    children = [run.child("vision"), run.child("appliance.courier")]
    run.process.kill()
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), 40)
    run.end()
    assert "STOPPING=1" in manager.heard()
    manager.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_pause_outside_the_place_and_an_end_without_a_courier(tmp_path: Path) -> None:
    """Under an order, confined: the lamp goes out outside the polygon and burns again inside; disarmed while it
    pauses, the deployment is erased by the keeper, and its receipt waits for a courier."""
    from tests.end_to_end.test_receipts_end_to_end import Scene, command, packs_with_calibration

    scene = Scene(tmp_path, packs_with_calibration(tmp_path / "packs"))
    scene.admit()
    scene.order("D-1")
    path = scene.config(9, "D-1")
    led = tmp_path / "leds"
    led.mkdir()
    (led / "brightness").write_text("0\n")
    driver, place = Driver(led), tmp_path / "place.json"
    text = path.read_text().replace("[models]", f'position = "{place}"\n[models]')
    path.write_text(text + f'[beacon]\nled = "{led}"\n')
    inside = {"latitude": 51.50025, "longitude": -0.141}  # of the polygon in provisioning/orders/ordering.py

    def stand(where: dict[str, float]) -> None:
        part = place.with_suffix(".part")
        part.write_text(json.dumps(where))
        os.utime(part, (time.time() + 3600,) * 2)  # it does not grow old during the test
        part.replace(place)

    stand(inside)
    command("unit", "arm", "--config", path, "--yes", tmp_path / "signage.json")
    run = Run(path, "--no-courier")
    eventually(lambda: driver.seen[-1:] == ["1"], 60)
    stand({"latitude": 0.0, "longitude": 0.0})
    eventually(lambda: any(line.startswith("paused:") for line in run.said), 30)
    eventually(lambda: driver.seen[-1] == "0", 30)
    stand(inside)
    eventually(lambda: "going on" in run.said and driver.seen[-1] == "1", 30)
    stand({"latitude": 0.0, "longitude": 0.0})
    eventually(lambda: driver.seen[-1] == "0", 30)
    command("unit", "disarm", "--config", path)
    assert run.end() in (0, 7), "7 where it raised an alert meanwhile, which nobody took"
    assert driver.seen[-1] == "0"
    assert any("D-1 is over (disarmed)" in line for line in run.said)
    assert any("no courier took the receipt" in line for line in run.said)
    assert (tmp_path / "state" / "receipts" / "D-1.sealed").exists()
    driver.close()


@pytest.fixture
def settings(tmp_path: Path) -> CourierSettings:
    files = TlsFiles(ca=tmp_path / "ca", certificate=tmp_path / "c", key=tmp_path / "k")
    broker = BrokerAddress(host="127.0.0.1", port=9)
    return CourierSettings(unit="van-1", broker=broker, tls=files, socket=tmp_path / "s", outbox=tmp_path / "o")


def test_a_courier_that_crashes_again_and_again_is_left_alone(
    settings: CourierSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is started so often and no oftener, and the end of it is said once."""
    started: list[subprocess.Popen[bytes]] = []

    def crashing(_: CourierSettings) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(["/bin/false"]))
        started[-1].wait()
        return started[-1]

    monkeypatch.setattr(courier, "spawn", crashing)
    said: list[str] = []
    child = CourierChild(settings, said.append)
    for _ in range(20):
        child.tend()
    assert len(started) == RESTARTS + 1
    assert said[-1].startswith(f"the courier crashed {RESTARTS + 1} times (code 1) and is not started again")
    assert len(said) == RESTARTS + 1
    child.stop()


def test_the_summary_is_what_vision_printed() -> None:
    assert summary_of(Ended(0, json.dumps({"alerts": 3}) + "\n")) == {"alerts": 3}
    assert summary_of(Ended(3, "")) == {}, "it failed before it could scan, and said why"
    with pytest.raises(BluelampError, match=re.escape("vision was ended by SIGSEGV; nothing of it was kept")):
        summary_of(Ended(-11, ""))


def test_a_passphrase_is_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The supervisor asks at the terminal; keeper and vision read it from an anonymous file in memory."""
    locker.start(tmp_path, "four random words here")
    asked: list[str] = []
    monkeypatch.setattr(sys, "stdin", type("Terminal", (), {"isatty": lambda self: True})())
    monkeypatch.setattr("getpass.getpass", lambda prompt: asked.append(prompt) or "four random words here")
    monkeypatch.delenv("BLUELAMP_PASSPHRASE_FILE", raising=False)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    environment = dict(os.environ)
    try:
        (descriptor,) = supervise._passphrase(tmp_path)
        assert locker.passphrase() == locker.passphrase() == "four random words here"
        assert len(asked) == 1
        assert supervise._passphrase(tmp_path) == (), "delivered now"
        os.close(descriptor)
    finally:
        os.environ.clear()
        os.environ.update(environment)


def test_keys_without_a_passphrase_ask_for_none(tmp_path: Path) -> None:
    assert supervise._passphrase(tmp_path) == ()
