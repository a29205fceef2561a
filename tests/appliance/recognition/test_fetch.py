"""Fetching a pinned pack: resumable, and refused when one byte differs. Upstream itself is not reached here."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from appliance.errors import PackError
from appliance.recognition import fetch, packs
from appliance.recognition.fetch import Pin


@dataclass
class Server:
    """What the local server gives, and what it was asked."""

    blob: bytes
    stop_after: int | None = None
    can_resume: bool = True
    ranges: list[str] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def server() -> Iterator[Server]:
    pack = packs.load("open-embedder")
    state = Server((pack.folder / pack.manifest.files[0].path).read_bytes())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            state.ranges.append(asked)
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and state.can_resume else 0
            body = state.blob[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body if state.stop_after is None else body[: state.stop_after])

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    http = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{http.server_port}/model.tflite"
    yield state
    http.shutdown()
    http.server_close()


def pin(server: Server) -> Pin:
    """A pin for what the server has, with the built-in pack's own manifest."""
    pack = packs.load("open-embedder")
    manifest = (pack.folder / "pack.toml").read_text().split("[golden]")[0]
    digest = hashlib.sha256((pack.folder / pack.manifest.files[0].path).read_bytes()).hexdigest()
    return Pin("test", server.url, len(server.blob), pack.manifest.files[0].path, digest, manifest)


def test_a_pack_is_fetched_verified_and_usable(server: Server, tmp_path: Path) -> None:
    seen: list[int] = []
    pack = fetch.fetch(pin(server), tmp_path / "p", lambda done, size: seen.append(done))
    packs.verify(pack)
    assert seen[-1] == len(server.blob)
    again: list[int] = []
    fetch.fetch(pin(server), tmp_path / "p", lambda done, size: again.append(done))
    assert again == [], "what is there and right is not fetched again"


def test_a_broken_download_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    wanted = pin(server)
    server.stop_after = 1_000_000
    with pytest.raises(PackError, match="run the same command again"):
        fetch.fetch(wanted, tmp_path / "p", lambda done, size: None)
    server.stop_after = None
    packs.verify(fetch.fetch(wanted, tmp_path / "p", lambda done, size: None))
    assert server.ranges == ["", "bytes=1000000-"]


def test_a_server_that_cannot_resume_is_read_from_the_start(server: Server, tmp_path: Path) -> None:
    wanted = pin(server)
    server.stop_after = 1_000_000
    with pytest.raises(PackError):
        fetch.fetch(wanted, tmp_path / "p", lambda done, size: None)
    server.stop_after, server.can_resume = None, False
    packs.verify(fetch.fetch(wanted, tmp_path / "p", lambda done, size: None))


def test_other_bytes_than_the_pinned_ones_are_refused_and_removed(server: Server, tmp_path: Path) -> None:
    wanted = pin(server)
    server.blob = server.blob[:-1] + bytes([server.blob[-1] ^ 1])
    with pytest.raises(PackError, match="not the pinned file"):
        fetch.fetch(wanted, tmp_path / "p", lambda done, size: None)
    assert list((tmp_path / "p").iterdir()) == []


def test_more_bytes_than_pinned_are_refused_while_they_come(server: Server, tmp_path: Path) -> None:
    wanted = pin(server)
    server.blob += bytes(1_000_000)
    with pytest.raises(PackError, match="sends more than the pinned"):
        fetch.fetch(wanted, tmp_path / "p", lambda done, size: None)


def test_no_server_is_a_clear_error(server: Server, tmp_path: Path) -> None:
    with pytest.raises(PackError, match="check the network"):
        fetch.fetch(pin(server), tmp_path / "p", lambda done, size: None, url="http://127.0.0.1:9/none")


def test_the_shipped_pins_are_well_formed() -> None:
    pins = fetch.pins()
    assert {"yunet", "sface"} <= set(pins)
    for one in pins.values():
        assert one.url.startswith("https://")
        assert len(one.sha256) == 64
        assert one.size > 100_000
