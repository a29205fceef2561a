"""A console for tests: a ledger with real sealed alerts, members with passwords, and a browser's manners."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from control.listen import Listen
from control.people.people import Cost, People
from control.receive.fleet import Fleet
from control.records import Role
from control.room import Room
from control.service.web_server import Site
from control.web.app import make_app
from control.web.settings import WebSettings
from tests.support import controlroom
from tests.support.machines import CONTROL, DEPLOYMENT, Machines
from tests.support.paths import ROOT

PORTRAITS = ROOT / "demo" / "assets" / "portraits"
STAFF: dict[str, Role] = {
    "ann": "adjudicator", "bob": "adjudicator", "sue": "supervisor", "vic": "viewer", "eye": "auditor",
}  # fmt: skip
PASSWORD = "four random quiet words"
HOST = "console.test"


@dataclass
class Console:
    """A room and what surrounds it. Passwords cost little here; test_people checks what they cost elsewhere."""

    store: Path
    machines: Machines
    staffed: bool = True
    ttl: float = 600.0
    desk: controlroom.Desk = field(init=False)
    room: Room = field(init=False)

    def __post_init__(self) -> None:
        self.desk = controlroom.Desk(self.store, self.machines, now=time.time(), ttl=self.ttl)
        people, fleet = People(self.store, cost=Cost(64, 1, 1)), Fleet()
        fleet.note_broker(True, "subscribed")
        signer = self.machines.keys(CONTROL).signer
        self.room = Room(CONTROL, self.desk.ledger, people, fleet, self.store, signer, self.ttl)
        for name, role in STAFF.items() if self.staffed else ():
            people.add(name, role, PASSWORD)

    def close(self) -> None:
        """Let go of the files."""
        self.desk.ledger.close()
        self.room.people.close()

    def ordered(self, adjudicators: int = 1) -> None:
        """An order, and portraits of people who do not exist for its references."""
        self.desk.ordered(adjudicators=adjudicators)
        names = [f"R-{number}" for number in range(1, 5)]
        files = sorted(PORTRAITS.glob("*-1.jpg"))
        pictures = (controlroom.reference(n, f.read_bytes()) for n, f in zip(names, files, strict=False))
        self.desk.ledger.put_references(DEPLOYMENT, pictures)

    def alert(self, **changes: object) -> str:
        """One more alert, sealed by the unit, verified, opened and stored as of now; its identifier."""
        self.desk.now = time.time()
        return self.desk.alert(**changes)

    def visitor(self, name: str = "", **settings: object) -> Visitor:
        """A browser with a session of this member, or with none."""
        client = TestClient(make_app(self.room, WebSettings(hosts=(HOST,), **settings)), f"https://{HOST}")  # type: ignore[arg-type]
        visitor = Visitor(client)
        if name:
            assert visitor.sign_in(name).status_code == 303
        return visitor

    @contextmanager
    def serving(self) -> Iterator[Site]:
        """The console on loopback, as `serve` runs it."""
        site = Site(Listen(host="127.0.0.1", port=0), None)
        self.desk.ledger._clock = time.time
        thread = threading.Thread(target=site.run, args=[make_app(self.room, site.settings)])
        thread.start()
        assert site.wait_started()
        try:
            yield site
        finally:
            site.stop()
            thread.join(10)
            site.close()


@dataclass
class Visitor:
    """A browser's manners: it follows no redirect, says where requests come from, and repeats a form's token."""

    client: TestClient

    def get(self, path: str, **headers: str) -> Any:
        """Fetch."""
        return self.client.get(path, headers=headers, follow_redirects=False)

    def post(self, path: str, fields: dict[str, str] | None = None, **headers: str) -> Any:
        """Send a form from a page of the console."""
        manners = {"origin": f"https://{HOST}", "sec-fetch-site": "same-origin", "x-csrf-token": self.token()}
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        shown = self.on_screen(path.split("/")[3]) if path.endswith(("/judge", "/rule")) else {}
        return self.client.post(
            path, data={**shown, **(fields or {})}, headers={**manners, **given}, follow_redirects=False
        )

    def on_screen(self, alert: str) -> dict[str, str]:
        """What an answer says of the pair that the member's page shows."""
        return {"alert": alert, **self.get(f"/api/cases/{alert}").json().get("pictures", {})}

    def sign_in(self, name: str, password: str = PASSWORD) -> Any:
        """Through the form."""
        return self.post("/sign-in", {"name": name, "password": password})

    def token(self) -> str:
        """The anti-forgery token of a page that anybody may load."""
        page = self.client.get("/about").text
        found = re.search(r'name="csrf" (?:content|value)="([0-9a-f]+)"', page)
        return found[1] if found else ""
