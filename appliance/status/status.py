"""What is known of a unit this moment: who runs, what it scans under, what was counted. Nothing running is an answer.

Read from the outside, with no private key and no watchlist: vision's figures and the courier's greeting from their
local sockets, the order and the arming from their files, the log's last lines. It is for the eye: signatures are not
verified here, `bluelamp-unit check` does that.
"""

from __future__ import annotations

import json
import re
import time
from collections import deque
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import ValidationError

from appliance.config import UnitConfig
from appliance.deployment import arming, layout
from appliance.deployment.arming import Armed
from appliance.errors import BluelampError
from appliance.formats import order
from appliance.formats.order import Order
from appliance.rates import Share, share
from appliance.records import Health, Record
from appliance.sockets import health as figures
from appliance.sockets.link import Greeting
from appliance.sockets.running import ask_courier
from appliance.storage.files import read_bounded
from appliance.trust import audit, envelope
from appliance.vision import meter

Mode = Literal["scanning", "paused", "armed", "rehearsing", "not armed"]
MESSAGES = 4  # the last lines of the log that are shown
STALE_SECONDS = 30.0  # figures older than this are said to be old
_TAIL = 16_384  # bytes of the log that are read
_LONGEST = 160  # characters of a message
_DIGEST = re.compile(r"[0-9a-f]{64}")
RecordType = TypeVar("RecordType", bound=Record)


class Status(Record):
    """Everything that is shown. Times are UTC seconds; what is not known is None."""

    time: float
    mode: Mode
    deployment: str | None
    place: str | None
    until: float | None
    entries: int | None
    version: int | None
    vision: Health | None
    courier: Greeting | None
    tpir: Share | None
    fpir: Share | None
    temperature: float | None
    messages: tuple[str, ...]

    @property
    def left(self) -> float | None:
        """Seconds until the window ends."""
        return None if self.until is None else max(0.0, self.until - self.time)


def look(config: UnitConfig) -> Status:
    """Ask everybody once; takes no longer than their sockets' patience."""
    troubles: list[str] = []
    health = figures.ask(layout.figures_path(config))
    courier = ask_courier(layout.socket_path(config))
    armed = _shown(config.unit.state / "armed.json", arming.KIND, Armed, troubles)
    current = _shown(config.unit.order, order.KIND, Order, troubles) if config.unit.order is not None else None
    return judged(health, courier, armed, current, time.time(), (*troubles, *_logged(config.unit.state / "audit.log")))


def judged(
    health: Health | None, courier: Greeting | None, armed: Armed | None, current: Order | None, now: float,
    messages: tuple[str, ...] = (),
) -> Status:  # fmt: skip
    """What it comes to. Of a unit armed for another deployment the order that lies there says nothing."""
    named = armed.deployment if armed else health.deployment if health else current.deployment if current else None
    ours = current if current is not None and current.deployment == named else None
    cameras = [f"camera {c.name}: {c.message}" for c in health.cameras if c.message] if health else []
    return Status(
        time=now, mode=_mode(health, armed), deployment=named, place=ours.place.name if ours else None,
        until=ours.not_after if ours else None,
        entries=health.watchlist_entries if health else armed.entries if armed else None,
        version=armed.version if armed else None, vision=health, courier=courier,
        tpir=share(health.blue_found, health.blue_passes) if health else None,
        fpir=_false_share(health) if health else None,
        temperature=health.temperature if health else meter.temperature(),
        messages=(*cameras, *messages)[-MESSAGES - len(cameras) :],
    )  # fmt: skip


def _mode(health: Health | None, armed: Armed | None) -> Mode:
    if health is not None and health.state == "armed":
        return "scanning" if armed is not None else "rehearsing"
    if armed is None:
        return "not armed"
    return "paused" if health is not None and health.state == "disarmed" else "armed"


def _false_share(health: Health) -> Share:
    """False alerts among all who were compared but the volunteers: tracks are passes, not single faces."""
    others = max(0, health.searches - health.blue_found)
    return share(min(health.false_alerts, others), others)


def _shown(path: Path, kind: str, model: type[RecordType], troubles: list[str]) -> RecordType | None:
    """A signed record to be shown, not believed; what keeps it from being read is told."""
    try:
        return (
            envelope.unverified(read_bounded(path, envelope.DOCUMENT_BYTES), kind, model) if (path.exists()) else None
        )
    except (BluelampError, OSError) as error:
        troubles.append(str(error))
        return None


def _logged(path: Path) -> tuple[str, ...]:
    """The log's last acts in words; a log that may not be read, or none, has none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL))
            rows = deque(file.read().splitlines(), MESSAGES)
    except OSError:
        return ()
    return tuple(text for row in rows if (text := _act(row)) is not None)


def _act(row: bytes) -> str | None:
    try:
        entry = audit.Entry.model_validate(json.loads(row)["entry"])
    except (ValueError, KeyError, TypeError, ValidationError):
        return None  # cut in the middle by the tail, or not of our making
    detail = _DIGEST.sub(lambda found: found[0][:12] + "…", entry.detail)
    text = f"{time.strftime('%H:%M:%S', time.gmtime(entry.time))} {entry.act} {entry.subject}: {detail}"
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
