"""The lines of `check` about the machine: cameras, beacon, disk, broker, courier, heat, memory, sandbox."""

from __future__ import annotations

import shutil
import socket
import ssl
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import cast

from appliance.camera_kinds import kind_of
from appliance.capture import light as scene
from appliance.capture.sources import open_source
from appliance.check.line import Line, tried
from appliance.config import BeaconPart, CameraPart, UnitConfig
from appliance.confine import sandbox
from appliance.confine.beacon import open_beacon
from appliance.courier.settings import courier_settings
from appliance.deployment import layout
from appliance.errors import CaptureError, CourierError
from appliance.recognition.detect import Detector
from appliance.records import Health, Image
from appliance.sockets.running import ask_courier
from appliance.transport import tls
from appliance.vision import meter

_ROOM = 200_000_000  # bytes; an outbox of some 5,000 alerts with their chips
_MEMORY = 500_000_000  # bytes; vision with 10,000 references, its courier, and a little air
_BROKER_SECONDS = 5.0
_SETTLE_SECONDS = 1.0  # a live camera's exposure and focus need a moment to settle
_BURN_SECONDS = 1.0
HOT = 80.0  # degrees Celsius; small computers slow down soon after
_UNSAFE_SWAP = "swap is on, and what vision holds could reach the disk: sudo swapoff -a"


def lines(config: UnitConfig, detector: Detector | None, running: Health | None) -> Iterator[Line]:
    """Cameras, beacon and so on to the sandbox; `running` is vision's report where it scans."""
    yield from cameras(config, detector, running)
    yield beacon(config, running)
    yield tried("disk", partial(_room, config))[1]
    yield broker(config)
    yield tried("courier", partial(_courier, config))[1]
    yield temperature(meter.temperature())
    yield memory(*_memory())
    yield confinement(config, running)


def cameras(config: UnitConfig, detector: Detector | None, running: Health | None) -> Iterator[Line]:
    """Each camera, and its picture's focus and light."""
    for camera in config.camera:
        yield from _camera(camera, config, detector, running)


def _camera(
    camera: CameraPart, config: UnitConfig, detector: Detector | None, running: Health | None
) -> Iterator[Line]:
    name = f"camera {camera.name}"
    held = next((c for c in running.cameras if c.name == camera.name), None) if running is not None else None
    if held is not None:  # a camera that scans cannot be opened a second time
        yield Line(name, held.state in ("running", "ended"), f"{held.state}, {held.fps:.1f} frames a second "
                                                             f"{held.message}".rstrip())  # fmt: skip
        return
    image, line = tried(name, partial(_picture, camera), partial(_size, detector))
    yield line
    if image is not None:
        yield light(f"scene {camera.name}", scene.look(image), config.detect.smallest_face)


def light(name: str, found: scene.Scene, smallest_face: float) -> Line:
    """Focus and exposure of one camera's picture: a reason to look, never to stop."""
    wrong = scene.faults(found, smallest_face)
    return Line(name, True, "; ".join(wrong) or scene.words(found), look=bool(wrong))


def _picture(camera: CameraPart) -> Image:
    """The first picture of a recording; of a live camera the one after it had a moment to settle."""
    wait = 0.0 if kind_of(camera.source) in ("video", "folder") else _SETTLE_SECONDS
    with closing(cast(Generator[tuple[Image, float], None, None], open_source(camera.source, camera.fps))) as shots:
        began = time.monotonic()
        for image, _ in shots:
            if time.monotonic() - began >= wait:
                return image
    raise CaptureError(f"{camera.source}: holds no picture that can be decoded; copy it again")


def _size(detector: Detector | None, image: Image) -> str:
    size = f"{image.shape[1]} x {image.shape[0]}"
    if detector is None:
        return size
    width, height = detector.size_for(image)
    return f"{size}, faces are looked for at {width} x {height}"


def _room(config: UnitConfig) -> str:
    layout.prepare_state(config)
    free = shutil.disk_usage(config.unit.state).free
    if free < _ROOM:
        raise CourierError(f"{config.unit.state}: {free // 1_000_000} MB free, {_ROOM // 1_000_000} needed; make room")
    return f"{free // 1_000_000} MB free"


def broker(config: UnitConfig) -> Line:
    """Whether the broker answers; where it is down, scanning is possible all the same."""
    found, failed = tried("broker", partial(_broker, config))
    return found or failed


def _broker(config: UnitConfig) -> Line:
    settings = courier_settings(config)
    context, address = tls.tls_context(settings.tls), settings.broker
    tls.check_validity(settings.tls, time.time())
    try:
        with (
            socket.create_connection((address.host, address.port), _BROKER_SECONDS) as raw,
            context.wrap_socket(raw, server_hostname=address.host) as secured,
        ):
            return Line("broker", True, f"{address}, {secured.version()}")
    except ssl.SSLError as error:
        raise CourierError(f"{address}: {tls.explain(error)}; alerts wait on this unit until that is right") from error
    except OSError as error:
        text = f"{address}: {tls.explain(error)}; alerts will wait on this unit until it answers"
        return Line("broker", True, text, look=True)


def _courier(config: UnitConfig) -> str:
    greeting = ask_courier(layout.socket_path(config))
    if greeting is None:
        return "not running; bluelamp-unit run starts it"
    broker = "connected to the broker" if greeting.broker else "not connected to the broker: alerts wait"
    return f"running, {broker}; {greeting.queued} sealed alert(s) wait"


def temperature(celsius: float | None) -> Line:
    """The hottest sensor."""
    if celsius is None:
        return Line("temperature", True, "no sensor tells it")
    if celsius < HOT:
        return Line("temperature", True, f"{celsius:.0f} C")
    return Line("temperature", True, f"{celsius:.0f} C: give the unit shade and air, it slows down when it is hot",
                look=True)  # fmt: skip


def memory(free: int, swapped: bool) -> Line:
    """Room for vision, and nowhere for it to be written to."""
    text = f"{free // 1_000_000} MB free"
    if free < _MEMORY:
        return Line("memory", True, f"{text}, {_MEMORY // 1_000_000} are needed: end other programs", look=True)
    return Line("memory", True, f"{text}; {_UNSAFE_SWAP}" if swapped else f"{text}, no swap", look=swapped)


def _memory() -> tuple[int, bool]:
    """Bytes available, and whether memory may be written to a disk; compressed memory (zram) is memory."""
    rows = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    swaps = Path("/proc/swaps")
    listed = swaps.read_text().splitlines()[1:] if swaps.exists() else []
    return int(rows["MemAvailable"].split()[0]) * 1024, any("zram" not in line for line in listed)


def confinement(config: UnitConfig, running: Health | None) -> Line:
    """What vision gave up; where it does not run, what it will be able to give up here."""
    if running is not None and running.sandbox:
        return Line("sandbox", True, "; ".join(running.sandbox))
    found = sandbox.available()
    missing = [f"no {name} ({why})" for name, why in found.items() if why]
    required = [name for name in config.sandbox.require if found[name]]
    if required:
        return Line("sandbox", False, f"{'; '.join(missing)}: [sandbox] requires {', '.join(required)}, so vision will "
                                      "not start")  # fmt: skip
    return Line("sandbox", True, "; ".join([", ".join(name for name, why in found.items() if not why), *missing]))


def beacon(config: UnitConfig, running: Health | None) -> Line:
    """The beacon burns for a second, for somebody to look at; while vision scans it is vision's."""
    if running is not None and running.beacon != "none":
        return Line("beacon", running.beacon == "lit" or running.state != "armed", running.beacon)
    part = config.beacon
    if (part.led or part.gpio) and _may_be_armed(config):
        # Vision may be about to light it: a lamp that this check put out under a scanning unit would lie.
        return Line("beacon", True, "left to vision while the unit is armed; it does not scan without it")
    if part.led is None and part.gpio is None:
        live = any(kind_of(c.source) not in ("video", "folder") for c in config.camera)
        advice = "; name an LED or a relay under [beacon], so that people see when this unit scans" if live else ""
        return Line("beacon", True, f"none is configured{advice}", look=live)
    return tried("beacon", lambda: _burn(part))[1]


def _may_be_armed(config: UnitConfig) -> bool:
    try:
        return (config.unit.state / "armed.json").exists()
    except OSError:
        return True  # who may not look there had better leave the lamp alone


def _burn(part: BeaconPart) -> str:
    said: list[str] = []
    with open_beacon(part, said.append).lit():
        time.sleep(_BURN_SECONDS)
    return "; ".join(["it burnt for a second: did you see it?", *said])
