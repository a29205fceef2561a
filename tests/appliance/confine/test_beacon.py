"""The lamp burns exactly while the unit scans; where it cannot be lit, nothing is scanned."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from appliance import config
from appliance.capture import camera as capture
from appliance.config import BeaconPart
from appliance.confine import beacon
from appliance.confine.beacon import BeaconError, LampBeacon, NoBeacon, SysfsLed, open_beacon
from appliance.errors import ConfigError
from appliance.vision import loop as vision
from tests.support.led import Driver


@pytest.fixture
def led(tmp_path: Path) -> Path:
    """An LED as the kernel shows one."""
    folder = tmp_path / "leds" / "beacon"
    folder.mkdir(parents=True)
    (folder / "brightness").write_text("7\n")
    (folder / "max_brightness").write_text("255\n")
    (folder / "trigger").write_text("[heartbeat] none\n")
    return folder


@pytest.fixture
def driver(led: Path) -> Iterator[Driver]:
    made = Driver(led)
    yield made
    made.close()


def opened(led: Path, said: list[str] | None = None) -> LampBeacon:
    made = open_beacon(BeaconPart(led=led), (said if said is not None else []).append)
    assert isinstance(made, LampBeacon)
    return made


def brightness(led: Path) -> str:
    return (led / "brightness").read_text().split()[0]


def test_it_is_dark_when_opened_lit_inside_and_dark_again(led: Path) -> None:
    """And no trigger of the kernel switches it meanwhile."""
    lamp = opened(led)
    assert (brightness(led), lamp.state, (led / "trigger").read_text()) == ("0", "dark", "none")
    with lamp.lit():
        assert (brightness(led), lamp.state) == ("255", "lit")
    assert (brightness(led), lamp.state) == ("0", "dark")


def test_it_goes_dark_when_scanning_ends_badly(led: Path) -> None:
    lamp = opened(led)
    with pytest.raises(RuntimeError), lamp.lit():
        raise RuntimeError("a fault")
    assert brightness(led) == "0"


def test_a_lamp_that_does_not_obey_is_found_out(led: Path, driver: Driver) -> None:
    """The write succeeds and the light stays off: it is read back."""
    lamp = opened(led)
    driver.obeys = False
    with pytest.raises(BeaconError, match=r"cannot be lit, so nothing is scanned .*check its wiring"), lamp.lit():
        pytest.fail("nothing may be scanned")
    assert lamp.state == "dark"


def test_nothing_is_captured_where_it_cannot_be_lit(led: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop asks the lamp before it starts a camera."""
    lamp = opened(led)
    (led / "brightness").unlink()
    (led / "brightness").mkdir()
    started: list[str] = []
    monkeypatch.setattr(capture.Camera, "start", lambda camera: started.append(camera.name))
    lane = SimpleNamespace(camera=SimpleNamespace(start=lambda: started.append("front")))
    loop = vision.Vision(
        unit="van-1", deployment="D-1", lanes=[lane], bell=None, detector=None, identifier=None, decider=None,
        sealer=None, outlet=None, permit=lambda now, steady: None, beacon=lamp,
    )  # type: ignore[list-item, arg-type] # fmt: skip
    with pytest.raises(BeaconError, match="cannot be lit, so nothing is scanned"):
        loop.run()
    assert started == []


def test_a_lamp_that_does_not_go_out_stops_nothing_that_comes_after(led: Path) -> None:
    """The erasure comes after: it is said, not raised."""
    said: list[str] = []
    lamp = opened(led, said)
    with lamp.lit():
        (led / "brightness").unlink()
    assert "does not go out, though nothing is scanned" in said[0]


def test_no_beacon_is_a_beacon_that_is_never_lit() -> None:
    none = open_beacon(BeaconPart(), print)
    assert isinstance(none, NoBeacon)
    with none.lit():
        assert none.state == "none"
    assert beacon.writable(BeaconPart()) == ()


def test_what_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BeaconError, match="beacon"):
        open_beacon(BeaconPart(led=tmp_path / "none"), print)
    monkeypatch.setitem(sys.modules, "gpiod", None)
    with pytest.raises(BeaconError, match="pip install gpiod"):
        open_beacon(BeaconPart(gpio="gpiochip0:17"), print)


def test_a_line_of_a_gpio_chip_is_switched_and_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through libgpiod's own interface; the chip is pretended."""
    values: list[tuple[int, str]] = []
    request = SimpleNamespace(
        set_value=lambda line, value: values.append((line, value)), get_value=lambda line: values[-1][1]
    )
    line = SimpleNamespace(Direction=SimpleNamespace(OUTPUT="out"), Value=SimpleNamespace(ACTIVE="on", INACTIVE="off"))
    module = SimpleNamespace(
        LineSettings=lambda **k: k, request_lines=lambda path, consumer, config: request, line=line
    )
    monkeypatch.setitem(sys.modules, "gpiod", module)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "gpiod.line", line)  # type: ignore[arg-type]
    with open_beacon(BeaconPart(gpio="gpiochip0:17"), print).lit():
        assert values[-1] == (17, "on")
    assert values[-1] == (17, "off")


def test_one_lamp_has_one_name(tmp_path: Path) -> None:
    path = tmp_path / "unit.toml"
    text = config.example().replace("[beacon]", '[beacon]\nled = "/sys/class/leds/a"\ngpio = "gpiochip0:1"')
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="two ways to the same lamp"):
        config.load(path)


def test_the_lamp_is_all_that_vision_may_write(led: Path) -> None:
    assert beacon.writable(BeaconPart(led=led)) == (led / "brightness",)
    assert SysfsLed(led).name == str(led)
