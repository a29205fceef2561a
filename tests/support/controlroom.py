"""A control room's ledger for tests: an order, staff, a clock set by hand, and alerts that a unit really sealed."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from appliance.formats.order import Assessments, Order, Place, Retention, UnitList
from appliance.records import Models
from appliance.transport.mqtt import topic
from appliance.trust.audit import Audit
from control.ledger.ledger import Ledger
from control.receive.inbox import Inbox
from control.records import Member, ReferencePicture
from tests.support.machines import CONTROL, DEPLOYMENT, UNIT, AlertMaker, Machines

ANN, BOB, CY = (Member(name=name, role="adjudicator") for name in ("ann", "bob", "cy"))
SUE, SID = (Member(name=name, role="supervisor") for name in ("sue", "sid"))
EYE, VIC = Member(name="eye", role="auditor"), Member(name="vic", role="viewer")
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01" + bytes(range(256)) * 8 + b"\xff\xd9"
NOON = 1_900_000_000.0


def order(now: float, *, adjudicators: int = 1, deployment: str = DEPLOYMENT, **retention: float) -> Order:
    """An order of the first unit, whose window began an hour ago and lasts seven more."""
    zeros = "0" * 64
    return Order(
        deployment=deployment, purpose="to find people who are wanted for a test", authorised_by="Superintendent Test",
        place=Place(name="Test Square", polygon=((51.5, -0.1), (51.6, -0.1), (51.6, 0.0))),
        not_before=now - 3600, not_after=now + 7 * 3600, drafted=now - 7200,
        lists=(UnitList(unit=UNIT, watchlist=zeros, content=zeros, version=1, entries=100),),
        models=Models(detector=zeros, embedder=zeros), preflight=zeros, performance=zeros, threshold=0.5,
        greatest_fpir=0.001, projected_fpir=0.0001, footfall=10_000,
        assessments=Assessments(impact_assessment="IA-1", policy_document="PD-1", equality_assessment="EA-1"),
        retention=Retention(**retention), adjudicators=adjudicators,
    )  # fmt: skip


def reference(identifier: str = "R-1", picture: bytes | None = JPEG) -> ReferencePicture:
    """A reference, with its picture or without."""
    encoded = None if picture is None else base64.b64encode(picture).decode()
    return ReferencePicture(reference_identifier=identifier, category="test", image_date="2026-01-01", quality=80,
                            picture=encoded)  # fmt: skip


@dataclass
class Desk:
    """A ledger in a folder, the inbox before it, and a clock. `now` is set by the test."""

    store: Path
    machines: Machines
    now: float = NOON
    ttl: float = 600.0
    maker: AlertMaker = field(init=False)
    inbox: Inbox = field(init=False)
    ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        self.maker = AlertMaker(self.machines)
        self.open()

    def open(self) -> None:
        """Start, or start again after `ledger.close()`: what was stored is known."""
        self.ledger = Ledger(self.store, ttl=self.ttl, clock=lambda: self.now)
        self.inbox = Inbox(self.machines.keys(CONTROL))
        self.inbox.restore(self.ledger.chain())

    def ordered(self, **changes: float) -> Order:
        """An order that the ledger took in."""
        made = order(self.now, **changes)  # type: ignore[arg-type]
        self.ledger.add_deployment(made, hashlib.sha256(made.model_dump_json().encode()).hexdigest())
        return made

    def sealed(self, **changes: object) -> bytes:
        """The next sealed alert of the unit, as of the desk's clock."""
        fields = {"captured": self.now - 0.4, "observed": self.now - 0.2, "decided": self.now - 0.1,
                  "chip": base64.b64encode(JPEG).decode()}  # fmt: skip
        return self.maker.alert(lifetime=1e9, **{**fields, **changes})

    def take(self, container: bytes) -> bool:
        """What the receiver does with a message: verify, open, store, remember."""
        opened = self.inbox.receive(topic(UNIT, "alert"), container, self.now)
        assert opened.alert is not None
        stored = self.ledger.store(opened, opened.alert)
        self.inbox.accept(opened)
        return stored

    def alert(self, **changes: object) -> str:
        """One more alert in the ledger; its identifier."""
        assert self.take(self.sealed(**changes))
        return self.ledger.cases(limit=1)[0].alert_id

    def see(self, alert_id: str, *members: Member) -> None:
        """The pair is shown to members."""
        for member in members:
            self.ledger.first_seen(alert_id, member)

    def log(self) -> Audit:
        """The room's own log."""
        return Audit(self.store / "audit.log", self.machines.keys(CONTROL).signer, by="control-1")
