"""`bluelamp-unit check`: is everything there that scanning needs? A line each, in the order it will be needed."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from appliance import deployment, keys, tls, unit
from appliance.config import CameraPart, UnitConfig
from appliance.detect import Detector
from appliance.errors import BluelampError, CourierError
from appliance.sources import open_source
from appliance.watchlist import Watchlist, utc

_ROOM = 200_000_000  # bytes; an outbox of some 5,000 alerts with their chips
_BROKER_SECONDS = 5.0


Found = TypeVar("Found")


@dataclass(frozen=True)
class Line:
    """One finding. `text` is what was found, or what to do."""

    name: str
    good: bool
    text: str


def check(config: UnitConfig) -> Iterator[Line]:
    """Try everything without scanning; later lines that need an earlier one that failed are left out."""
    folder, line = _tried("keys", lambda: keys.load(config.unit.keys), _name)
    yield line
    networks, line = _tried("models", lambda: unit.open_networks(config), lambda _: "digests and golden records")
    yield line
    if folder is not None and networks is not None:
        content, line = _tried(
            "watchlist", lambda: deployment.open_list(config.unit.watchlist, folder, networks.models, time.time()),
            _list,
        )  # fmt: skip
        yield line
        if content is not None:
            content.erase()
    for camera in config.camera:
        detector = networks.detector if networks is not None else None
        yield _tried(f"camera {camera.name}", partial(_picture, camera, detector), str)[1]
    yield _tried("disk", lambda: _room(config), str)[1]
    yield _tried("broker", lambda: _broker(config), str)[1]
    yield Line("clock", True, utc(time.time()) + " (compare it with another one)")


def _tried(name: str, act: Callable[[], Found], tell: Callable[[Any], str]) -> tuple[Found | None, Line]:
    try:
        found = act()
    except BluelampError as error:
        return None, Line(name, False, str(error))
    return found, Line(name, True, tell(found))


def _name(folder: keys.KeyFolder) -> str:
    return f"unit {folder.identity.name}, roster version {folder.roster.version}"


def _list(content: Watchlist) -> str:
    return f"{len(content.manifest.entries)} templates, until {utc(content.manifest.not_after)}"


def _picture(camera: CameraPart, detector: Detector | None) -> str:
    image, _ = next(open_source(camera.source, camera.fps))
    size = f"{image.shape[1]} x {image.shape[0]}"
    if detector is None:
        return size
    width, height = detector.size_for(image)
    return f"{size}, faces are looked for at {width} x {height}"


def _room(config: UnitConfig) -> str:
    unit.prepare_state(config)
    free = shutil.disk_usage(config.unit.state).free
    if free < _ROOM:
        raise CourierError(f"{config.unit.state}: {free // 1_000_000} MB free, {_ROOM // 1_000_000} needed; make room")
    return f"{free // 1_000_000} MB free"


def _broker(config: UnitConfig) -> str:
    settings = unit.courier_settings(config)
    context, address = tls.tls_context(settings.tls), settings.broker
    tls.check_validity(settings.tls, time.time())
    try:
        with (
            socket.create_connection((address.host, address.port), _BROKER_SECONDS) as raw,
            context.wrap_socket(raw, server_hostname=address.host) as secured,
        ):
            return f"{address}, {secured.version()}"
    except OSError as error:
        raise CourierError(
            f"{address}: {tls.explain(error)}; alerts will wait on this unit until it answers"
        ) from error
