"""Who may ask for what. Every route of the table goes through `guarded`, in these steps:

 1 not from another site                        (Sec-Fetch-Site, Origin)
 2 a form that is a form, of bounded size       (shield.py bounds the bytes)
 3 signed in, where the line asks for a role
 4 of one of the roles the line names
 5 the anti-forgery token, on everything that changes something
Only then the endpoint runs, in a thread of its own, and its refusals become words.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.templating import Jinja2Templates

from appliance.errors import BluelampError
from control.people.people import Session
from control.records import Member, Role
from control.room import Room
from control.web.book import Book
from control.web.brake import Brake
from control.web.feed import Feed
from control.web.settings import WebSettings

SAFE = ("GET", "HEAD")
_FORM = "application/x-www-form-urlencoded"


class WebError(BluelampError):
    """An answer that is not what was asked for: its HTTP status and words that say what to do."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


@dataclass(frozen=True)
class Console:
    """What endpoints work with."""

    room: Room
    settings: WebSettings
    feed: Feed
    book: Book
    templates: Jinja2Templates
    by_account: Brake
    by_address: Brake

    @property
    def cookie(self) -> str:
        """Name of the session's cookie; the prefix makes a browser insist on Secure, this host and this path."""
        return "__Host-bluelamp" if self.settings.secure else "bluelamp"

    @property
    def form_cookie(self) -> str:
        """Name of the cookie that ties a form to a browser before anybody has signed in."""
        return f"{self.cookie}-form"


@dataclass(frozen=True)
class Visit:
    """One request, with what the guard found out."""

    request: Request
    session: Session | None
    secret: str  # of the session, or of the form before there is one
    fields: dict[str, str] = field(default_factory=dict)

    @property
    def member(self) -> Member:
        """The member. Only lines that name roles ask for it."""
        if self.session is None:
            raise WebError(401, "sign in first")
        return self.session.member

    @property
    def csrf(self) -> str:
        """The anti-forgery token for pages of this visit."""
        return forgery_token(self.secret)

    @property
    def address(self) -> str:
        """Where the request came from."""
        return self.request.client.host if self.request.client else "unknown"

    def named(self, name: str) -> str:
        """A part of the path."""
        return str(self.request.path_params[name])


Endpoint = Callable[[Console, Visit], Response]


@dataclass(frozen=True)
class Line:
    """One line of the route table. No roles: anybody, signed in or not. `api`: answers in JSON, refusals too."""

    method: Literal["GET", "POST"]
    path: str
    endpoint: Endpoint
    roles: tuple[Role, ...] = ()
    background: bool = False  # asked by the page itself: does not keep a session from being idle

    @property
    def api(self) -> bool:
        """Whether a script asks."""
        return self.path.startswith(("/api/", "/events"))


def guarded(console: Console, line: Line) -> Callable[[Request], Awaitable[Response]]:
    """The line's endpoint behind the five steps."""

    async def answer(request: Request) -> Response:
        try:
            _from_here(request, console.settings)  # 1
            fields = await _fields(request, console.settings) if line.method == "POST" else {}  # 2
            return await run_in_threadpool(_answer, console, line, request, fields)
        except WebError as refusal:
            return refused(console, line.api, request, refusal.status, str(refusal))
        except BluelampError as refusal:
            stale = getattr(refusal, "status", "refused")
            return refused(console, line.api, request, {"unknown": 404, "stale": 410}.get(stale, 409), str(refusal))

    return answer


def _answer(console: Console, line: Line, request: Request, fields: dict[str, str]) -> Response:
    token = request.cookies.get(console.cookie, "")
    session = console.room.people.resume(token, active=not line.background) if token else None
    if line.roles and session is None:  # 3
        if line.api or line.method == "POST":
            raise WebError(401, "your session has ended; sign in again")
        return RedirectResponse(f"/sign-in?next={quote(request.url.path)}", 303)
    if line.roles and session is not None and session.member.role not in line.roles:  # 4
        raise WebError(403, f"this is for {_listed(line.roles)}; you are signed in as {session.member.role}")
    secret = session.token if session else request.cookies.get(console.form_cookie, "")
    if line.method not in SAFE:  # 5
        given = request.headers.get("x-csrf-token") or fields.pop("csrf", "")
        if not secret or not hmac.compare_digest(given.encode(), forgery_token(secret).encode()):
            raise WebError(403, "this page is out of date; load it again and repeat what you did")
    return line.endpoint(console, Visit(request, session, secret or secrets.token_urlsafe(24), fields))


def forgery_token(secret: str) -> str:
    """Follows from the session's secret, which scripts cannot read; it needs no store."""
    return hmac.digest(secret.encode(), b"bluelamp anti-forgery", "sha256").hex()


def _from_here(request: Request, settings: WebSettings) -> None:
    """Other sites may neither send us anything nor load anything of ours; a typed address or bookmark is nobody's."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    unsafe = request.method not in SAFE
    navigating = not unsafe and request.headers.get("sec-fetch-mode") == "navigate"
    if site not in (None, "same-origin", "none") and not navigating:
        raise WebError(403, "this came from another site; open the console itself")
    if origin is not None and origin != f"{_scheme(settings)}://{request.headers['host']}":
        raise WebError(403, "this came from another site; open the console itself")
    if unsafe and site != "same-origin" and origin is None:
        raise WebError(403, "the browser does not say where this came from; use a current one")


def _scheme(settings: WebSettings) -> str:
    return "https" if settings.secure else "http"


async def _fields(request: Request, settings: WebSettings) -> dict[str, str]:
    if request.headers.get("content-type", _FORM).partition(";")[0].strip().lower() != _FORM:
        raise WebError(415, "send a plain form")
    body = await request.body()
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=settings.fields, errors="strict")
    except ValueError as error:
        raise WebError(400, "the form cannot be read; load the page again") from error
    if len({name for name, _ in pairs}) != len(pairs):
        raise WebError(400, "the form names a field twice; load the page again")
    return dict(pairs)


def refused(console: Console, api: bool, request: Request, status: int, words: str) -> Response:
    """A refusal as JSON for scripts, as a page for people; the same words in both."""
    if api:
        return JSONResponse({"error": words, "stale": status == 410}, status)
    context = {"words": words, "status": status, "title": _TITLES.get(status, "That did not work"), "visit": None}
    return console.templates.TemplateResponse(request, "error.html", context, status)


_TITLES = {
    400: "This cannot be read", 401: "Please sign in", 403: "Not for you", 404: "Nothing here",
    405: "Not this way", 409: "Refused", 410: "Too late", 413: "Too much at once", 429: "Please wait",
    500: "Something broke",
}  # fmt: skip


def _listed(roles: tuple[Role, ...]) -> str:
    *others, last = [f"{role}s" for role in roles]
    return f"{', '.join(others)} and {last}" if others else last
