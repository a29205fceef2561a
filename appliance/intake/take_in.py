"""Taking in what the base issued: roster, order, pre-flight, report by group, watchlist, each only where it is right.

Everything is verified from the bytes that were read (intake_folder.py), in the order in which one file vouches for the
next, and written whole or not at all in the place where arming looks for it:

 T1  roster      signed by a pinned authority, not older than the one here
 T2  order       signed by a quorum, for this unit, its window not over, not used before, not older than the one here
 T3  pre-flight, report   the very files the order names
 T4  watchlist   sealed to this unit, signed, whole, for these models, the file the order names or a later version that
                 it allows, not older than the one here
 T5  while a deployment is armed nothing is taken that would void it: no other order, no roster under which its order or
     list would not stand, no list but a later version by the rules of refresh.py

Where several fit, the order whose window comes first and the highest version of its list are taken. Nothing is ever
removed from where it came; what was taken is logged (requirement 18). Arming checks everything once more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from appliance.deployment import next_list
from appliance.deployment.arming import Armed
from appliance.deployment.site import Site, read_armed
from appliance.errors import BluelampError, KeyFileError, SealError, WatchlistError
from appliance.formats import order, preflight, watchlist
from appliance.formats.order import Order, OrderError
from appliance.formats.watchlist import Watchlist
from appliance.intake.folder import Delivery, File, IntakeError, Kind
from appliance.limits import LIMITS
from appliance.records import Models
from appliance.storage.files import read_bounded, write_public
from appliance.times import utc
from appliance.trust import admission, audit, keys, seal
from appliance.trust.envelope import read as read_signed
from appliance.trust.keys import KeyFolder, Roster

Outcome = Literal["taken", "here", "other", "refused"]


@dataclass(frozen=True)
class Verdict:
    """What became of a file. `other`: for another unit, which is nobody's mistake."""

    name: str
    outcome: Outcome
    text: str


@dataclass(frozen=True)
class Desk:
    """Where deliveries are judged: the unit's files, its opened keys, its model packs, and now (UTC seconds)."""

    site: Site
    folder: KeyFolder
    models: Models
    now: float

    @property
    def unit(self) -> str:
        """This unit's name."""
        return self.folder.identity.name

    def order_here(self) -> Order | None:
        """The order in its place, where there is one that verifies."""
        try:
            return self.order_of(read_bounded(self.site.order, LIMITS.config_bytes))
        except (KeyFileError, OrderError):
            return None

    def order_of(self, blob: bytes, roster: Roster | None = None) -> Order:
        """An order, its quorum verified. Raises OrderError."""
        roster = roster or self.folder.roster
        return order.read(blob, roster.authority_keys(), roster.quorum)

    def list_of(self, blob: bytes, least_version: int = 0) -> Watchlist:
        """A list, verified and opened; one whose window is yet to begin is fine. Raises WatchlistError or SealError."""
        expires = seal.take_apart(blob, LIMITS.watchlist_bytes).header.expires
        return watchlist.open_watchlist(
            blob, unit=self.unit, keys=self.folder.sealing, authorities=self.folder.roster.authority_keys(),
            models=self.models, now=max(self.now, expires - 1.0), least_version=least_version,
        )  # fmt: skip

    def list_here(self) -> Watchlist | None:
        """The list in its place, opened, where there is one that opens. The caller erases it."""
        try:
            return self.list_of(read_bounded(self.site.watchlist, LIMITS.watchlist_bytes))
        except (KeyFileError, SealError):
            return None


def take(delivery: Delivery, desk: Desk) -> Iterator[Verdict]:
    """Judge every file of a delivery, write those that are right, and say what became of each.

    Raises IntakeError where a file cannot be written: what lies in its place is as it was.
    """
    armed = read_armed(desk.site, desk.folder) if desk.site.armed.exists() else None
    for left in delivery.left:
        yield Verdict(left.name, "refused", left.why)
    yield from _rosters(_of("roster", delivery), desk, armed)
    desk = replace(desk, folder=keys.load(desk.site.key_folder))
    yield from _orders(_of("order", delivery), desk, armed)
    current = desk.order_here()
    yield from _reports([*_of("preflight", delivery), *_of("report", delivery)], desk, current)
    yield from _lists(_of("watchlist", delivery), desk, current, armed)


def _of(kind: Kind, delivery: Delivery) -> list[File]:
    return [f for f in delivery.files if f.kind == kind]


def _rosters(files: Sequence[File], desk: Desk, armed: Armed | None) -> Iterator[Verdict]:
    for file in files:
        if _is_here(desk.site.key_folder / "roster.json", file.blob):
            yield Verdict(file.name, "here", "")
            continue
        try:
            roster = keys.verify_roster(file.blob, keys.pinned(desk.folder.folder))
            if armed is not None:
                _must_stand(roster, desk, armed)
            with _writing(desk.site.key_folder):
                admission.update_roster(desk.folder.folder, file.blob)
        except BluelampError as error:
            yield _refused(file, error)
            continue
        _log(desk, "keys", "roster", f"version {roster.version}, by intake")
        yield Verdict(file.name, "taken", f"roster version {roster.version}")


def _must_stand(roster: Roster, desk: Desk, armed: Armed) -> None:
    """T5: under this roster, too, the armed order and its list are well signed. Raises IntakeError."""
    try:
        desk.order_of(read_bounded(desk.site.order, LIMITS.config_bytes), roster)
        sealed = seal.take_apart(read_bounded(desk.site.watchlist, LIMITS.watchlist_bytes), LIMITS.watchlist_bytes)
        seal.verify(sealed, roster.authority_keys())
    except (SealError, KeyFileError) as error:
        raise IntakeError(
            f"under it {armed.deployment}, which is armed, would not stand ({error}); disarm first"
        ) from error


def _orders(files: Sequence[File], desk: Desk, armed: Armed | None) -> Iterator[Verdict]:
    fitting: list[tuple[Order, File]] = []
    for file in files:
        try:
            content = desk.order_of(file.blob)
        except OrderError as error:
            yield _refused(file, error)
            continue
        refusal = _not_for_now(content, desk) or _not_while(armed, file)
        if content.for_unit(desk.unit) is None:
            yield Verdict(file.name, "other", f"for {', '.join(u.unit for u in content.lists)}, this is {desk.unit}")
        elif _is_here(desk.site.order, file.blob):
            yield Verdict(file.name, "here", "")
        elif refusal is not None:
            yield Verdict(file.name, "refused", refusal)
        else:
            fitting.append((content, file))
    fitting.sort(key=lambda found: (found[0].not_before, -found[0].drafted))
    for number, (content, file) in enumerate(fitting):
        yield _order(file, content, desk, fitting[0][0] if number else desk.order_here(), first=not number)


def _not_for_now(content: Order, desk: Desk) -> str | None:
    if desk.now >= content.not_after:
        return f"its window ended at {utc(content.not_after)}; ask for a new order"
    log = desk.site.state / "audit.log"
    entries = audit.verify(log, [desk.folder.signer.public_key]) if log.exists() else []
    if any(e.act == "erasure" and e.subject == content.deployment for e in entries):
        return f"{content.deployment} was used and ended here; a new deployment needs a new order"
    return None


def _not_while(armed: Armed | None, file: File) -> str | None:
    """T5 for orders: only the very one that was armed may be put back."""
    if armed is None or armed.order == hashlib.sha256(file.blob).hexdigest():
        return None
    return f"{armed.deployment} is armed and obeys its own order; disarm first"


def _order(file: File, content: Order, desk: Desk, present: Order | None, *, first: bool) -> Verdict:
    """One of the orders that fit: the first is written unless the one in its place is newer and not over."""
    if present is not None and not first:
        return Verdict(file.name, "refused", f"{present.deployment} comes first; bring this one when that is over")
    if present is not None and _not_for_now(present, desk) is None and present.drafted > content.drafted:
        return Verdict(file.name, "refused", f"drafted at {utc(content.drafted)}, older than the order here")
    _write(desk.site.order, file.blob)
    _log(desk, "order", content.deployment, f"order {hashlib.sha256(file.blob).hexdigest()}, by intake")
    return Verdict(file.name, "taken", f"order of {content.deployment}, from {utc(content.not_before)}")


def _reports(files: Sequence[File], desk: Desk, current: Order | None) -> Iterator[Verdict]:
    for file in files:
        path = desk.site.order.with_name(f"{file.kind}.json")
        if _is_here(path, file.blob):
            yield Verdict(file.name, "here", "")
            continue
        try:
            _must_be_named(file, desk, current)
        except SealError as error:
            yield _refused(file, error)
            continue
        _write(path, file.blob)
        yield Verdict(file.name, "taken", "pre-flight" if file.kind == "preflight" else "report by group")


def _must_be_named(file: File, desk: Desk, current: Order | None) -> None:
    """T3. Raises IntakeError."""
    if current is None:
        raise IntakeError("no order here names it; bring it together with its order")
    if hashlib.sha256(file.blob).hexdigest() != (
        current.preflight if file.kind == "preflight" else current.performance
    ):
        raise IntakeError(f"not the one the order of {current.deployment} names; bring that one")
    if file.kind == "preflight":
        read_signed(file.blob, preflight.KIND, preflight.Preflight, desk.folder.roster.authority_keys())


def _lists(files: Sequence[File], desk: Desk, current: Order | None, armed: Armed | None) -> Iterator[Verdict]:
    fitting: list[tuple[int, File]] = []
    for file in files:
        if _is_here(desk.site.watchlist, file.blob):
            yield Verdict(file.name, "here", "")
            continue
        try:
            unit = seal.take_apart(file.blob, LIMITS.watchlist_bytes).header.unit
            if unit != desk.unit:
                yield Verdict(file.name, "other", f"for {unit}, this is {desk.unit}")
                continue
            fitting.append((_version(file.blob, desk, current, armed), file))
        except SealError as error:
            yield _refused(file, error)
    fitting.sort(key=lambda found: found[0], reverse=True)
    for version, file in fitting:
        if version < fitting[0][0]:
            yield Verdict(file.name, "refused", f"version {version}, older than version {fitting[0][0]} beside it")
            continue
        _write(desk.site.watchlist, file.blob)
        name = current.deployment if current else ""
        _log(desk, "collection", name, f"list version {version}, {hashlib.sha256(file.blob).hexdigest()}, by intake")
        yield Verdict(file.name, "taken", f"watchlist of {name}, version {version}")


def _version(blob: bytes, desk: Desk, current: Order | None, armed: Armed | None) -> int:
    """T4 and T5: the version of a list that may be taken. Raises SealError with the reason where it may not."""
    if current is None:
        raise IntakeError("no order here names it; bring it together with its order")
    present = desk.list_here()
    try:
        newer = desk.list_of(blob)
        try:
            _must_fit(newer, current, desk.unit)
            _must_be_newer(newer, present, desk.unit, current, armed)
            return newer.manifest.version
        finally:
            newer.erase()
    finally:
        if present is not None:
            present.erase()


def _must_fit(newer: Watchlist, current: Order, unit: str) -> None:
    manifest, named = newer.manifest, current.for_unit(unit)
    if named is None or manifest.deployment != current.deployment:
        raise WatchlistError(f"of {manifest.deployment}, the order here is of {current.deployment}; bring that one's")
    allowed = named.version + current.later_versions
    if newer.digest != named.watchlist and not named.version < manifest.version <= allowed:
        raise WatchlistError(f"version {manifest.version} is not the file the order names, nor a later one it allows")


def _must_be_newer(newer: Watchlist, present: Watchlist | None, unit: str, current: Order, armed: Armed | None) -> None:
    if present is not None and present.manifest.deployment == newer.manifest.deployment:
        if newer.manifest.version <= present.manifest.version:
            raise WatchlistError(
                f"version {newer.manifest.version}, and version {present.manifest.version} is here; use the newest list"
            )
        if armed is not None:
            next_list.follows(newer, present, current, unit)
    elif armed is not None and newer.digest != armed.watchlist:
        raise WatchlistError(f"not the list that {armed.deployment} was armed with; bring that one first")


def _is_here(path: Path, blob: bytes) -> bool:
    try:
        return path.stat().st_size == len(blob) and path.read_bytes() == blob
    except FileNotFoundError:
        return False


def _write(path: Path, blob: bytes) -> None:
    """Whole or not at all: a temporary file beside it, on disk before it takes the name. Raises IntakeError."""
    with _writing(path):
        write_public(path, blob)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise IntakeError(
            f"{path}: {error.strerror}; nothing more was taken, what lies there is as it was: see to the unit's disk"
        ) from error


def _log(desk: Desk, act: audit.Act, subject: str, detail: str) -> None:
    with _writing(desk.site.state):
        desk.site.audit(desk.folder).add(act, subject, detail)


def _refused(file: File, error: BluelampError) -> Verdict:
    return Verdict(file.name, "refused", str(error))
