"""The aiming view: for the unit's own screen only, without faces, with nothing stored or compared."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from appliance.capture.light import Scene
from appliance.cli import app
from appliance.config import UnitConfig
from appliance.confine import sandbox
from appliance.errors import CaptureError, ConfigError
from appliance.records import CameraHealth, Health, StageTimes
from appliance.sockets import health as figures
from appliance.view import cli as view_cli
from appliance.view import server as view
from appliance.view.aim import Look, Recent, Wanted, verdict
from appliance.view.blur import COLOUR
from appliance.view.feed import Feed, Sight, ViewError
from appliance.view.server import View
from demo.run import ASSETS

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def config(folder: Path, source: Path = ASSETS / "street.mp4", smallest: int = 36) -> UnitConfig:
    """A unit that has cameras and nothing else: no keys, no order, no watchlist."""
    return UnitConfig.model_validate({
        "unit": {"keys": folder / "keys", "watchlist": folder / "list", "state": folder / "state"},
        "camera": [{"name": "gate", "source": str(source)}], "detect": {"smallest_face": smallest},
    })  # fmt: skip


@dataclass
class Page:
    """A view that is served."""

    view: View
    feed: Feed
    ended: list[str]
    thread: threading.Thread
    reason: list[str | None]

    @property
    def root(self) -> str:
        return self.view.address.split("/?")[0]


@contextmanager
def serving(folder: Path) -> Iterator[Page]:
    """The demo's street, looked at."""
    feed = Feed(config(folder), say=lambda line: None)
    served = View(feed, view.listen("127.0.0.1", 0), time.monotonic() + 60)
    ended: list[str] = []
    reason: list[str | None] = [None]
    thread = threading.Thread(target=lambda: ended.append(served.serve(lambda: reason[0])))
    feed.start()
    thread.start()
    yield Page(served, feed, ended, thread, reason)
    reason[0] = reason[0] or "done"
    thread.join(10)
    feed.stop()


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """A view that nobody has opened yet."""
    with serving(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, str]]:
    """The one viewer of a view, and the page's root."""
    with serving(tmp_path_factory.mktemp("view")) as made, httpx.Client(follow_redirects=True) as client:
        assert client.get(made.view.address).status_code == 200
        yield client, made.root


def sights(client: httpx.Client, root: str, after: int = 0, visit: int = 1) -> dict[str, Any]:
    """The next picture and what is said about it."""
    answer = client.get(f"{root}/sight", params={"camera": "gate", "after": after, "visit": visit})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def with_faces(client: httpx.Client, root: str) -> dict[str, Any]:
    """The first picture in which faces were found."""
    shown = sights(client, root)
    deadline = time.monotonic() + 20
    while not shown.get("spots"):
        assert time.monotonic() < deadline
        shown = sights(client, root, shown.get("number", 0))
    return shown


@pytest.mark.parametrize("address", ["0.0.0.0", "192.168.1.7", "::", "2001:db8::1"])
def test_any_other_address_than_loopback_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="on the unit's own screen only"):
        view.listen(address, 0)


def test_a_name_instead_of_an_address_is_refused() -> None:
    """A name may come to mean another machine."""
    with pytest.raises(ConfigError, match="not an IP address"):
        view.listen("localhost", 0)


def test_the_address_works_once_and_for_one_viewer(page: Page) -> None:
    with httpx.Client(follow_redirects=True) as first, httpx.Client(follow_redirects=True) as second:
        address = page.view.address
        assert first.get(f"{page.root}/").status_code == 403
        assert first.get(f"{page.root}/sight?visit=1&after=0").status_code == 403
        assert first.get(f"{page.root}/?token=guessed").status_code == 403
        opened = first.get(address)
        assert opened.status_code == 200
        assert "token" not in str(opened.url), "the token does not stay in the address bar"
        refused = second.get(address)
        assert refused.status_code == 403
        assert "somebody is looking already" in refused.text
        assert second.get(f"{page.root}/").status_code == 403
        assert first.get(f"{page.root}/").status_code == 200


def test_every_answer_forbids_storing_embedding_and_loading(opened: tuple[httpx.Client, str]) -> None:
    client, root = opened
    for path in ("/", "/view.js", "/view.css", "/sight?visit=1&after=0", "/nothing", "/?token=x"):
        headers = client.get(root + path).headers
        assert headers["cache-control"] == "no-store", path
        assert headers["content-security-policy"].startswith("default-src 'none'"), path
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers


FOREIGN: tuple[dict[str, str], ...] = (
    {"host": "evil.example"}, {"host": "evil.example:80"}, {"host": "127.0.0.1"}, {"host": ""},
    {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"},
)  # fmt: skip


def test_a_page_from_elsewhere_gets_nothing(opened: tuple[httpx.Client, str]) -> None:
    """DNS rebinding brings a foreign name, another site's request is marked by the browser; even with the cookie."""
    client, root = opened
    assert client.get(f"{root}/sight?visit=1&after=0").status_code == 200
    for headers in FOREIGN:
        assert client.get(f"{root}/sight?visit=1&after=0", headers=headers).status_code == 403, headers


def test_only_looking_is_possible(opened: tuple[httpx.Client, str]) -> None:
    client, root = opened
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert client.request(method, f"{root}/sight").status_code == 403
    for path in ("/..%2fview.py", "/view_page/view.js", "/%2e%2e/records.py", "/view.html"):
        assert client.get(root + path).status_code in (403, 404)


def test_somebody_on_the_network_is_refused_even_if_asked_through_a_proxy(page: Page) -> None:
    """Belt and braces: whoever is not on this machine gets nothing, whatever name he brings."""
    sent: list[dict[str, Any]] = []
    host = page.root.removeprefix("http://").encode()
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "client": ("192.0.2.7", 1),
             "headers": [(b"host", host)]}  # fmt: skip

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(page.view.app(scope, None, send))
    assert sent[0]["status"] == 403


def test_the_newest_tab_is_the_one_that_shows(page: Page) -> None:
    with httpx.Client(follow_redirects=True) as client:
        client.get(page.view.address)
        sights(client, page.root, visit=5)
        sights(client, page.root, visit=7)
        assert client.get(f"{page.root}/sight?visit=5&after=0").status_code == 409
        assert client.get(f"{page.root}/sight?visit=x&after=0").status_code == 400


def test_the_picture_is_small_its_faces_are_covered_and_words_come_with_it(opened: tuple[httpx.Client, str]) -> None:
    client, root = opened
    shown = with_faces(client, root)
    jpeg = np.frombuffer(base64.b64decode(shown["picture"]), np.uint8)
    picture = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
    assert picture.shape == (270, 480, 3)
    assert shown["size"] == [1280, 720]
    for spot in shown["spots"]:
        x, y = spot["x"] + spot["width"] / 2, spot["y"] + spot["height"] / 2
        middle = picture[min(int(y * 270), 269), min(int(x * 480), 479)].astype(int)
        assert np.abs(middle - COLOUR).max() < 12, "the middle of a face is patch, but for what JPEG does"
    assert shown["advice"]
    assert shown["wanted"]["width"] == 36
    assert 0 < shown["left"] <= 60


def test_it_ends_by_itself_when_its_time_is_over(tmp_path: Path) -> None:
    feed = Feed(config(tmp_path), say=lambda line: None)
    short = View(feed, view.listen("127.0.0.1", 0), time.monotonic() + 0.2)
    assert short.serve(lambda: None) == "the time is over"


def test_it_ends_when_there_is_a_reason(page: Page) -> None:
    page.reason[0] = "this unit scans for D-1"
    page.thread.join(10)
    assert page.ended == ["this unit scans for D-1"]


def health(state: str = "armed") -> Health:
    """What vision tells of itself."""
    camera = CameraHealth(name="gate", state="running", frames=1, dropped=0, fps=15.0)
    return Health.model_validate({
        "unit": "van-1", "deployment": "D-1", "time": time.time(), "uptime": 1.0, "state": state,
        "cameras": (camera,), "faces": 0, "tracks": 0, "probes": 0, "alerts": 0, "queued": 0, "stages": StageTimes(),
        "resident_bytes": 1, "watchlist_entries": 1, "watchlist_recall": 1.0,
    })  # fmt: skip


def toml(folder: Path) -> Path:
    """A configuration file of a unit with one clip."""
    path = folder / "unit.toml"
    clip = json.dumps(str((ASSETS / "street.mp4").resolve()))
    path.write_text(
        f'[unit]\nkeys = "keys"\nwatchlist = "list"\nstate = "state"\n[[camera]]\nname = "gate"\nsource = {clip}\n'
    )
    return path


def test_it_is_refused_while_the_unit_scans(tmp_path: Path) -> None:
    """The real command against the real socket that vision shows its figures on."""
    (tmp_path / "state" / "run").mkdir(parents=True)
    (tmp_path / "state" / "run").chmod(0o700)
    running = figures.serve(tmp_path / "state" / "run" / "vision.sock", 0o600)
    running.show(health())
    running.start()
    # Were it not refused, the address would be: this very process is never confined.
    command = ["view", "--address", "192.0.2.1", "--config", str(toml(tmp_path))]
    done = CliRunner().invoke(app, command)
    running.stop()
    assert isinstance(done.exception, ViewError)
    assert str(done.exception).startswith("this unit scans for D-1; aim before arming")


def test_the_command_shows_pictures_from_a_process_that_can_write_and_call_nothing(tmp_path: Path) -> None:
    """The kernel holds it to that: landlock for files, seccomp for sockets. Ctrl-C ends it without a traceback."""
    lacking = [name for name, why in sandbox.available().items() if why and name in ("landlock", "seccomp")]
    if lacking:
        pytest.skip(f"this kernel offers no {', '.join(lacking)}")
    command = [sys.executable, "-m", "appliance.cli", "view", "--config", str(toml(tmp_path)), "--minutes", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = []
        while not (said and "http" in said[-1]):
            said.append(process.stderr.readline())
        address = said[-1].split()[-1]
        with httpx.Client(follow_redirects=True) as client:
            client.get(address)
            assert sights(client, address.split("/?")[0])["picture"]
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 0
    assert "ended by the field team" in rest
    assert "Traceback" not in rest
    assert "landlock: writes no file; seccomp: no network" in said[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["unit.toml"]


def written_while(act: threading.Event, names: list[str]) -> None:
    """From now on, while `act` is set, note every file that this process opens to write, and where it connects to."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not act.is_set():
            return
        if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            names.append(str(arguments[0]))
        if event in ("socket.connect", "os.mkdir", "os.rename"):
            names.append(f"{event} {arguments[-1] if event == 'socket.connect' else arguments[0]}")

    sys.addaudithook(hook)


def test_nothing_is_written_and_nobody_is_called(tmp_path: Path) -> None:
    """No file, no folder, no connection while pictures are made; the unit's folder stays as empty as it was."""
    watched, names = threading.Event(), list[str]()
    written_while(watched, names)
    feed = Feed(config(tmp_path), say=lambda line: None)
    watched.set()
    feed.start()
    number = 0
    for _ in range(3):
        sight = feed.wait("gate", number, 20)
        assert sight is not None
        number = sight.number
    feed.stop()
    watched.clear()
    assert names == []
    assert list(tmp_path.iterdir()) == []
    assert feed.wait("gate", 0, 0) is None, "the last picture is forgotten too"


def stills(folder: Path, count: int = 3) -> Path:
    """A folder of pictures as a camera."""
    folder.mkdir()
    capture = cv2.VideoCapture(str(ASSETS / "street.mp4"))
    for number in range(count):
        cv2.imwrite(str(folder / f"{number}.jpg"), capture.read()[1])
    return folder


def test_a_recording_starts_over(tmp_path: Path) -> None:
    feed = Feed(config(tmp_path, stills(tmp_path / "stills")), say=lambda line: None)
    feed.start()
    number = 0
    while number < 5:
        sight = feed.wait("gate", number, 20)
        assert sight is not None
        number = sight.number
    feed.stop()


def test_a_clip_that_breaks_ends_the_view_with_its_reason(tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    whole = (ASSETS / "street.mp4").read_bytes()
    broken.write_bytes(whole[: len(whole) // 40])
    with pytest.raises(CaptureError):
        feed = Feed(config(tmp_path, broken), say=lambda line: None)
        feed.start()
        while not feed.ended:
            feed.wait("gate", -1, 0.05)
        feed.stop()
        assert feed.failed is not None
        raise feed.failed


def test_a_camera_that_is_not_configured_is_told(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"no camera rear; in the config there are: gate"):
        Feed(config(tmp_path), ["rear"])


def test_in_a_terminal_the_same_is_said_in_words() -> None:
    """Where there is no browser: the words, the figures, and how large faces are drawn as a bar."""
    wanted = Wanted(width=60.0, interocular=14.0, yaw=1.0, quality=0.15)
    look, found = Look(30.0, 15.0, 100.0, 0.0, ("small",)), Scene(1280, 720, 120.0, 50.0, 0.0, 1.2)
    recent = Recent()
    recent.add({1: look}, 0.0)
    share = recent.share(2.0)
    sight = Sight("gate", 1, b"", (1280, 720), (), share, found, verdict(share, found, wanted))
    console = Console(width=110, record=True, file=io.StringIO())
    console.print(view_cli.summary(sight, wanted))
    text = console.export_text()
    assert "▲ move closer or zoom: faces are 30 px wide, 60 are wanted" in text
    assert "█" * 20 + "░" * 20 + "  30 of 60 px" in text
    assert "in focus (edges blurred by 1.2 px)" in text


def test_the_page_shows_the_picture_and_its_words(page: Page) -> None:
    """In Debian's chromium: picture, drawing and words, no error in the console; a second browser is refused."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if not CHROMIUM.exists():
        pytest.skip("needs Debian's chromium")
    errors: list[str] = []
    address = page.view.address
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        shown = browser.new_page(viewport={"width": 1280, "height": 800})
        shown.on("pageerror", lambda error: errors.append(str(error)))
        shown.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        shown.goto(address)
        shown.wait_for_selector("#picture[src^='data:image/jpeg']", timeout=20_000)
        shown.wait_for_selector("#marks rect", timeout=20_000)
        assert shown.url == page.root + "/"
        assert shown.text_content("#first")
        assert "Nothing is compared, stored or sent" in shown.text_content("footer")
        assert "wanted 36 px" in shown.text_content("#drawing")
        assert "ends in" in shown.text_content("#left")
        shown.keyboard.press("d")
        assert shown.get_attribute("#dim", "aria-pressed") == "true"
        other = browser.new_context().new_page()
        assert other.goto(address).status == 403
        browser.close()
    assert errors == []


def test_a_sight_keeps_no_picture_but_the_covered_one() -> None:
    """The frame is zeroed once the small picture is made, and no record of it has a place for one."""
    assert [name for name, kind in Sight.__annotations__.items() if "Image" in str(kind) or "Frame" in str(kind)] == []
