"""`make console`: the control room's console on built-in data, until Ctrl-C.

Every part is the real one: a base signs an order and seals a watchlist and a dossier, a unit watches the street clip
again and again at a camera's pace, mosquitto carries what it seals, and the service keeps and shows it. Decoys come
too. The people in the clip do not exist.
"""

from __future__ import annotations

import argparse
import datetime
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console

from appliance.command_line import complain
from appliance.errors import BluelampError
from appliance.recognition import packs
from appliance.records import Image
from appliance.trust import keys
from appliance.trust.audit import Audit
from control.broker.broker import BrokerFiles, running_broker
from control.deployments import dossiers
from control.deployments.decoys import Rate
from control.ledger.ledger import Ledger
from control.listen import Listen
from control.people.people import People
from control.records import Role
from control.room import Room
from control.service.service import Service, ServiceSettings
from demo import rehearsal
from demo.rehearsal import Rehearsal, RehearsalError
from demo.run import ASSETS, DEPLOYMENT, SETTINGS
from provisioning.lists import selection

MEMBERS: tuple[tuple[str, Role], ...] = (("demo", "supervisor"), ("second", "adjudicator"), ("auditor", "auditor"))
_FPIR = 5e-4  # false-positive rate that the threshold is taken for: below the greatest an order may allow
_FIRST_SECONDS = 180.0  # within which --once wants to see an alert
_out = Console(soft_wrap=True, highlight=False)


@dataclass(frozen=True)
class Stage:
    """A prepared control room: its folders, and the password of its members."""

    prepared: Rehearsal
    password: str

    @property
    def store(self) -> Path:
        """The control room's store."""
        return self.prepared.folder / "store"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 0 at Ctrl-C, or once an alert is shown where only one was asked for."""
    options = _options(arguments)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        with tempfile.TemporaryDirectory(prefix="bluelamp-console-") as temporary:
            stage = prepare((options.keep or Path(temporary)).resolve(), options.adjudicators)
            _serve(stage, options, ended)
    except BluelampError as error:
        complain(str(error))
        return error.exit_code
    return 0


def prepare(folder: Path, adjudicators: int = 1) -> Stage:
    """Base, unit, control room, a signed order, a list, a dossier with decoys, and three members of staff."""
    _out.print(f"[b]1[/] the base makes keys, enrols synthetic portraits and signs an order: {folder}")
    prepared = rehearsal.prepare(folder)
    rehearsal.enrol(prepared, ASSETS / "watchlist.csv")
    issued = rehearsal.seal_list(prepared, DEPLOYMENT, fpir=_FPIR, hours=8)
    order = rehearsal.authorise(prepared, issued, adjudicators=adjudicators)
    dossier = rehearsal.disclose(prepared, DEPLOYMENT, _pairs(prepared, folder / "decoys"))
    stage = Stage(prepared, secrets.token_urlsafe(12))
    _out.print("[b]2[/] the control room takes in the order and the pictures, and its members get accounts")
    opened = keys.load(prepared.control_keys)
    taken = dossiers.verify(order, dossier, opened, stage.store)
    with closing(Ledger(stage.store)) as ledger:
        dossiers.take_in(ledger, taken, opened, stage.store, Audit(stage.store / "audit.log", opened.signer))
    with closing(People(stage.store)) as people:
        for name, role in MEMBERS:
            people.add(name, role, stage.password)
    return stage


@contextmanager
def unit_in_a_loop(prepared: Rehearsal, port: int, pace: str) -> Iterator[threading.Event]:
    """The unit watches the clip again and again; the event is set where it failed."""
    folder = prepared.folder / "unit"
    config = folder / "unit.toml"
    config.write_text(rehearsal.unit_toml(prepared, ASSETS / "street.mp4", port, pace) + SETTINGS, encoding="utf-8")
    command = [sys.executable, "-m", "appliance.cli", "run", "--config", str(config)]
    ended, failed, running = threading.Event(), threading.Event(), list[subprocess.Popen[bytes]]()

    def watch() -> None:
        while not ended.is_set():
            with (folder / "unit.log").open("ab") as log:
                running[:] = [subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)]
            if running[0].wait() != 0 and not ended.is_set():
                failed.set()
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield failed
    finally:
        ended.set()
        for process in running:
            process.terminate()
        thread.join(30)


@contextmanager
def serving(settings: ServiceSettings) -> Iterator[tuple[Service, Room]]:
    """The service in a thread of its own, once it answers. Raises what ended it."""
    service = Service(settings, lambda line: _out.print(f"[dim]{line}[/]"))
    rooms, failures, changed = list[Room](), list[BluelampError](), threading.Event()

    def ready(room: Room) -> None:
        rooms.append(room)
        changed.set()

    def run() -> None:
        try:
            service.run(ready)
        except BluelampError as error:
            failures.append(error)
        changed.set()

    thread = threading.Thread(target=run)
    thread.start()
    changed.wait()
    try:
        if rooms:
            yield service, rooms[0]
    finally:
        service.stop()
        thread.join(30)
    if failures:
        raise failures[0]


def _serve(stage: Stage, options: argparse.Namespace, ended: threading.Event) -> None:
    prepared = stage.prepared
    files = BrokerFiles.of(prepared.folder / "broker")
    with running_broker(files, [rehearsal.CONTROL], host=rehearsal.HOST) as broker:
        settings = ServiceSettings(
            keys=prepared.control_keys, broker=broker.address, store=stage.store,
            listen=Listen(host="127.0.0.1", port=options.port), decoys=Rate(options.decoys_per_hour),
        )  # fmt: skip
        _out.print("[b]3[/] broker, service and unit start; the street begins, and begins again when it ends")
        with (
            serving(settings) as (service, room),
            unit_in_a_loop(prepared, broker.address.port, options.pace) as failed,
        ):
            names = ", ".join(f"{name} ({role})" for name, role in MEMBERS)
            for word, value in (("open", service.address), ("sign in", names), ("password", stage.password)):
                _out.print(f"  {word:<10} [b]{value}[/]")
            _out.print("Ctrl-C ends it and forgets everything.")
            _wait(service, room, failed, ended, options.once)


def _wait(service: Service, room: Room, failed: threading.Event, ended: threading.Event, once: bool) -> None:
    deadline = time.monotonic() + _FIRST_SECONDS
    while not ended.wait(0.2):
        if failed.is_set():
            raise RehearsalError("the unit failed; its messages are in unit/unit.log (keep them with --keep FOLDER)")
        if once and _has_alert(room):
            with urllib.request.urlopen(f"{service.address}/sign-in", timeout=10) as answer:
                _out.print(f"an alert with both pictures is here; the console answers: {answer.status}")
            return
        if once and time.monotonic() > deadline:
            raise RehearsalError(f"no alert came in {_FIRST_SECONDS:g} s")


def _has_alert(room: Room) -> bool:
    cases = [case for case in room.ledger.cases() if not case.decoy and case.has_probe]
    return any(room.ledger.reference_of(case.alert_id) for case in cases)


def _pairs(prepared: Rehearsal, folder: Path) -> Path:
    """Decoy pairs of the demo's people: each one's portrait beside the one that resembles it most."""
    folder.mkdir(parents=True)
    portraits = {p.name[:8]: p for p in sorted((ASSETS / "portraits").glob("*-1.jpg"))}
    chosen = selection.select(
        prepared.base, packs.load(prepared.detector), packs.load(prepared.embedder), on=datetime.date.today()
    )
    names = np.array([row.reference_identifier for row in chosen.rows])
    scores = chosen.templates @ chosen.templates.T
    for name, reference in portraits.items():
        others = np.where(names == name, -2.0, scores[list(names).index(name)])
        probe = _from_afar(portraits[str(names[int(others.argmax())])])
        shutil.copy(reference, folder / f"{name}-reference.jpg")
        cv2.imwrite(str(folder / f"{name}-probe.jpg"), probe, [cv2.IMWRITE_JPEG_QUALITY, 75])
    return folder


def _from_afar(portrait: Path) -> Image:
    """A portrait as a camera on the street would have it: small and soft, so that it is not known for a portrait."""
    small = cv2.resize(np.asarray(cv2.imread(str(portrait)), np.uint8), None, fx=0.45, fy=0.45)
    return np.asarray(cv2.GaussianBlur(small, (0, 0), 0.9), np.uint8)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo.console", description=__doc__)
    parser.add_argument("--port", type=int, default=8443, help="of the console, on loopback; 0 takes a free one")
    parser.add_argument("--adjudicators", type=int, choices=(1, 2), default=1, help="who must agree before anything")
    parser.add_argument("--decoys-per-hour", type=float, default=20.0, help="pairs that are not the same human being")
    parser.add_argument("--pace", choices=("fast", "real"), default="real", help="real (default): as a camera would")
    parser.add_argument("--keep", type=Path, help="keep keys, store and logs in this folder")
    parser.add_argument("--once", action="store_true", help="end when the first alert is there with both pictures")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
