"""The lamp that shows that the unit scans: an LED or relay of sysfs, or a line of a GPIO chip.

It is lit before the first picture is taken and dark after the last. Where it cannot be lit, nothing is scanned: the
lamp is read back, because a write to a driver that lost its hardware may well succeed. After a crash the service's
ExecStopPost, or the supervisor, makes it dark.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

from appliance.config import BeaconPart
from appliance.errors import BluelampError

State = Literal["lit", "dark", "none"]


class BeaconError(BluelampError):
    """The beacon cannot be lit, or does not go out."""

    exit_code = 3


class Lamp(Protocol):
    """What can be switched."""

    name: str

    def switch(self, on: bool) -> None:
        """On or off. Raises OSError."""
        ...

    def is_on(self) -> bool:
        """What the hardware says. Raises OSError."""
        ...


class Beacon(Protocol):
    """A beacon, or none."""

    @property
    def state(self) -> State: ...

    def lit(self) -> Any:
        """A context in which it burns. Raises BeaconError where it cannot be lit, before anything else happens."""
        ...


class NoBeacon:
    """No beacon is configured."""

    state: State = "none"

    @contextmanager
    def lit(self) -> Iterator[None]:
        """Nothing burns."""
        yield


class LampBeacon:
    """A beacon with a lamp."""

    def __init__(self, lamp: Lamp, say: Callable[[str], None]) -> None:
        self._lamp, self._say = lamp, say
        self.state: State = "dark"

    @contextmanager
    def lit(self) -> Iterator[None]:
        """See Beacon."""
        self.light()
        try:
            yield
        finally:
            try:
                self.dark()
            except BeaconError as error:  # what comes after must come all the same: the erasure
                self._say(str(error))

    def light(self) -> None:
        """Burn. Raises BeaconError."""
        self._switch(True, "cannot be lit, so nothing is scanned")
        self.state = "lit"

    def dark(self) -> None:
        """Go out. Raises BeaconError."""
        self._switch(False, "does not go out, though nothing is scanned")
        self.state = "dark"

    def _switch(self, on: bool, what: str) -> None:
        try:
            self._lamp.switch(on)
            done = self._lamp.is_on() == on
        except (OSError, ValueError) as error:
            raise BeaconError(f"beacon {self._lamp.name}: {what} ({error}); check its name and its rights") from error
        if not done:
            raise BeaconError(f"beacon {self._lamp.name}: {what} (it reads back otherwise); check its wiring")


class SysfsLed:
    """An LED of /sys/class/leds; a relay with a driver for one looks the same."""

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self._brightness = folder / "brightness"
        most, trigger = folder / "max_brightness", folder / "trigger"
        self._most = int(most.read_text()) if most.exists() else 1
        if trigger.exists():
            trigger.write_text("none")  # a heartbeat or disk trigger would switch it behind our back

    def switch(self, on: bool) -> None:
        """See Lamp."""
        with self._brightness.open("r+b", buffering=0) as file:
            file.write(f"{self._most if on else 0}\n".encode())

    def is_on(self) -> bool:
        """See Lamp."""
        with self._brightness.open("rb", buffering=0) as file:
            return int(file.readline()) > 0


class GpioLine:
    """A line of a GPIO character device, through libgpiod."""

    def __init__(self, named: str) -> None:
        try:
            import gpiod
            from gpiod.line import Direction, Value
        except ImportError as error:
            raise BeaconError("a beacon on a GPIO line needs gpiod; install it with: pip install gpiod") from error
        self.name = named
        chip, line = named.split(":")
        self._line, self._on, self._off = int(line), Value.ACTIVE, Value.INACTIVE
        settings = gpiod.LineSettings(direction=Direction.OUTPUT, output_value=self._off)
        self._request = gpiod.request_lines(f"/dev/{chip}", consumer="bluelamp", config={self._line: settings})

    def switch(self, on: bool) -> None:
        """See Lamp."""
        self._request.set_value(self._line, self._on if on else self._off)

    def is_on(self) -> bool:
        """See Lamp."""
        return bool(self._request.get_value(self._line) == self._on)


def open_beacon(config: BeaconPart, say: Callable[[str], None]) -> Beacon:
    """The configured beacon, dark. Raises BeaconError where it is not there or does not obey."""
    try:
        if config.led is not None:
            lamp: Lamp = SysfsLed(config.led)
        elif config.gpio is not None:
            lamp = GpioLine(config.gpio)
        else:
            return NoBeacon()
    except (OSError, ValueError) as error:
        raise BeaconError(f"beacon: {error}; see /sys/class/leds, and who may write there") from error
    beacon = LampBeacon(lamp, say)
    beacon.dark()
    return beacon


def writable(config: BeaconPart) -> tuple[Path, ...]:
    """The files vision must be able to write for its beacon; a requested GPIO line is open already."""
    return () if config.led is None else (config.led / "brightness",)
