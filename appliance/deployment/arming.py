"""The unit obeys: what must be true before it scans, in numbered steps, and what it asks every second after that.

 1  the order's form is whole and a quorum of pinned authorities signed it (APP; requirement 8)
 2  the order is for this unit
 3  its deployment identifier was not used before (APP; requirement 3)
 4  the clock can be believed (clock.py, K1)
 5  now lies in the window (APP, T; requirement 9)
 6  the unit stands inside the polygon, where a position source is configured (requirement 9)
 7  the watchlist is the very file the order names, or a later version it allows (requirement 8: editing voids it)
 8  the watchlist was made at most so long before the window as the order says (Home Office; requirement 4)
 9  the watchlist is no longer than the order's ceiling (ISO/IEC 30137-1; requirement 12)
 10 the model packs are those of the order
 11 no threshold is under the order's or the calibration's floor (Home Office SOP; requirement 10)
 12 the pre-flight is the one the order names, about this list, and its projected FPIR is at most the order's greatest,
    which is at most 1 in 1,000 (Bridges; requirement 11)
 13 the report by group is the one the order names, for these models, and current (Bridges; requirement 21)
 14 the field team confirmed every item of the signage checklist (Bridges, HO; requirement 17)

Everything here takes values; the files and the clock are read in deployment.py. A change of any byte of order, list,
packs, pre-flight or report changes a digest and voids the order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import Field
from securesystemslib.signer import Key

from appliance.deployment import clock, place
from appliance.deployment.clock import ClockPoint, SteadyClock
from appliance.deployment.place import Position, PositionSource
from appliance.errors import SealError
from appliance.formats import order, performance
from appliance.formats.order import GREATEST_FPIR, Order, OrderError, exceeds
from appliance.formats.preflight import KIND as PREFLIGHT
from appliance.formats.preflight import Preflight
from appliance.formats.receipt import Reason
from appliance.formats.watchlist import Watchlist
from appliance.records import Models, Record
from appliance.times import utc
from appliance.trust.envelope import read as read_signed

KIND = "armed"


class Confirmed(Record):
    """One item of the signage checklist, confirmed on the spot."""

    item: str
    at: float
    by: str = Field(max_length=128)


class Armed(Record):
    """The record of an arming, signed by the unit; `run` scans under nothing else."""

    deployment: str
    order: str
    watchlist: str
    content: str
    version: int
    entries: int
    sealing_key: str
    not_after: float  # the window's end: the keeper erases by it, whatever became of order and list
    point: ClockPoint
    signage: tuple[Confirmed, ...]
    by: str = Field(max_length=128)


@dataclass(frozen=True)
class Evidence:
    """All that the steps look at. `signage` maps checklist items to their confirmation; `floor` is the calibration's
    (None where the pack has none, with `floor_problem` saying why)."""

    unit: str
    authorities: Sequence[Key]
    quorum: int
    order_blob: bytes
    watchlist: Watchlist
    models: Models
    floor: float | None
    floor_problem: str
    preflight_blob: bytes | None
    performance_blob: bytes | None
    used: Collection[str]
    newest_signed: float
    now: float
    position: Position | None
    position_wanted: bool
    signage: Mapping[str, Confirmed]


@dataclass(frozen=True)
class Step:
    """One verification step's outcome; `refusal` is None where it passed."""

    number: int
    title: str
    source: str
    refusal: str | None


def check(evidence: Evidence) -> tuple[Order, list[Step]]:
    """All steps. Step 1 raises OrderError: of an order that is not signed nothing may be believed, or shown as true."""
    content = order.read(evidence.order_blob, evidence.authorities, evidence.quorum)
    steps = [Step(1, "signed by a quorum of authorities", "APP; requirement 8", None)]
    steps += [Step(n, title, source, test(evidence, content)) for n, title, source, test in _STEPS]
    return content, steps


def require(evidence: Evidence) -> Order:
    """The order, where every step passed. Raises OrderError with the first that did not, and how many more."""
    content, steps = check(evidence)
    failed = [s for s in steps if s.refusal]
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise OrderError(f"not armed: step {failed[0].number}, {failed[0].title}: {failed[0].refusal}{more}")
    return content


def _for_this_unit(e: Evidence, o: Order) -> str | None:
    named = ", ".join(u.unit for u in o.lists)
    return None if o.for_unit(e.unit) else f"the order is for {named}, this is {e.unit}; ask for the right order"


def _not_used(e: Evidence, o: Order) -> str | None:
    return (
        f"{o.deployment} was used and ended here; a new deployment needs a new order"
        if o.deployment in e.used
        else None
    )


def _clock(e: Evidence, o: Order) -> str | None:
    return clock.since_signed(e.now, max(e.newest_signed, o.drafted))


def _window(e: Evidence, o: Order) -> str | None:
    if e.now < o.not_before:
        return f"the window begins at {utc(o.not_before)}, it is {utc(e.now)}; wait"
    if e.now >= o.not_after:
        return f"the window ended at {utc(o.not_after)}, it is {utc(e.now)}; ask for a new order"
    return None


def _place(e: Evidence, o: Order) -> str | None:
    if not e.position_wanted:
        return None
    return outside(o, e.position, e.position.steady if e.position else 0.0)


def outside(o: Order, position: Position | None, steady: float) -> str | None:
    """Why a configured position source does not allow scanning here, or None."""
    if position is None:
        return "no position yet from the configured source; wait for a fix, or repair the receiver"
    if steady - position.steady > place.STALE_SECONDS:
        return f"the last position is {steady - position.steady:.0f} s old; repair the receiver"
    away = place.outside_by(o.place.polygon, position.latitude, position.longitude)
    return None if away <= 0 else f"{away:.0f} m outside {o.place.name}; drive back into the ordered place"


def _same_list(e: Evidence, o: Order) -> str | None:
    manifest, named = e.watchlist.manifest, o.for_unit(e.unit)
    if named is None or manifest.deployment != o.deployment:
        return f"the watchlist is of deployment {manifest.deployment}, the order of {o.deployment}"
    if (manifest.not_before, manifest.not_after) != (o.not_before, o.not_after):
        return "the watchlist's window is not the order's; issue it again for the ordered window"
    if e.watchlist.digest == named.watchlist:
        return None
    if manifest.version <= named.version:
        return "the watchlist is not the file the order names (its digest differs); bring that file"
    if manifest.version > named.version + o.later_versions:
        return f"version {manifest.version} of the list, the order allows up to {named.version + o.later_versions}"
    return None


def _made_in_time(e: Evidence, o: Order) -> str | None:
    hours = (o.not_before - e.watchlist.manifest.created) / 3600
    return None if hours <= o.hours_before else f"made {hours:.1f} h before the window, {o.hours_before:g} are allowed"


def _ceiling(e: Evidence, o: Order) -> str | None:
    count = len(e.watchlist.manifest.entries)
    return None if count <= o.entries else f"{count} entries, the order allows {o.entries}; issue a shorter list"


def _packs(e: Evidence, o: Order) -> str | None:
    for role in ("detector", "embedder"):
        if getattr(e.models, role) != getattr(o.models, role):
            return f"another {role} pack than the order names; install that one"
    return None


def _thresholds(e: Evidence, o: Order) -> str | None:
    manifest = e.watchlist.manifest
    own = [x.threshold for x in manifest.entries if x.threshold is not None]
    lowest = min((manifest.threshold, *manifest.category_thresholds.values(), *own))
    if e.floor is None:
        return f"no calibration for the embedder pack, so no floor is known: {e.floor_problem}"
    if o.threshold < e.floor or lowest < e.floor:
        return f"threshold {min(o.threshold, lowest):.3f} is under the calibration's floor {e.floor:.3f}; raise it"
    return (
        None if lowest >= o.threshold else f"threshold {lowest:.3f} on the list is under the order's {o.threshold:.3f}"
    )


def _preflight(e: Evidence, o: Order) -> str | None:
    if e.preflight_blob is None:
        return "preflight.json is missing beside the order; bring it"
    if hashlib.sha256(e.preflight_blob).hexdigest() != o.preflight:
        return "preflight.json is not the one the order names; bring that one"
    try:
        report = read_signed(e.preflight_blob, PREFLIGHT, Preflight, e.authorities)
    except SealError as error:
        return str(error)
    named = o.for_unit(e.unit)
    if named is None or report.content != named.content or report.models != o.models:
        return "the pre-flight is about another list or other models; run it for this one"
    if e.watchlist.digest == named.watchlist and e.watchlist.content != report.content:
        return "the list's content is not what the pre-flight looked at; issue it again"
    worst = max(report.projected_fpir, o.projected_fpir)
    if exceeds(worst, o.greatest_fpir) or o.greatest_fpir > GREATEST_FPIR:
        return f"projected FPIR {worst:.2g} is above {min(o.greatest_fpir, GREATEST_FPIR):.2g}; raise the threshold"
    return None


def _performance(e: Evidence, o: Order) -> str | None:
    if e.performance_blob is None:
        return "report.json (figures by group) is missing beside the order; bring it"
    if hashlib.sha256(e.performance_blob).hexdigest() != o.performance:
        return "report.json is not the one the order names; bring that one"
    return performance.refusal(e.performance_blob, e.models, e.now)


def _signage(e: Evidence, o: Order) -> str | None:
    missing = [item for item in o.signage if item not in e.signage]
    return (
        None
        if not missing
        else f"not confirmed: {missing[0]}" + (f" (and {len(missing) - 1} more)" if missing[1:] else "")
    )


_STEPS: tuple[tuple[int, str, str, Callable[[Evidence, Order], str | None]], ...] = (
    (2, "for this unit", "design", _for_this_unit),
    (3, "deployment not used before", "APP; requirement 3", _not_used),
    (4, "the clock can be believed", "design", _clock),
    (5, "inside the window", "APP, Thompson; requirement 9", _window),
    (6, "inside the place", "APP, Thompson; requirement 9", _place),
    (7, "the watchlist named", "APP; requirement 8", _same_list),
    (8, "list made shortly before", "Home Office; requirement 4", _made_in_time),
    (9, "list within its ceiling", "ISO/IEC 30137-1; requirement 12", _ceiling),
    (10, "the model packs named", "design", _packs),
    (11, "thresholds at or above the floor", "Home Office; requirement 10", _thresholds),
    (12, "pre-flight of this list, FPIR within 1 in 1,000", "Bridges; requirement 11", _preflight),
    (13, "current report by group", "Bridges; requirement 21", _performance),
    (14, "signage confirmed", "Bridges, Home Office; requirement 17", _signage),
)


@dataclass
class Permit:
    """May the unit scan this second? Built by deployment.py once every step passed.

    `ending` is set when the deployment is over for good and must be erased; being outside the polygon only pauses.
    """

    order: Order
    clock: SteadyClock
    position: PositionSource | None = None
    disarmed: Callable[[], bool] = lambda: False
    recalled: Callable[[], str | None] = lambda: None
    rate_alarm: Callable[[], str | None] = lambda: None
    ending: Reason | None = field(default=None)

    def __call__(self, now: float, steady: float) -> str | None:
        """The refusal, with the position asked of the configured source."""
        return self.refusal(now, steady)

    def refusal(self, now: float, steady: float, position: Position | None = None) -> str | None:
        """Why scanning must stop at UTC `now` and monotonic `steady`, or None. Cheap enough for every second."""
        over = self._over(now, steady)
        if over is not None:
            self.ending, reason = over
            return reason
        if position is None and self.position is not None:
            position = self.position.latest()
        if position is None and self.position is None:
            return None
        return outside(self.order, position, steady)

    def _over(self, now: float, steady: float) -> tuple[Reason | None, str] | None:
        if self.disarmed():
            return "disarmed", "disarmed by the field team"
        recall = self.recalled()
        if recall is not None:
            return "recalled", f"recalled by an authority: {recall}"
        reason = self.clock.refusal(now, steady, self.order.not_before, self.order.not_after)
        if reason is not None:
            return self._why(now, steady), reason
        alarm = self.rate_alarm() if self.order.fpir_disarms else None
        return None if alarm is None else ("fpir", alarm)

    def _why(self, now: float, steady: float) -> Reason | None:
        if self.clock.set_back:
            return "clock"
        expected = self.clock.wall + steady - self.clock.steady
        return "window-ended" if max(now, expected) >= self.order.not_after else None
