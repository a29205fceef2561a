"""Pages that only show: alerts, one case, the log, and what is kept for how long."""

from __future__ import annotations

import time

from starlette.responses import RedirectResponse, Response

from control.cases.adjudication import GROUPS, UNDO, visible
from control.web.guard import Console, Visit

_LINES = 100  # of the log on one page


def page(console: Console, visit: Visit, template: str, status: int = 200, /, **context: object) -> Response:
    """A page with what every page needs."""
    request = visit.request
    everywhere = {"visit": visit, "room": console.room, "path": request.url.path, "now": time.time()}
    return console.templates.TemplateResponse(request, template, {**everywhere, **context}, status)


def home(console: Console, visit: Visit) -> Response:
    """Where a member's work is."""
    return RedirectResponse("/log" if visit.member.role == "auditor" else "/alerts", 303)


def alerts(console: Console, visit: Visit) -> Response:
    """The queue and the pair; its scripts fetch the rest."""
    return _console(console, visit, scope="all")


def rulings(console: Console, visit: Visit) -> Response:
    """What adjudicators answered differently, for a supervisor."""
    return _console(console, visit, scope="disputed")


def one(console: Console, visit: Visit) -> Response:
    """One case by itself. Raises LedgerError where there is none."""
    case = console.room.ledger.case(visit.named("alert"))
    return _console(console, visit, scope="one", case=visible(case, visit.member, time.time()))


def log(console: Console, visit: Visit) -> Response:
    """Every act, newest first, after every line's chain and signature was verified."""
    reading = console.book.read()
    act = visit.request.query_params.get("act", "")
    before = _number(visit.request.query_params.get("before", ""))
    rest = [
        entry
        for entry in reversed(reading.entries)
        if (not act or entry.act == act) and (before is None or entry.sequence < before)
    ]
    older = rest[_LINES - 1].sequence if len(rest) > _LINES else None
    acts = sorted({entry.act for entry in reading.entries})
    return page(console, visit, "log.html", reading=reading, act=act, acts=acts, entries=rest[:_LINES], older=older)


def about(console: Console, visit: Visit) -> Response:
    """Retention as ordered, and the rules this console holds."""
    deployments = sorted(console.room.ledger.deployments(), key=lambda d: -d.order.not_before)
    return page(console, visit, "about.html", deployments=deployments, undo=UNDO)


def _console(console: Console, visit: Visit, scope: str, case: object = None) -> Response:
    newest = console.room.ledger.newest()
    return page(console, visit, "alerts.html", scope=scope, case=case, newest=newest, groups=GROUPS)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else None
