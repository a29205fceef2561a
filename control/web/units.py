"""The fleet: each unit's state as it was last heard, for a page and for the script that keeps it fresh."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from starlette.responses import JSONResponse, Response

from appliance.formats.order import Order
from appliance.rates import share
from appliance.records import CameraHealth, Health
from control.records import Deployment, UnitView
from control.web import words
from control.web.guard import Console, Visit
from control.web.pages import page
from control.web.polygon import Drawing, draw

_SILENT = 90.0  # seconds without a word after which a unit's figures are old
_SOON = 900.0  # seconds before the end of an order that people should know of
_LONG_QUEUE = 20  # envelopes
_HOT = 80.0  # degrees Celsius, as `bluelamp-unit check` has it
Row = tuple[str, str, bool]  # name, value, whether it needs attention


@dataclass(frozen=True)
class Figure:
    """One figure of a unit. `key` names it for the script; `alarm` marks it in words and shape, not in colour alone."""

    key: str
    name: str
    value: str
    alarm: bool = False


@dataclass(frozen=True)
class Card:
    """A unit as its card shows it."""

    unit: str
    state: Figure
    figures: tuple[Figure, ...]
    cameras: tuple[tuple[str, Figure], ...]
    sandbox: tuple[str, ...]
    order: Order | None
    place: Figure | None
    map: Drawing | None

    @property
    def every(self) -> tuple[Figure, ...]:
        """All figures of the card."""
        return (self.state, *self.figures, *(f for _, f in self.cameras), *((self.place,) if self.place else ()))


def fleet(console: Console, visit: Visit) -> Response:
    """The page."""
    return page(console, visit, "fleet.html", cards=_cards(console), newest=console.room.ledger.newest())


def figures(console: Console, visit: Visit) -> Response:
    """The same figures by key. Where a key came or went, the page is loaded anew."""
    return JSONResponse({f.key: [f.value, f.alarm, f.name] for card in _cards(console) for f in card.every})


def _cards(console: Console) -> list[Card]:
    now = time.time()
    deployments = {d.order.deployment: d for d in console.room.ledger.deployments()}
    return [_card(view, deployments, now) for view in console.room.fleet.units()]


def _card(view: UnitView, deployments: dict[str, Deployment], now: float) -> Card:
    found = deployments.get(view.health.deployment) if view.health else None
    order = found.order if found else None
    rows = [*_work(view, order, now), *_link(view, now)]
    figures = tuple(Figure(f"{view.unit}.{name}", name, value, alarm) for name, value, alarm in rows)
    cameras = tuple((c.name, _camera(view.unit, c)) for c in view.health.cameras) if view.health else ()
    sandbox = view.health.sandbox if view.health else ()
    card = Card(view.unit, _state(view), figures, cameras, sandbox, order, None, None)
    if order is None:
        return card
    place = Figure(f"{view.unit}.place.{order.deployment}", "Place", order.place.name)
    return replace(card, place=place, map=draw(order.place.polygon))


def _work(view: UnitView, order: Order | None, now: float) -> list[Row]:
    health = view.health
    if health is None:
        return []
    hot = health.temperature is not None and health.temperature > _HOT
    return [
        ("Time left", *_left(order, now)),
        ("Faces seen", f"{health.faces:,}", False),
        ("Watchlist", f"{health.watchlist_entries:,} references", False),
        ("False alerts", *_false(health, order)),
        ("Blue list found", *_blue(health)),
        ("Temperature", "not measured" if health.temperature is None else f"{health.temperature:.0f} °C", hot),
        ("Beacon", health.beacon if health.beacon != "none" else "not fitted", health.beacon == "dark"),
    ]


def _link(view: UnitView, now: float) -> list[Row]:
    courier, queued = view.courier, _queue(view)
    return [
        ("Last heard", f"{words.span(now - view.seen)} ago", now - view.seen > _SILENT),
        ("Waiting to be sent", f"{queued} envelope{'' if queued == 1 else 's'}", queued > _LONG_QUEUE),
        ("Alerts missing", f"{view.missing}", view.missing > 0),
        ("Messages held back", f"{view.quarantined}", view.quarantined > 0),
        ("Courier", f"{courier.state}, {courier.software}" if courier else "not heard", courier is None),
    ]


def _camera(unit: str, camera: CameraHealth) -> Figure:
    said = f"{camera.fps:.1f} frames/s · {camera.state}{': ' if camera.message else ''}{camera.message}"
    return Figure(f"{unit}.camera.{camera.name}", camera.name, said, camera.state not in ("running", "starting"))


def _state(view: UnitView) -> Figure:
    key = f"{view.unit}.state"
    if view.health is None:
        return Figure(key, "unknown", "On no roster" if view.quarantined else "No report yet", view.quarantined > 0)
    if view.courier is not None and view.courier.state == "offline":
        return Figure(key, "offline", f"Out of reach, was {view.health.state}", True)
    faults = _faults(view.health)
    if view.health.state == "armed" and faults:
        return Figure(key, "faulty", f"Armed, {faults} fault{'' if faults == 1 else 's'}", True)
    name = {"armed": "Armed", "disarmed": "Not armed", "ended": "Ended"}[view.health.state]
    return Figure(key, view.health.state, name)


def _faults(health: Health) -> int:
    """How many cameras do not run, and a beacon that is dark."""
    return sum(_camera("", camera).alarm for camera in health.cameras) + (health.beacon == "dark")


def _left(order: Order | None, now: float) -> tuple[str, bool]:
    if order is None:
        return "no order here", False
    if now < order.not_before:
        return f"begins in {words.span(order.not_before - now)}", False
    left = order.not_after - now
    return (words.span(left), left < _SOON) if left > 0 else ("over", True)


def _queue(view: UnitView) -> int:
    return max(view.courier.queued if view.courier else 0, view.health.queued if view.health else 0)


def _false(health: Health | None, order: Order | None) -> tuple[str, bool]:
    """Actual beside projected: at the faces seen so far, and over the whole deployment."""
    if health is None:
        return "none reported", False
    if order is None:
        return f"{health.false_alerts} judged false", False
    expected = order.projected_fpir * health.faces
    return (
        f"{health.false_alerts} judged false; {expected:.2f} projected by now, {order.projected_alerts:.2f} in all",
        health.false_alerts > max(2.0, 3 * expected),
    )


def _blue(health: Health | None) -> tuple[str, bool]:
    if health is None or not health.blue_passes:
        return "no volunteer has passed yet", False
    part = share(health.blue_found, health.blue_passes)
    limits = f"{part.low:.0%} to {part.high:.0%} with 95 % certainty"
    return f"{part.count} of {part.of} passes, {part.share:.0%} ({limits})", False
