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
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from appliance.deployment import arming, clock
from appliance.deployment.arming import Armed, Confirmed, Evidence, Permit, Step
from appliance.deployment.clock import SteadyClock
from appliance.deployment.site import Site, read_armed
from appliance.errors import KeyFileError, PackError, WatchlistError
from appliance.formats import recall, watchlist
from appliance.formats.order import Order, OrderError
from appliance.formats.performance import REPORT_BYTES
from appliance.formats.watchlist import Watchlist
from appliance.limits import LIMITS
from appliance.recognition import calibration
from appliance.recognition.packs import Pack
from appliance.records import Models
from appliance.storage.files import read_bounded, write_public
from appliance.trust import audit, envelope, keys, seal

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
