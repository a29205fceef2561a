"""Coming and going: sign-in, sign-out, and the page where a one-time token becomes a password."""

from __future__ import annotations

import re

from starlette.responses import JSONResponse, RedirectResponse, Response

from control.people import passwords
from control.people.passwords import PeopleError
from control.web.guard import Console, Visit, WebError
from control.web.pages import page
from control.web.words import span

_LOCAL = re.compile(r"/[A-Za-z0-9][A-Za-z0-9/_.-]{0,100}")  # a place of ours to go on to, never another site


def sign_in_page(console: Console, visit: Visit) -> Response:
    """The form, or straight on for who is signed in already."""
    if visit.session is not None:
        return RedirectResponse("/", 303)
    if console.room.people.nobody():
        return RedirectResponse("/welcome", 303)
    return _with_form_cookie(console, visit, page(console, visit, "sign-in.html", onward=_onward(visit), refusal=""))


def sign_in(console: Console, visit: Visit) -> Response:
    """Name and password against a session. Failures count by account and by address."""
    name = visit.fields.get("name", "").strip().lower()[:64]
    _may_try(console, visit, name)
    try:
        session = console.room.people.sign_in(name, visit.fields.get("password", ""))
    except PeopleError as refusal:
        console.by_account.failed(name)
        console.by_address.failed(visit.address)
        return page(console, visit, "sign-in.html", 401, onward=_onward(visit), refusal=str(refusal), name=name)
    console.by_account.clear(name)
    answer = RedirectResponse(_onward(visit) or "/", 303)
    _set(console, answer, console.cookie, session.token)
    answer.delete_cookie(console.form_cookie, secure=console.settings.secure, httponly=True, samesite="strict")
    return answer


def sign_out(console: Console, visit: Visit) -> Response:
    """The session is gone here, and what a browser may have kept is gone there."""
    if visit.session is not None:
        console.room.people.sign_out(visit.session.token)
    answer = RedirectResponse("/sign-in", 303)
    answer.headers["Clear-Site-Data"] = '"cache", "cookies"'
    answer.delete_cookie(console.cookie, secure=console.settings.secure, httponly=True, samesite="strict")
    return answer


def welcome_page(console: Console, visit: Visit) -> Response:
    """Where a new member types the one-time token."""
    return _with_form_cookie(console, visit, _welcome(console, visit, ""))


def welcome(console: Console, visit: Visit) -> Response:
    """The token, and the password its holder chose."""
    _may_try(console, visit, "")
    token, password = visit.fields.get("token", ""), visit.fields.get("password", "")
    people, name = console.room.people, visit.fields.get("name", "").strip().lower()
    if people.invitation(token) is None:
        console.by_address.failed(visit.address)
    try:
        if password != visit.fields.get("again", ""):
            raise PeopleError("the two passwords differ; type them once more")
        member = people.accept(token, password, name)
    except PeopleError as refusal:
        return _welcome(console, visit, str(refusal), 409)
    console.by_account.clear(member.name)  # whoever was reset may sign in at once
    console.room.audit(member.name).add("alteration", f"account:{member.name}", f"chose a password, role {member.role}")
    return RedirectResponse("/sign-in", 303)


def stay(console: Console, visit: Visit) -> Response:
    """Somebody is there: the session is not idle."""
    ends = visit.session.idle_ends if visit.session else 0.0
    return JSONResponse({"idle_ends": ends})


def _welcome(console: Console, visit: Visit, refusal: str, status: int = 200) -> Response:
    first = console.room.people.nobody()
    return page(console, visit, "welcome.html", status, first=first, refusal=refusal, least=passwords.LEAST,
                name=visit.fields.get("name", ""), token=visit.fields.get("token", ""))  # fmt: skip


def _may_try(console: Console, visit: Visit, name: str) -> None:
    wait = max(console.by_account.wait(name) if name else 0.0, console.by_address.wait(visit.address))
    if wait > 0:
        raise WebError(429, f"too many wrong tries; wait {span(wait)}, or ask a supervisor to reset the account")


def _onward(visit: Visit) -> str:
    wanted = visit.fields.get("next") or visit.request.query_params.get("next", "")
    return wanted if _LOCAL.fullmatch(wanted) else ""


def _with_form_cookie(console: Console, visit: Visit, answer: Response) -> Response:
    """Ties the form to this browser, so that nobody can be signed in by somebody else's page."""
    if visit.session is None and not visit.request.cookies.get(console.form_cookie):
        _set(console, answer, console.form_cookie, visit.secret)
    return answer


def _set(console: Console, answer: Response, name: str, value: str) -> None:
    answer.set_cookie(name, value, path="/", secure=console.settings.secure, httponly=True, samesite="strict")
