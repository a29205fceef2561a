"""The files of a deployment, and what they alone tell: whether it is armed, and whether it is over."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from appliance.deployment import arming, clock
from appliance.deployment.arming import Armed
from appliance.deployment.place import PositionSource
from appliance.formats import recall
from appliance.formats.order import OrderError
from appliance.formats.receipt import Reason
from appliance.limits import LIMITS
from appliance.storage.files import read_bounded
from appliance.trust import envelope, keys
from appliance.trust.audit import Audit


@dataclass(frozen=True)
class Site:
    """Where a unit's files are, its position source where one is configured, the courier's folder where not `state`."""

    key_folder: Path
    watchlist: Path
    order: Path
    state: Path
    position: PositionSource | None = None
    courier: Path | None = None

    @property
    def armed(self) -> Path:
        """The record of the arming."""
        return self.state / "armed.json"

    @property
    def disarm(self) -> Path:
        """The file whose presence stops the unit."""
        return self.state / "disarm"

    @property
    def recall(self) -> Path:
        """Where the courier puts what came as a recall."""
        return (self.courier or self.state) / "recall.json"

    def audit(self, folder: keys.KeyFolder) -> Audit:
        """The unit's log."""
        return Audit(self.state / "audit.log", folder.signer)


Known = keys.KeyFolder | keys.PublicFolder


def due(site: Site, folder: Known, grace: float = 0.0) -> Reason | None:
    """Why the armed deployment is over, as far as files and clock tell, or None. Raises OrderError: nothing is armed.

    `grace` is how many seconds vision, which sees the same and knows the counts, has to end it first.
    """
    record = read_armed(site, folder)
    if _age(site.disarm) >= grace:
        return "disarmed"
    found = recall.waiting(site.recall, folder.roster.authority_keys(), folder.identity.name, record.deployment)
    if found is not None and _age(site.recall) >= grace:
        return "recalled"
    return "window-ended" if clock.reached(clock.read_point(), record.point) >= record.not_after + grace else None


def _age(path: Path) -> float:
    """Seconds since a file was made; less than any grace where there is none. A clock set back makes nothing young."""
    try:
        return abs(time.time() - path.stat().st_mtime)
    except FileNotFoundError:
        return float("-inf")


def read_armed(site: Site, folder: Known) -> Armed:
    """The record of the arming, by this unit's own signature. Raises OrderError."""
    if not site.armed.exists():
        raise OrderError("not armed; run: bluelamp-unit arm")
    blob = read_bounded(site.armed, LIMITS.config_bytes)
    return envelope.read(blob, arming.KIND, Armed, [folder.identity.signing_key()])
