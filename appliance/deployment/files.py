"""A deployment on the unit, from files: gather what arming looks at, record it, open the permit, end it.

order.json        beside it: preflight.json, report.json       brought from base
state/armed.json  the arming, signed by the unit               written by `arm`
state/disarm      anybody on the van made it: stop             written by `disarm`
state/recall.json what the broker delivered as a recall        written by the courier, in its folder
state/receipts/   what was erased                              written at the end, by the keeper
state/audit.log   the log of every act
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from appliance.deployment import arming, clock
from appliance.deployment.arming import Armed, Confirmed, Evidence, Permit, Step
from appliance.deployment.clock import SteadyClock
from appliance.deployment.place import PositionSource
from appliance.errors import KeyFileError, PackError, WatchlistError
from appliance.formats import recall, watchlist
from appliance.formats.order import Order, OrderError
from appliance.formats.performance import REPORT_BYTES
from appliance.formats.receipt import Reason, Receipt
from appliance.formats.watchlist import Watchlist
from appliance.keeper import erasure
from appliance.keeper.erasure import Ending
from appliance.limits import LIMITS
from appliance.recognition import calibration
from appliance.recognition.packs import Pack
from appliance.records import Models
from appliance.storage.files import read_bounded, write_public
from appliance.trust import audit, envelope, keys, seal
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
"""Enough to tell whether a deployment is over: who this unit is, and whom it trusts."""


@dataclass(frozen=True)
class Recognisers:
    """The two packs in use."""

    detector: Pack
    embedder: Pack

    @property
    def models(self) -> Models:
        """Their digests."""
        return Models(detector=self.detector.digest, embedder=self.embedder.digest)


def examine(
    site: Site, folder: keys.KeyFolder, packs: Recognisers, signage: Mapping[str, Confirmed], now: float | None = None
) -> tuple[Order, list[Step]]:
    """Every step of arming, for showing. Raises OrderError or WatchlistError where order or list cannot be believed."""
    now = time.time() if now is None else now
    content = open_list(site.watchlist, folder, packs.models, now)
    try:
        return arming.check(gather(site, folder, packs, content, signage, now))
    finally:
        content.erase()


def arm(
    site: Site,
    folder: keys.KeyFolder,
    packs: Recognisers,
    signage: Mapping[str, Confirmed],
    by: str,
    now: float | None = None,
) -> Armed:
    """Arm: every step must pass. Writes and returns the signed record. Raises OrderError with the step that did not."""
    point = clock.read_point()
    now = point.wall if now is None else now
    content = open_list(site.watchlist, folder, packs.models, now)
    evidence = gather(site, folder, packs, content, signage, now)
    try:
        current = arming.require(evidence)
    except OrderError as error:  # an attempt to arm below the floor, for one, is on record (requirement 10)
        site.audit(folder).add("arming", content.manifest.deployment, f"refused, by {by}: {error}")
        raise
    finally:
        content.erase()
    record = Armed(
        deployment=current.deployment, order=hashlib.sha256(evidence.order_blob).hexdigest(), watchlist=content.digest,
        content=content.content, version=content.manifest.version, entries=len(content.manifest.entries),
        sealing_key=_recipient(site.watchlist), not_after=current.not_after, point=point, by=by,
        signage=tuple(signage[item] for item in current.signage),
    )  # fmt: skip
    site.state.mkdir(parents=True, exist_ok=True)
    site.disarm.unlink(missing_ok=True)
    write_public(site.armed, envelope.sign(record, arming.KIND, folder.signer))
    site.audit(folder).add("arming", current.deployment, f"order {record.order}, {record.entries} entries, by {by}")
    return record


def open_permit(
    site: Site, folder: keys.KeyFolder, packs: Recognisers, content: Watchlist, now: float | None = None
) -> Permit:
    """The permit under which a unit that was armed scans. All steps are checked again. Raises OrderError."""
    record = read_armed(site, folder)
    point = clock.read_point()
    now = point.wall if now is None else now
    order_blob = _order_blob(site)
    if hashlib.sha256(order_blob).hexdigest() != record.order:
        raise OrderError("the order was exchanged after arming; run: bluelamp-unit arm")
    behind = clock.since_point(point, record.point)
    if behind is not None:
        raise OrderError(f"not armed: {behind}")
    signage = {c.item: c for c in record.signage}
    current = arming.require(gather(site, folder, packs, content, signage, now))
    authorities, unit = folder.roster.authority_keys(), folder.identity.name

    def recalled() -> str | None:
        found = recall.waiting(site.recall, authorities, unit, current.deployment)
        return None if found is None else found.reason

    def disarmed() -> bool:
        return site.disarm.exists() or not site.armed.exists()  # the keeper may have ended it without us

    steady = SteadyClock(now, time.monotonic())
    return Permit(current, steady, site.position, disarmed=disarmed, recalled=recalled)


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


def finish(
    site: Site, folder: keys.KeyFolder, reason: Reason, counts: dict[str, int] | None = None
) -> tuple[Receipt, bytes]:
    """End the armed deployment: erase, and return the receipt and its sealed form for the courier.

    Raises OrderError where nothing is armed. A run that was cut off is finished by calling it again.
    """
    record = read_armed(site, folder)
    later = sorted(site.watchlist.parent.glob(f"{site.watchlist.name}.next*"))
    ending = Ending(
        deployment=record.deployment, sealing_key=record.sealing_key, files=(site.watchlist, *later),
        watchlist=record.watchlist, order=record.order, entries=record.entries, state=site.state,
    )  # fmt: skip
    if os.access(site.recall.parent, os.W_OK):  # where it is the courier's, its next recall replaces it
        site.recall.unlink(missing_ok=True)
    return erasure.erase(folder, ending, reason, site.audit(folder), counts)


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


def open_list(path: Path, folder: keys.KeyFolder, models: Models, now: float, least_version: int = 0) -> Watchlist:
    """The sealed watchlist at `path`, verified and opened. Raises WatchlistError, which names the file."""
    try:
        blob = read_bounded(path, LIMITS.watchlist_bytes)
    except KeyFileError as error:
        raise WatchlistError(f"{error}; bring the list that the base issued to this unit") from error
    try:
        return watchlist.open_watchlist(
            blob, unit=folder.identity.name, keys=folder.sealing, authorities=folder.roster.authority_keys(),
            models=models, now=now, least_version=least_version,
        )  # fmt: skip
    except WatchlistError as error:
        raise WatchlistError(f"{path}: {error}") from error


def gather(
    site: Site,
    folder: keys.KeyFolder,
    packs: Recognisers,
    content: Watchlist,
    signage: Mapping[str, Confirmed],
    now: float,
) -> Evidence:
    """Everything the steps look at, read once."""
    log = site.state / "audit.log"
    entries = audit.verify(log, [folder.signer.public_key]) if log.exists() else []
    floor, problem = _floor(packs)
    signed = [folder.roster.made, content.manifest.created, *(e.time for e in entries[-1:])]
    return Evidence(
        unit=folder.identity.name, authorities=folder.roster.authority_keys(), quorum=folder.roster.quorum,
        order_blob=_order_blob(site), watchlist=content, models=packs.models, floor=floor, floor_problem=problem,
        preflight_blob=_optional(site.order.parent / "preflight.json", envelope.DOCUMENT_BYTES),
        performance_blob=_optional(site.order.parent / "report.json", REPORT_BYTES),
        used={e.subject for e in entries if e.act == "erasure"}, newest_signed=max(signed), now=now,
        position=site.position.latest() if site.position else None, position_wanted=site.position is not None,
        signage=signage,
    )  # fmt: skip


def _order_blob(site: Site) -> bytes:
    try:
        return read_bounded(site.order, LIMITS.config_bytes)
    except KeyFileError as error:
        raise OrderError(f"{error}; without a deployment order the unit does not scan") from error


def _optional(path: Path, limit: int) -> bytes | None:
    return read_bounded(path, limit) if path.exists() else None


def _recipient(path: Path) -> str:
    return seal.take_apart(path.read_bytes(), LIMITS.watchlist_bytes).header.recipient


def _floor(packs: Recognisers) -> tuple[float | None, str]:
    try:
        record = calibration.load(packs.embedder)
    except PackError as error:
        return None, str(error)
    if record.detector != packs.detector.digest:
        return None, "its calibration was measured with another detector pack"
    return record.floor, ""
