"""What the console is handed: the ledger, the members of staff, the fleet, and the log that names who looked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from securesystemslib.signer import Signer

from appliance.trust.audit import Audit
from control.ledger.ledger import Ledger
from control.people.people import People
from control.receive.fleet import Fleet


@dataclass(frozen=True)
class Room:
    """A control room at work. `store` is the folder of all its files; `ttl` the seconds an alert may be acted on."""

    name: str  # the control room's own, as its keys name it
    ledger: Ledger
    people: People
    fleet: Fleet
    store: Path
    signer: Signer
    ttl: float = 600.0
    decoys_per_hour: float = 0.0  # 0: none are shown; members are told that they may be, never which

    def audit(self, member: str) -> Audit:
        """The room's log, in the name of a member of staff: one line for every view of a face."""
        return Audit(self.store / "audit.log", self.signer, by=member)
