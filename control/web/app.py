"""The console as one ASGI application: the route table behind the guard, the shield around all of it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import jinja2
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates

from control.room import Room
from control.web import words
from control.web.book import Book
from control.web.brake import Brake
from control.web.feed import Feed
from control.web.guard import Console, guarded, refused
from control.web.routes import ROUTES
from control.web.settings import WebSettings
from control.web.shield import Shield

_HERE = Path(__file__).parent


def make_app(room: Room, settings: WebSettings) -> Starlette:
    """The console of a room. `app.state.feed.close()` ends its streams, so that a server can stop."""
    console = Console(
        room=room, settings=settings, feed=Feed(room.ledger, settings.streams), templates=_templates(),
        book=Book(room.store / "audit.log", room.signer.public_key),
        by_account=Brake(settings.tries_account, settings.tries_seconds),
        by_address=Brake(settings.tries_address, settings.tries_seconds),
    )  # fmt: skip
    routes = [Route(line.path, guarded(console, line), methods=[line.method]) for line in ROUTES]
    for route in routes:
        route.methods = (route.methods or set()) - {"HEAD"}  # nothing here asks for it, and a stream has no end
    static = Mount("/static", StaticFiles(directory=_HERE / "static"))

    async def not_found(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        return refused(console, request.url.path.startswith("/api/"), request, status, _WORDS.get(status, _WORDS[500]))

    app = Starlette(
        routes=[*routes, static], middleware=[Middleware(Shield, settings=settings)],
        exception_handlers={HTTPException: not_found, 500: not_found},
    )  # fmt: skip
    app.state.feed = console.feed
    return app


_WORDS = {
    404: "There is no such page. Go back to the alerts.",
    405: "This address does not take that kind of request. Go back to the alerts.",
    500: "Nothing was changed that is not shown. Try again; if it happens again, look into the service's log: the disk "
    "may be full.",
}


@lru_cache
def _templates() -> Jinja2Templates:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(
        plain=words.plain,
        clock=words.clock,
        moment=words.moment,
        span=words.span,
        quality=words.quality,
        first_letter=words.first,
    )
    return Jinja2Templates(env=environment)
