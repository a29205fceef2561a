"""The stream that keeps a browser up to date."""

from __future__ import annotations

from sse_starlette.sse import EventSourceResponse
from starlette.responses import Response

from control.web.guard import Console, Visit, WebError

_NEVER = 3600  # seconds; the feed gives its own signs of life, which scripts can hear


def events(console: Console, visit: Visit) -> Response:
    """Server-sent events after `Last-Event-ID` (or `?after=`); they end with the session."""
    if console.feed.full:
        raise WebError(503, "too many browsers listen; close some, or raise the limit")
    after = visit.request.headers.get("last-event-id") or visit.request.query_params.get("after", "0")
    if not (after.isascii() and after.isdigit() and len(after) < 16):
        raise WebError(400, "Last-Event-ID is a number")
    people, token = console.room.people, visit.session.token if visit.session else ""

    def lives() -> bool:
        return people.resume(token, active=False) is not None

    return EventSourceResponse(console.feed.stream(int(after), console.settings.beat_seconds, lives), ping=_NEVER)
