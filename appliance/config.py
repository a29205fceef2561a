"""The unit's configuration: one TOML file, every part of it checked, a misspelt key is an error with a suggestion."""

from __future__ import annotations

import difflib
import json
import sys
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from appliance.camera_kinds import exists, kind_of
from appliance.confine.sandbox import Restriction
from appliance.errors import ConfigError
from appliance.limits import LIMITS
from appliance.records import Record

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class UnitPart(Record):
    """Where a unit's files are; relative paths start at the config file's folder.

    `run` is the folder of the sockets, `courier` the courier's own (outbox, recall): both lie in `state` if not named.
    `users` are system users besides our own who may talk on the sockets: vision and keeper, where each has one.
    `position` is gpsd, gpsd://host:port or a JSON file: where one is set, scanning pauses outside the order's polygon.
    """

    keys: Path
    watchlist: Path
    order: Path | None = None
    state: Path
    run: Path | None = None
    courier: Path | None = None
    users: tuple[str, ...] = Field(default=(), max_length=8)
    position: str | None = Field(default=None, max_length=253)

    @property
    def sockets(self) -> Path:
        """The folder of courier.sock, keeper.sock and vision.sock."""
        return self.run or self.state / "run"

    @property
    def courier_folder(self) -> Path:
        """Where the courier keeps its outbox, and lays down a recall for vision and keeper to read."""
        return self.courier or self.state


class ModelsPart(Record):
    """Built-in pack names or folders."""

    detector: str = "lamp-detector"
    embedder: str = "lamp-embedder"
    threads: int = Field(default=2, ge=1, le=64)


class CameraPart(Record):
    """One camera. `fps` is for folders of pictures, which have no clock of their own."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$")
    source: str = Field(min_length=1, max_length=2048)
    pace: Literal["fast", "real"] = "fast"
    fps: float = Field(default=10.0, gt=0, le=240)


class DetectPart(Record):
    """Which faces are looked for: width in camera pixels, and the detector's own score."""

    smallest_face: float = Field(default=40.0, ge=8, le=1000)
    score: float = Field(default=0.6, gt=0, lt=1)


class TrackPart(Record):
    """When a track is believed and when it ends."""

    confirm_after: int = Field(default=3, ge=1, le=100)
    lost_seconds: float = Field(default=1.2, gt=0, le=10)


class ExtractPart(Record):
    """Which faces of a track are compared."""

    keep: int = Field(default=5, ge=1, le=50)
    least_interocular: float = Field(default=14.0, ge=4)
    least_quality: float = Field(default=0.15, ge=0, le=1)
    greatest_yaw: float = Field(default=1.0, gt=0, le=2)
    spacing: float = Field(default=0.12, ge=0, le=10)


class DecidePart(Record):
    """What makes an alert beside the threshold, which comes signed with the watchlist and is not set here."""

    least_templates: int = Field(default=2, ge=1, le=50)
    agreement: float = Field(default=0.6, ge=0, le=1)
    repeat_seconds: float = Field(default=30.0, ge=0, le=3600)


class AlertPart(Record):
    """Whether the compared face goes along, at most 200 x 200 pixels."""

    chip: bool = True


class BrokerPart(Record):
    """The MQTT broker; certificates come from the key folder."""

    host: str = Field(default="localhost", min_length=1, max_length=253)
    port: int = Field(default=8883, ge=1, le=65535)


class HealthPart(Record):
    """How often counts are sent."""

    seconds: float = Field(default=10.0, ge=1, le=600)


class BeaconPart(Record):
    """The lamp that burns exactly while the unit scans: a folder of /sys/class/leds, or a line of a GPIO chip."""

    led: Path | None = None
    gpio: str | None = Field(default=None, pattern=r"^gpiochip\d{1,3}:\d{1,4}$")

    @model_validator(mode="after")
    def _is_one(self) -> BeaconPart:
        if self.led is not None and self.gpio is not None:
            raise ValueError("'led' and 'gpio' are two ways to the same lamp; name one")
        return self


class SandboxPart(Record):
    """What vision must have given up, or it refuses to start; everything is tried in any case (sandbox.py)."""

    require: tuple[Restriction, ...] = ()


class UnitConfig(Record):
    """`unit.toml`, whole. Write a commented one with `bluelamp-unit config`."""

    unit: UnitPart
    models: ModelsPart = ModelsPart()
    camera: tuple[CameraPart, ...] = Field(min_length=1, max_length=16)
    detect: DetectPart = DetectPart()
    track: TrackPart = TrackPart()
    extract: ExtractPart = ExtractPart()
    decide: DecidePart = DecidePart()
    alert: AlertPart = AlertPart()
    broker: BrokerPart = BrokerPart()
    health: HealthPart = HealthPart()
    beacon: BeaconPart = BeaconPart()
    sandbox: SandboxPart = SandboxPart()

    @field_validator("camera")
    @classmethod
    def _names_differ(cls, cameras: tuple[CameraPart, ...]) -> tuple[CameraPart, ...]:
        names = [c.name for c in cameras]
        if len(set(names)) != len(names):
            raise ValueError("two cameras have the same name; give each its own")
        return cameras


def load(path: Path) -> UnitConfig:
    """Read a config; every mistake in it is told at once. Raises ConfigError."""
    try:
        if path.stat().st_size > LIMITS.config_bytes:
            raise ConfigError(f"{path}: larger than {LIMITS.config_bytes} bytes; this is not a config file")
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; write one with: bluelamp-unit config > {path}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML ({error}); mend that line") from error
    try:
        config = UnitConfig.model_validate(data)
    except ValidationError as error:
        lines = "\n  ".join(_line(e) for e in error.errors())
        raise ConfigError(f"{path}:\n  {lines}") from error
    return _anchored(config, path.resolve().parent)


def _anchored(config: UnitConfig, base: Path) -> UnitConfig:
    unit = config.unit
    paths = ("keys", "watchlist", "order", "state", "run", "courier")
    named = {name: path for name in paths if (path := getattr(unit, name)) is not None}
    moved = unit.model_copy(update={name: base / path.expanduser() for name, path in named.items()})
    cameras = tuple(c.model_copy(update={"source": _anchored_source(c.source, base)}) for c in config.camera)
    led = {"led": base / config.beacon.led} if config.beacon.led is not None else {}
    return config.model_copy(update={"unit": moved, "camera": cameras, "beacon": config.beacon.model_copy(update=led)})


def _anchored_source(source: str, base: Path) -> str:
    """A relative path of a file or folder starts at the config's folder; addresses and devices stay."""
    path = base / Path(source).expanduser()
    if "://" not in source and exists(path):
        return str(path)
    if "://" in source or kind_of(source) not in ("video", "folder"):
        return source
    return str(Path(source).absolute() if exists(Path(source)) else path)


def _line(error: Any) -> str:
    where = ".".join(str(p) for p in error["loc"])
    if error["type"] != "extra_forbidden":
        return f"{where}: {error['msg'].removeprefix('Value error, ')}"
    known = _fields_at(error["loc"][:-1])
    near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
    return f"{where}: unknown key; {hint}"


def _fields_at(location: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = UnitConfig
    for part in location:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        inner = annotation if isinstance(annotation, type) else next(iter(get_args(annotation)))
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            model = inner
    return list(model.model_fields)


def example(
    camera: str = "/dev/video0", smallest_face: int = 40, host: str = "control.example", port: int = 8883
) -> str:
    """A commented configuration to start from. Recorded material needs no deployment order, a camera does."""
    order = "# " if kind_of(camera) in ("video", "folder") else ""
    quoted = {
        "order": order,
        "camera": json.dumps(camera),
        "host": json.dumps(host),
        "port": port,
        "smallest_face": smallest_face,
    }
    return _EXAMPLE.format(**quoted)


_EXAMPLE = """\
# Bluelamp unit. Relative paths start at this file's folder. Check it with: bluelamp-unit check --config THIS

[unit]
keys = "keys"                     # made by: bluelamp-unit keys, then admitted by the base
watchlist = "watchlist.blw"       # sealed to this unit by: bluelamp-provision issue
{order}order = "order.json"              # the signed deployment order: no live camera is read without it
                                  # (leave it out only to rehearse on recorded clips)
# position = "gpsd"               # pause outside the order's polygon
state = "state"                   # outbox, log, receipts; with the keys the only folder written to, never by vision
# run = "/run/bluelamp"           # the sockets between vision, courier and keeper; state/run if not named
# courier = "/var/lib/bluelamp/courier"               # outbox and recall, where the courier has a folder of its own
# users = ["bluelamp-vision", "bluelamp-keeper"]      # who may talk on the sockets, where each is a user of its own

[models]
detector = "lamp-detector"        # a built-in pack or a folder; see: bluelamp-unit models list
embedder = "lamp-embedder"
threads = 2                       # CPU threads of each network

[[camera]]                        # one block a camera; several may run at once
name = "gate"
source = {camera}            # or clip.mp4, a folder of pictures, rtsp://user:password@host/path,
                                  # or a GStreamer pipeline ("nvarguscamerasrc ! ... ! appsink" on a Jetson)
# pace = "real"                   # files only: play at their own speed, drop frames like a camera
# fps = 10                        # folders only

[detect]
smallest_face = {smallest_face}                # width in camera pixels of the smallest face worth comparing
score = 0.6

[decide]
least_templates = 2               # faces of a track that must be compared before an alert
agreement = 0.6                   # share of them that must support it
repeat_seconds = 30               # the same reference on the same camera is not alerted again within
                                  # (thresholds are not set here: they come signed with the watchlist)

[alert]
chip = true                       # send the compared face, at most 200 x 200 pixels

[broker]
host = {host}
port = {port}

[health]
seconds = 10

[beacon]                          # lit exactly while scanning; where it cannot be lit, nothing is scanned
# led = "/sys/class/leds/beacon"
# gpio = "gpiochip0:17"           # needs the package gpiod

[sandbox]                         # vision gives up all it can in any case, and says what it got
# require = ["landlock", "seccomp", "limits", "no-dump", "no-new-privs", "memory-lock"]   # without these it refuses
"""
