"""A whole deployment in one folder, on one machine, through the real parts: keys, list, broker, unit, control room.

Nothing is shortened: the base signs, the unit runs as its own process with its courier, mosquitto speaks mutual TLS,
and the control room opens what arrives. The demo, the street benchmark and the end-to-end tests all use this.
"""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from appliance.errors import BluelampError
from appliance.formats import order
from appliance.formats import preflight as preflights
from appliance.recognition import packs
from appliance.transport.mqtt import BrokerAddress
from appliance.trust import admission, envelope
from control.broker.broker import BrokerFiles, running_broker
from control.receive.inbox import Opened
from control.receive.tail import Tail, Until
from provisioning.authority import authority
from provisioning.base import Base, open_base
from provisioning.enrolment.enrolment import Summary, enrol_images
from provisioning.lists import cohort, issue, preflight, selection
from provisioning.orders import dossier, ordering

UNIT, CONTROL, HOST = "van-07", "control-1", "127.0.0.1"
_ARRIVAL_SECONDS = 20.0  # how long the last alerts may travel after the unit has ended
Show = Callable[[Opened], None]


class RehearsalError(BluelampError):
    """A part of the rehearsal did not do its part."""


@dataclass(frozen=True)
class Rehearsal:
    """Folders of a base, a unit and a control room that know each other, and the packs in use."""

    folder: Path
    base: Base
    detector: str
    embedder: str

    @property
    def unit_keys(self) -> Path:
        """The unit's key folder."""
        return self.folder / "unit" / "keys"

    @property
    def control_keys(self) -> Path:
        """The control room's key folder."""
        return self.folder / "control"


@dataclass(frozen=True)
class Outcome:
    """What arrived, and the unit's own summary (appliance.vision.loop.Summary as a dictionary)."""

    opened: tuple[Opened, ...]
    summary: Mapping[str, float]
    refused: int
    resident_bytes: int
    stages: Mapping[str, float]


def prepare(folder: Path, detector: str = "lamp-detector", embedder: str = "lamp-embedder") -> Rehearsal:
    """Make the base, the unit, the control room and the broker's certificate."""
    authority.init(folder / "base")
    for keys, role, name in ((folder / "unit" / "keys", "unit", UNIT), (folder / "control", "control", CONTROL)):
        request = admission.make_request(keys, role, name)  # type: ignore[arg-type]
        admission.admit(keys, authority.admit(open_base(folder / "base"), request.read_bytes()))
    # The unit was admitted before the control room: it needs the roster that names both.
    newest = (folder / "base" / "roster.json").read_bytes()
    for keys in (folder / "unit" / "keys", folder / "control"):
        admission.update_roster(keys, newest)
    base = open_base(folder / "base")
    authority.broker_certificate(base, [HOST, "localhost"], folder / "broker")
    return Rehearsal(folder, base, detector, embedder)


def enrol(
    rehearsal: Rehearsal, source: Path, *, defaults: Mapping[str, str] | None = None, partial: bool = False
) -> Summary:
    """Enrol a list or folder of portraits. Raises RehearsalError where any is refused, unless `partial`."""
    detector, embedder = packs.load(rehearsal.detector), packs.load(rehearsal.embedder)
    done = enrol_images(rehearsal.base, source, detector, embedder, defaults=defaults)
    if done.refused and not partial:
        first = done.refused[0]
        raise RehearsalError(f"{len(done.refused)} portraits refused; {first.image}: {', '.join(first.reasons)}")
    return done


def seal_list(
    rehearsal: Rehearsal, deployment: str, *, threshold: float | None = None, fpir: float | None = None,
    hours: float = 2.0,
) -> issue.Issued:  # fmt: skip
    """Select everything, seal it to the unit, put it where the unit looks."""
    detector, embedder = packs.load(rehearsal.detector), packs.load(rehearsal.embedder)
    chosen = selection.select(rehearsal.base, detector, embedder, on=datetime.date.today())
    limits = issue.thresholds(embedder, detector, len(chosen.rows), threshold=threshold, fpir=fpir, selection=chosen)
    window = issue.Window(time.time() - 1, time.time() + hours * 3600)
    return issue.issue(
        rehearsal.base, chosen, unit=UNIT, deployment=deployment, window=window, limits=limits,
        out=rehearsal.folder / "unit" / "watchlist.blw",
    )  # fmt: skip


def authorise(rehearsal: Rehearsal, issued: issue.Issued, *, adjudicators: int = 1) -> Path:
    """The order of what was issued, signed by the base, whose quorum is one: where it lies. Raises OrderError."""
    detector, embedder = packs.load(rehearsal.detector), packs.load(rehearsal.embedder)
    chosen = selection.select(rehearsal.base, detector, embedder, on=datetime.date.today())
    question = preflight.Question(issued.threshold, order.GREATEST_FPIR, footfall=1000)
    strangers = cohort.none(chosen.templates.shape[1])
    looked = preflight.examine(rehearsal.base, chosen, detector, embedder, strangers, question)
    blob = envelope.sign(looked, preflights.KIND, rehearsal.base.keys.signer)
    template = rehearsal.folder / "order.toml"
    template.write_text(ordering.TEMPLATE, encoding="utf-8")
    said = ordering.details(template).model_copy(update={"adjudicators": adjudicators})
    figures = (embedder.folder / "report" / "report.json").read_bytes()
    drafted = ordering.draft(rehearsal.base, issued.deployment, said, blob, figures)
    path = rehearsal.folder / "order.json"
    path.write_bytes(ordering.sign(drafted, rehearsal.base.keys.signer))
    return path


def disclose(rehearsal: Rehearsal, deployment: str, decoys: Path | None = None) -> Path:
    """The reference pictures of a deployment, sealed to the control room: where they lie."""
    path = rehearsal.folder / f"{deployment}.dossier"
    dossier.make(rehearsal.base, deployment, CONTROL, path, packs.load(rehearsal.detector), decoys)
    return path


def run(
    rehearsal: Rehearsal, source: Path, show: Show, *, pace: str = "fast", settings: str = "", fps: float = 10.0
) -> Outcome:
    """Scan `source` (clip or folder) and collect what the control room opens. `settings` is more TOML for the unit."""
    files = BrokerFiles.of(rehearsal.folder / "broker")
    with running_broker(files, [CONTROL], host=HOST) as broker, listening(rehearsal, broker.address, show) as inbox:
        text = unit_toml(rehearsal, source, broker.address.port, pace, fps) + settings
        summary = _scan(rehearsal.folder / "unit", text)
        _wait_for(inbox, int(summary["alerts"]))
        health = next(iter(inbox.tail.healths.values()), None)
        return Outcome(
            tuple(inbox.opened), summary, sum(inbox.tail.inbox.refused.values()),
            health.resident_bytes if health else 0, health.stages.model_dump() if health else {},
        )  # fmt: skip


@dataclass
class Inbox:
    """What the control room has opened so far."""

    tail: Tail
    opened: list[Opened]


@contextmanager
def listening(rehearsal: Rehearsal, address: BrokerAddress, show: Show) -> Iterator[Inbox]:
    """A control room subscribed to the broker at `address`. Raises RehearsalError where it cannot be."""
    tail = Tail(rehearsal.control_keys, address, Until())
    inbox = Inbox(tail, [])

    def take(opened: Opened) -> None:
        if opened.alert is not None:
            inbox.opened.append(opened)
            show(opened)

    said: list[str] = []
    thread = threading.Thread(target=tail.run, args=(take, said.append), daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not tail.subscriber.connected:
        if time.monotonic() > deadline:
            raise RehearsalError(f"the control room could not subscribe: {said[-1] if said else 'no answer'}")
        time.sleep(0.02)
    try:
        yield inbox
    finally:
        tail.subscriber.stop()
        thread.join(10)


def _scan(folder: Path, text: str) -> dict[str, float]:
    config = folder / "unit.toml"
    config.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "appliance.cli", "run", "--config", str(config), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False, text=True)
    if done.returncode != 0:
        raise RehearsalError(f"the unit ended with exit code {done.returncode}; its message stands above")
    summary: dict[str, float] = json.loads(done.stdout)
    return summary


def _wait_for(inbox: Inbox, alerts: int) -> None:
    deadline = time.monotonic() + _ARRIVAL_SECONDS
    while len(inbox.opened) < alerts and time.monotonic() < deadline:
        time.sleep(0.02)
    if len(inbox.opened) != alerts:
        raise RehearsalError(f"the unit sealed {alerts} alerts, {len(inbox.opened)} arrived")


def unit_toml(rehearsal: Rehearsal, source: Path, port: int, pace: str, fps: float = 10.0) -> str:
    """The unit's configuration for a clip or folder and a broker on this machine."""
    return f"""\
[unit]
keys = "keys"
watchlist = "watchlist.blw"
state = "state"

[models]
detector = {json.dumps(rehearsal.detector)}
embedder = {json.dumps(rehearsal.embedder)}

[[camera]]
name = "street"
source = {json.dumps(str(source.resolve()))}
pace = "{pace}"
fps = {fps}

[broker]
host = "{HOST}"
port = {port}

"""
