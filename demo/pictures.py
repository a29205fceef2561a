"""`python -m demo.pictures`: the README's pictures of the console, taken in chromium from people who do not exist.

The room is fed by hand, so that every picture shows what its caption says; `python -m demo.console` is the same console
at work. Needs chromium and the dev extra.
"""

from __future__ import annotations

import base64
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from playwright.sync_api import Browser, Page, sync_playwright
from securesystemslib.signer import CryptoSigner

from appliance.formats.order import Assessments, Order, Place, UnitList
from appliance.identifiers import uuid7
from appliance.limits import LIMITS
from appliance.records import Alert, CameraHealth, CourierState, Header, Health, Models, StageTimes
from control.ledger.ledger import Ledger
from control.listen import Listen
from control.people.people import People
from control.receive.fleet import Fleet
from control.receive.inbox import Opened
from control.records import Member, ReferencePicture, Role
from control.room import Room
from control.service.web_server import Site
from control.web.app import make_app
from demo.arrays import Bytes
from provisioning.truth import Pass, read_truth

ROOT = Path(__file__).parent.parent
ASSETS = ROOT / "demo" / "assets"
PASSWORD = "lamp shade paving stone"
STAFF: dict[str, Role] = {
    "a.okafor": "adjudicator", "j.hughes": "adjudicator", "m.patel": "supervisor", "audit": "auditor",
}  # fmt: skip
ZEROS = "0" * 64
DEPLOYMENT = "NORTHGATE-14"
GROUND = (
    (52.00110, -1.00180), (52.00142, -1.00090), (52.00131, -1.00012), (52.00062, -0.99986), (52.00038, -1.00072),
    (52.00071, -1.00174),
)  # fmt: skip
_WIDTH = 1000  # pixels of a picture
_MOST_BYTES = 80_000


@dataclass
class Scene:
    """A room on loopback, and hands that feed it."""

    room: Room
    site: Site
    browser: Browser
    sequence: int = 0
    signed_in: dict[str, object] = field(default_factory=dict)

    def alert(self, reference: str, probe: Bytes, age: float, **changes: object) -> str:
        """An alert that the camera saw `age` seconds ago."""
        now, self.sequence = time.time(), self.sequence + 1
        jpeg = cv2.imencode(".jpg", probe, [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes()
        fields: dict[str, object] = {
            "alert_id": uuid7(now), "unit": "van-07", "deployment": DEPLOYMENT, "camera": "west", "captured": now - age,
            "observed": now - age, "frame": 1, "decided": now - age + 0.02, "reference_identifier": reference,
            "category": CATEGORIES[reference], "score": 0.712, "threshold": 0.604, "quality": 0.66,
            "interocular": 47.0, "frames": 14, "track_seconds": 1.9, "models": Models(detector=ZEROS, embedder=ZEROS),
            "watchlist": ZEROS, "chain": "c", "sequence": self.sequence, "previous": ZEROS,
            "chip": base64.b64encode(jpeg).decode(), **changes,
        }  # fmt: skip
        alert = Alert.model_validate(fields)
        header = Header(kind="alert", id=alert.alert_id, unit=alert.unit, deployment=DEPLOYMENT, created=now,
                        expires=now + 600, sender="unit", recipient="room")  # fmt: skip
        opened = Opened(header, alert, b"", f"{self.sequence:064x}", None, (), alert.observed + 0.13)
        self.room.ledger.store(opened, alert)
        return alert.alert_id

    def judge(self, alert: str, name: str, verdict: str) -> None:
        """A member looked and answered."""
        member = Member(name=name, role=STAFF[name])
        self.room.ledger.first_seen(alert, member)
        self.room.ledger.judge(alert, member, verdict)  # type: ignore[arg-type]

    @contextmanager
    def page(self, name: str, path: str, width: int, height: int, theme: str = "light") -> Iterator[Page]:
        """A signed-in member's page."""
        context = self.browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if theme == "dark" else "light",
            reduced_motion="reduce", device_scale_factor=max(1.0, _WIDTH / width) if width >= 700 else 1.6,
        )  # fmt: skip
        page = context.new_page()
        page.goto(f"{self.site.address}/sign-in")
        page.fill("[name=name]", name)
        page.fill("[name=password]", PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_selector(".rail")
        page.goto(self.site.address + path)
        page.wait_for_selector('#link[data-state="live"]')
        page.keyboard.press("Shift")  # the first key allows sound
        yield page
        context.close()


def main(out: Annotated[Path, typer.Argument(help="Folder for the pictures.")] = ROOT / "docs" / "pictures") -> None:
    """Take every picture anew."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        scene = _scene(stack, Path(folder))
        faces = _faces()
        _pair(scene, faces, out / "console-pair.webp")
        _rest(scene, faces, out)
    for picture in sorted(out.glob("*.webp")):
        typer.echo(f"{picture.relative_to(ROOT) if out.is_relative_to(ROOT) else picture}: {picture.stat().st_size} B")


def _pair(scene: Scene, faces: dict[str, Bytes], file: Path) -> None:
    """A pair before anybody has answered, on the van's tablet."""
    done = scene.alert("REF-0041", faces["pass-24"], 312, camera="east")
    scene.judge(done, "a.okafor", "not-same")
    sent = scene.alert("REF-0009", faces["pass-04"], 205)
    scene.judge(sent, "a.okafor", "same")
    scene.alert("REF-0062", faces["pass-32"], 96, camera="east", quality=0.52, interocular=29.0)
    scene.alert("REF-0062", faces["pass-32"], 88, interocular=33.0)
    alert = scene.alert("REF-0028", faces["pass-13"], 24, quality=0.55, interocular=29.0)
    with scene.page("j.hughes", "/alerts", 1024, 768) as page:
        page.wait_for_selector(f'.alert[data-alert="{alert}"] .pair[data-shown]')
        _take(page, file)


def _rest(scene: Scene, faces: dict[str, Bytes], out: Path) -> None:
    with scene.page("m.patel", "/alerts", 1440, 900, "dark") as page:
        page.click('.row[data-state="engage"]')
        page.wait_for_selector(".followed:visible")
        page.wait_for_selector(".pair[data-shown]")
        page.check(".followed [value=confirmed]", force=True)
        page.evaluate("document.activeElement.blur()")
        _take(page, out / "console-engage.webp")
    with scene.page("a.okafor", "/fleet", 1280, 860) as page:
        _take(page, out / "console-fleet.webp")
    phones = []
    for theme in ("light", "dark"):
        with scene.page("j.hughes", "/alerts", 390, 760, theme) as page:
            page.wait_for_selector(".pair[data-shown]")
            if theme == "dark":
                page.context.set_offline(True)
                page.wait_for_selector("#lost:visible")
            phones.append(page.screenshot())
    _together(phones, out / "console-phone.webp")
    with scene.page("audit", "/log", 1180, 640) as page:
        _take(page, out / "console-log.webp")


@contextmanager
def _served(room: Room) -> Iterator[Site]:
    site = Site(Listen(host="127.0.0.1", port=0), None)
    thread = threading.Thread(target=site.run, args=[make_app(room, site.settings)])
    thread.start()
    try:
        if not site.wait_started():
            raise SystemExit("the console does not answer; is the machine overloaded?")
        yield site
    finally:
        site.stop()
        thread.join()
        site.close()


def _scene(stack: ExitStack, store: Path) -> Scene:
    program = shutil.which("chromium")
    if program is None:
        raise SystemExit("chromium is not here; install it: apt-get install chromium")
    ledger = stack.enter_context(closing(Ledger(store)))
    people = stack.enter_context(closing(People(store)))
    room = Room("control-1", ledger, people, _fleet(), store, CryptoSigner.generate_ed25519())
    for name, role in STAFF.items():
        people.add(name, role, PASSWORD)
    ledger.add_deployment(_order(), "5f1c0a7e" * 8)
    ledger.put_references(DEPLOYMENT, (_reference(name) for name in CATEGORIES))
    site = stack.enter_context(_served(room))
    driver = stack.enter_context(sync_playwright())
    browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
    stack.callback(browser.close)
    return Scene(room, site, browser)


CATEGORIES = {
    "REF-0009": "wanted-on-warrant", "REF-0028": "missing-at-risk", "REF-0041": "court-order-breach",
    "REF-0062": "wanted-on-warrant",
}  # fmt: skip


def _reference(name: str) -> ReferencePicture:
    picture = base64.b64encode((ASSETS / "portraits" / f"{name}-1.jpg").read_bytes()).decode()
    dates = {"REF-0009": "2025-03-01", "REF-0028": "2025-06-24", "REF-0041": "2025-08-09", "REF-0062": "2019-11-09"}
    return ReferencePicture(reference_identifier=name, category=CATEGORIES[name], image_date=dates[name], quality=84,
                            picture=picture)  # fmt: skip


def _order() -> Order:
    now = time.time()
    return Order(
        deployment=DEPLOYMENT, purpose="To find people wanted on warrant and missing people at risk (a rehearsal)",
        authorised_by="Superintendent (fictional)", place=Place(name="Northgate, market end", polygon=GROUND),
        not_before=now - 5400, not_after=now + 2 * 3600 + 1500, drafted=now - 80_000,
        lists=(UnitList(unit="van-07", watchlist=ZEROS, content=ZEROS, version=1, entries=1204),),
        models=Models(detector=ZEROS, embedder=ZEROS), preflight=ZEROS, performance=ZEROS, threshold=0.604,
        greatest_fpir=0.001, projected_fpir=0.00012, footfall=9000,
        assessments=Assessments(impact_assessment="DPIA-31", policy_document="APD-7", equality_assessment="EIA-12"),
    )  # fmt: skip


def _fleet() -> Fleet:
    fleet, now = Fleet(), time.time()
    fleet.note_broker(True, "subscribed")
    cameras = (
        CameraHealth(name="east", state="running", frames=81_020, dropped=40, fps=14.8),
        CameraHealth(name="west", state="running", frames=80_911, dropped=52, fps=14.9),
    )
    fleet.note_state(CourierState(unit="van-07", state="online", time=now, software="0.1.0", vision=True))
    fleet.note_health(
        Health(
            unit="van-07", deployment=DEPLOYMENT, time=now, uptime=5400, state="armed", cameras=cameras, faces=4127,
            tracks=3984, probes=3720, alerts=5, queued=0, stages=StageTimes(), resident_bytes=300_000_000,
            temperature=61.0, watchlist_entries=1204, watchlist_recall=1.0, blue_passes=24, blue_found=22,
            false_alerts=1, beacon="lit", sandbox=(
                "memory locked, never swapped", "landlock: writes no file",
                "seccomp: no network, no other process, no tracing",
            ),
        )
    )  # fmt: skip
    return fleet


def _faces() -> dict[str, Bytes]:
    """Each pass's face where it is widest, as a unit would cut it."""
    truth = read_truth(ASSETS / "truth.json")
    widest = {p.pass_id: max(p.boxes, key=lambda box: box.width) for p in truth.passes if isinstance(p, Pass)}
    clip, faces = cv2.VideoCapture(str(ASSETS / "street.mp4")), dict[str, Bytes]()
    for number in range(max(box.frame for box in widest.values()) + 1):
        _, frame = clip.read()
        for name, box in widest.items():
            if box.frame == number:
                side = 1.5 * box.height
                x, y = box.x + box.width / 2 - side / 2, box.y + box.height / 2 - 0.52 * side
                left, top = max(0, round(x)), max(0, round(y))
                cut = frame[top : round(y + side), left : round(x + side)]
                scale = min(1.0, LIMITS.chip_side / max(cut.shape[:2]))
                smaller = cv2.resize(cut, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
                faces[name] = np.asarray(smaller, np.uint8)
    return faces


def _take(page: Page, file: Path) -> None:
    page.wait_for_timeout(400)  # toasts and the tick of the clock settle
    _write(page.screenshot(), file)


def _write(shot: bytes, file: Path) -> None:
    picture = _decoded(shot)
    if picture.shape[1] > _WIDTH:
        scale = _WIDTH / picture.shape[1]
        picture = np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    for quality in range(92, 40, -4):
        blob = cv2.imencode(".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, quality])[1].tobytes()
        if len(blob) <= _MOST_BYTES:
            break
    file.write_bytes(blob)


def _decoded(shot: bytes) -> Bytes:
    return np.asarray(cv2.imdecode(np.frombuffer(shot, np.uint8), cv2.IMREAD_COLOR), np.uint8)


def _together(shots: list[bytes], file: Path) -> None:
    pictures = [_decoded(shot) for shot in shots]
    gap = np.full((pictures[0].shape[0], 40, 3), 255, np.uint8)
    joined = np.hstack([pictures[0], gap, pictures[1]])
    _write(cv2.imencode(".png", joined)[1].tobytes(), file)


if __name__ == "__main__":
    typer.run(main)
