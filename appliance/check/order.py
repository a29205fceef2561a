"""The lines of `check` about what the unit obeys: order, window, place, clock, and what is still missing to arm."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta

from appliance.camera_kinds import kind_of
from appliance.check.line import Line, tried
from appliance.config import UnitConfig
from appliance.deployment import arming, clock, layout
from appliance.deployment import files as deployment
from appliance.deployment.arming import Armed, Step
from appliance.deployment.files import Recognisers
from appliance.deployment.place import GpsdPosition, PositionSource
from appliance.deployment.site import Site, read_armed
from appliance.formats import order
from appliance.formats.order import Order
from appliance.formats.watchlist import Watchlist
from appliance.limits import LIMITS
from appliance.storage.files import read_bounded
from appliance.times import utc
from appliance.trust.keys import KeyFolder

_FIX_SECONDS = 3.0  # how long a receiver may take to say where it is
_CLOCK, _WINDOW, _PLACE, _SIGNAGE = 4, 5, 6, 14  # steps of arming.py that have a line of their own here
_UNSYNCHRONISED = 5  # TIME_ERROR of adjtimex(2)
_TIMEX_BYTES = 1024  # struct timex is 208 bytes with 64-bit longs; read only, so more room does no harm


def lines(config: UnitConfig, folder: KeyFolder, packs: Recognisers, content: Watchlist | None) -> Iterator[Line]:
    """Order, window, place, clock, arming; `content` is None where the list does not open."""
    site = layout.site_of(config)
    if site is None:
        yield _without_order(config)
        newest = max(folder.roster.made, content.manifest.created if content else 0.0)
        yield _clock(clock.since_signed(time.time(), newest), ordered=False)
        return
    current, line = tried("order", lambda: _read(site, folder), lambda found: _said(found, site, folder))
    if current is None or content is None:
        yield line
        if current is not None:
            yield window(current, time.time())
        yield _clock(clock.since_signed(time.time(), folder.roster.made), ordered=True)
        return
    _wait_for_fix(site.position)
    armed, arming_line = tried("armed", lambda: read_armed(site, folder), _armed)
    signage = {c.item: c for c in armed.signage} if armed else {}
    steps, step_line = tried("order", lambda: arming.check(
        deployment.gather(site, folder, packs, content, signage, time.time()))[1])  # fmt: skip
    if steps is None:
        yield step_line
        return
    yield from _judged(config, current, armed, steps, line, arming_line)


def _wait_for_fix(source: PositionSource | None) -> None:
    """A receiver that was asked just now may need a moment to say where it is."""
    deadline = time.monotonic() + _FIX_SECONDS
    while isinstance(source, GpsdPosition) and source.latest() is None and time.monotonic() < deadline:
        time.sleep(0.1)


def _judged(
    config: UnitConfig, current: Order, armed: Armed | None, steps: Sequence[Step], signed: Line, arming_line: Line
) -> Iterator[Line]:
    refused = {s.number: s for s in steps if s.refusal}
    own = [s for n, s in refused.items() if n not in (_CLOCK, _WINDOW, _PLACE, _SIGNAGE)]
    yield _steps(own) if own else signed
    yield window(current, time.time())
    yield _place(config, current, refused.get(_PLACE))
    doubt = refused[_CLOCK].refusal if _CLOCK in refused else None
    if doubt is None and armed is not None:
        doubt = clock.since_point(clock.read_point(), armed.point)
    yield _clock(doubt, ordered=True)
    yield arming_line if armed is not None else _to_arm(current, [s for n, s in refused.items() if n != _SIGNAGE])


def _without_order(config: UnitConfig) -> Line:
    live = [c.name for c in config.camera if kind_of(c.source) not in ("video", "folder")]
    if not live:
        return Line("order", True, "none: recorded material may be rehearsed, a real place may not be scanned")
    return Line("order", False, f"none, and camera {', '.join(live)} looks at a real place: bring order.json from "
                                "the base and set 'order' under [unit]")  # fmt: skip


def _read(site: Site, folder: KeyFolder) -> Order:
    blob = read_bounded(site.order, LIMITS.config_bytes)
    return order.read(blob, folder.roster.authority_keys(), folder.roster.quorum)


def _said(current: Order, site: Site, folder: KeyFolder) -> str:
    rows = dict(order.shown(read_bounded(site.order, LIMITS.config_bytes), folder.roster))
    expected = current.projected_alerts
    return f"{current.deployment}, signed by {rows['signed by']}; false alerts to expect: {expected:.2f}"


def _steps(failed: Sequence[Step]) -> Line:
    more = f" (and {len(failed) - 1} more: bluelamp-unit arm)" if failed[1:] else ""
    return Line("order", False, f"step {failed[0].number}, {failed[0].title}: {failed[0].refusal}{more}")


def window(current: Order, now: float) -> Line:
    """The order's window at UTC second `now`."""
    text = f"{utc(current.not_before)} to {utc(current.not_after)}"
    if now >= current.not_after:
        return Line("window", False, f"{text}: over since {span(now - current.not_after)}; ask for a new order")
    if now < current.not_before:
        return Line("window", True, f"{text}: begins in {span(current.not_before - now)}; wait", look=True)
    return Line("window", True, f"{text}: open for another {span(current.not_after - now)}")


def _place(config: UnitConfig, current: Order, refused: Step | None) -> Line:
    name = current.place.name
    if refused is not None:
        return Line("place", False, str(refused.refusal))
    if config.unit.position is None:
        return Line("place", True, f"{name}; no receiver is configured: see for yourself that this is the place")
    return Line("place", True, f"inside {name}")


def _to_arm(current: Order, refused: Sequence[Step]) -> Line:
    if refused:
        return Line("armed", True, f"not armed; first put right what stands above ({len(refused)} of {_SIGNAGE} steps)",
                    look=True)  # fmt: skip
    return Line("armed", True, f"not armed; next: bluelamp-unit arm ({len(current.signage)} signs and notices to "
                               "confirm)", look=True)  # fmt: skip


def _armed(record: Armed) -> str:
    return f"for {record.deployment} since {utc(record.point.wall)}, by {record.by}; to end it: bluelamp-unit disarm"


def _clock(doubt: str | None, *, ordered: bool) -> Line:
    if doubt is not None:
        return Line("clock", False, doubt)
    now, kept = utc(time.time()), synchronised()
    if kept:
        return Line("clock", True, f"{now}, kept right by a time service")
    advice = "no time service keeps it right: compare it with another clock"
    return Line("clock", True, f"{now}; {advice}", look=ordered and kept is False)


def synchronised() -> bool | None:
    """Whether the kernel's clock is kept right by NTP, PTP or systemd-timesyncd; None where it may not be asked."""
    adjtimex = getattr(ctypes.CDLL(None), "adjtimex", None)
    if adjtimex is None:
        return None
    state = int(adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES)))  # all zero: nothing is set, only read
    return None if state < 0 else state != _UNSYNCHRONISED


def span(seconds: float) -> str:
    """A length of time as people say it: 3 h 12 min, 4 min, 20 s."""
    left = timedelta(seconds=round(seconds))
    hours, minutes = left.days * 24 + left.seconds // 3600, left.seconds // 60 % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{left.seconds} s"
