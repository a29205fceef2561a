"""Members of staff, for supervisors: invite, change a role, reset, remove. Every change is a line of the log."""

from __future__ import annotations

from typing import cast

from starlette.responses import RedirectResponse, Response

from control.people.people import ROLES, PeopleError
from control.records import Role
from control.web.guard import Console, Visit
from control.web.pages import page


def members(console: Console, visit: Visit) -> Response:
    """The list."""
    return _list(console, visit)


def invite(console: Console, visit: Visit) -> Response:
    """A new account; its one-time token is shown once, to be handed over in person."""
    name = visit.fields.get("name", "").strip().lower()
    try:
        token = console.room.people.invite(name, _role(visit))
    except PeopleError as refusal:
        return _list(console, visit, 409, refusal=str(refusal))
    _log(console, visit, name, f"invited as {visit.fields.get('role')}")
    return _list(console, visit, token=token, token_for=name)


def reset(console: Console, visit: Visit) -> Response:
    """The password is void; a new one-time token."""
    name = visit.named("name")
    token = console.room.people.reset(name)
    _log(console, visit, name, "password reset")
    return _list(console, visit, token=token, token_for=name)


def change_role(console: Console, visit: Visit) -> Response:
    """Another role; the member signs in again under it."""
    name = visit.named("name")
    console.room.people.change_role(name, _role(visit))
    _log(console, visit, name, f"role {visit.fields.get('role')}")
    return RedirectResponse("/members", 303)


def remove(console: Console, visit: Visit) -> Response:
    """The account is gone; what it did stays."""
    name = visit.named("name")
    console.room.people.remove(name)
    _log(console, visit, name, "removed")
    return RedirectResponse("/members", 303)


def _list(console: Console, visit: Visit, status: int = 200, /, **said: str) -> Response:
    shown = {"refusal": "", "token": "", "token_for": "", **said}
    return page(console, visit, "members.html", status, accounts=console.room.people.accounts(), roles=ROLES, **shown)


def _role(visit: Visit) -> Role:
    role = visit.fields.get("role", "")
    if role not in ROLES:
        raise PeopleError(f"choose a role: {', '.join(ROLES)}")
    return cast(Role, role)


def _log(console: Console, visit: Visit, name: str, what: str) -> None:
    console.room.audit(visit.member.name).add("alteration", f"account:{name}", what)
