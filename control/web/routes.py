"""Every route of the console and who may use it. There is no other place where a role is checked.

Beside these there is `/static/`: styles, scripts and pictures of the product itself, for anybody.
"""

from __future__ import annotations

from control.records import Role
from control.web import cases, entry, live, pages, staff, units
from control.web.guard import Line

ANYBODY: tuple[Role, ...] = ()
STAFF: tuple[Role, ...] = ("viewer", "adjudicator", "supervisor", "auditor")
LOOKS: tuple[Role, ...] = ("viewer", "adjudicator", "supervisor")  # may see faces, some of them (cases.may_see)
JUDGES: tuple[Role, ...] = ("adjudicator", "supervisor")
SUPERVISOR: tuple[Role, ...] = ("supervisor",)
AUDITOR: tuple[Role, ...] = ("auditor",)

ROUTES = (
    Line("GET", "/", pages.home, STAFF),
    Line("GET", "/sign-in", entry.sign_in_page, ANYBODY),
    Line("POST", "/sign-in", entry.sign_in, ANYBODY),
    Line("GET", "/welcome", entry.welcome_page, ANYBODY),
    Line("POST", "/welcome", entry.welcome, ANYBODY),
    Line("POST", "/sign-out", entry.sign_out, STAFF),
    Line("POST", "/api/stay", entry.stay, STAFF),
    Line("GET", "/alerts", pages.alerts, STAFF),
    Line("GET", "/alerts/{alert}", pages.one, STAFF),
    Line("GET", "/rulings", pages.rulings, SUPERVISOR),
    Line("GET", "/events", live.events, STAFF, background=True),
    Line("GET", "/api/queue", cases.queue, STAFF, background=True),
    Line("GET", "/api/cases/{alert}", cases.detail, STAFF, background=True),
    Line("GET", "/api/cases/{alert}/probe", cases.probe, LOOKS, background=True),
    Line("GET", "/api/cases/{alert}/reference", cases.reference, LOOKS, background=True),
    Line("POST", "/api/cases/{alert}/judge", cases.judge, JUDGES),
    Line("POST", "/api/cases/{alert}/rule", cases.rule, SUPERVISOR),
    Line("POST", "/api/cases/{alert}/undo", cases.undo, JUDGES),
    Line("POST", "/api/cases/{alert}/engage", cases.engage, JUDGES),
    Line("GET", "/fleet", units.fleet, STAFF),
    Line("GET", "/api/fleet", units.figures, STAFF, background=True),
    Line("GET", "/members", staff.members, SUPERVISOR),
    Line("POST", "/members", staff.invite, SUPERVISOR),
    Line("POST", "/members/{name}/role", staff.change_role, SUPERVISOR),
    Line("POST", "/members/{name}/reset", staff.reset, SUPERVISOR),
    Line("POST", "/members/{name}/remove", staff.remove, SUPERVISOR),
    Line("GET", "/log", pages.log, AUDITOR),
    Line("GET", "/about", pages.about, STAFF),
)
