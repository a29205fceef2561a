"""The aiming view's page, for one browser on the unit's own screen and nobody else.

V1  it listens on a loopback address only, and answers only who comes from one
V2  it answers only requests for its own name: a page elsewhere whose name was made to point here (DNS rebinding)
    brings that name along and is refused
V3  it answers only its own page: what a browser marks as asked for by another site is refused
V4  the address holds a token that works once; whoever used it first is the one viewer (a cookie of this run)
V5  nothing may be stored (no-store), embedded, or loaded from elsewhere (content security policy)
V6  no access log, no file; pictures are made without faces (blur.py) and kept until the next one
V7  before the first picture the process gives up writing files and making connections (cli.py, sandbox.py)
"""

from __future__ import annotations

import base64
import ipaddress
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from appliance.capture import light as scene
from appliance.errors import ConfigError
from appliance.view.feed import Feed, Sight, ViewError

_PAGE = Path(__file__).parent / "page"
_COOKIE = "bluelamp-view"
_POLL_SECONDS = 2.0  # how long a request waits for a newer picture
_WATCH_SECONDS = 0.2  # how often the reasons to end are asked
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_ELSEWHERE = "this page is for the unit's own screen; open the address that the terminal shows"
_TAKEN = "somebody is looking already; end the command with Ctrl-C and start it again for a new address"


def listen(address: str, port: int) -> socket.socket:
    """V1: a listening socket on a loopback address. Raises ConfigError, ViewError."""
    try:
        loopback = ipaddress.ip_address(address)
    except ValueError as error:
        raise ConfigError(f"{address!r} is not an IP address; use 127.0.0.1 or ::1") from error
    if not loopback.is_loopback:
        raise ConfigError(f"{address}: the view is shown on the unit's own screen only; use 127.0.0.1 or ::1")
    family = socket.AF_INET6 if loopback.version == 6 else socket.AF_INET
    try:
        return socket.create_server((address, port), family=family)
    except OSError as error:
        raise ViewError(f"{address} port {port}: {error.strerror}; choose another --port") from error


class View:
    """The page of one run: a feed, a token, a time to end. `ends` is a steady second."""

    def __init__(self, feed: Feed, listener: socket.socket, ends: float) -> None:
        self._feed, self._listener, self._ends = feed, listener, ends
        host, port = listener.getsockname()[:2]
        self._name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._token: str | None = secrets.token_urlsafe(24)
        self._viewer = secrets.token_urlsafe(24)
        self._claim = threading.Lock()
        self._newest_visit = 0
        routes = [Route("/", self._index), Route("/sight", self._sight), Route("/{file}", self._file)]
        self.app = _Guard(Starlette(routes=routes), self._name)

    @property
    def address(self) -> str:
        """What to open, once."""
        return f"http://{self._name}/?token={self._token or 'used'}"

    def serve(self, reason: Callable[[], str | None]) -> str:
        """Answer until `reason` gives one, the time is over or Ctrl-C; returns why."""
        config = uvicorn.Config(self.app, log_level="critical", access_log=False, lifespan="off", server_header=False,
                                timeout_graceful_shutdown=3)  # fmt: skip
        server, ended = uvicorn.Server(config), ["ended"]

        def watch() -> None:
            while not server.should_exit:
                why = "the time is over" if time.monotonic() >= self._ends else reason()
                if why is not None:
                    ended[0], server.should_exit = why, True
                time.sleep(_WATCH_SECONDS)

        threading.Thread(target=watch, name="view-watch", daemon=True).start()
        try:
            server.run(sockets=[self._listener])
        except KeyboardInterrupt:
            ended[0] = "ended by the field team"
        return ended[0]

    async def _index(self, request: Request) -> Response:
        token = request.query_params.get("token")
        if token is not None:
            return self._claimed(token)
        return FileResponse(_PAGE / "view.html") if self._knows(request) else _refused(_ELSEWHERE)

    def _claimed(self, token: str) -> Response:
        """V4: the token is worth something once."""
        with self._claim:
            if self._token is None:
                return _refused(_TAKEN)
            if not secrets.compare_digest(token, self._token):
                return _refused(_ELSEWHERE)
            self._token = None
        answer = RedirectResponse("/", 303)
        answer.set_cookie(_COOKIE, self._viewer, httponly=True, samesite="strict")
        return answer

    def _knows(self, request: Request) -> bool:
        return secrets.compare_digest(request.cookies.get(_COOKIE, ""), self._viewer)

    async def _file(self, request: Request) -> Response:
        name = request.path_params["file"]
        if name not in ("view.js", "view.css"):
            return _refused("there is nothing here", 404)
        return FileResponse(_PAGE / name) if self._knows(request) else _refused(_ELSEWHERE)

    async def _sight(self, request: Request) -> Response:
        """The newest picture after `after`; the page opened last (`visit`) is the one that is served."""
        if not self._knows(request):
            return _refused(_ELSEWHERE)
        asked = request.query_params
        try:
            visit, after = int(asked.get("visit", "")), int(asked.get("after", ""))
        except ValueError:
            return _refused("malformed", 400)
        self._newest_visit = max(self._newest_visit, visit)
        if visit < self._newest_visit:
            return _refused("this is shown in another tab now", 409)
        camera = asked.get("camera", "")
        camera = camera if camera in self._feed.cameras else self._feed.cameras[0]
        sight = await run_in_threadpool(self._feed.wait, camera, after, _POLL_SECONDS)
        left = max(0, round(self._ends - time.monotonic()))
        state = {"camera": camera, "cameras": self._feed.cameras, "left": left}
        return JSONResponse(state if sight is None else {**state, **_shown(sight, self._feed)})


def _shown(sight: Sight, feed: Feed) -> dict[str, Any]:
    wanted = feed.wanted
    return {
        "number": sight.number,
        "picture": base64.b64encode(sight.jpeg).decode(),
        "size": sight.size,
        "spots": [asdict(spot) for spot in sight.spots],
        "share": asdict(sight.share),
        "wanted": asdict(wanted),
        "scene": {**asdict(sight.scene), "softest": scene.softest(wanted.width)},
        "good": sight.verdict.good,
        "advice": sight.verdict.lines,
    }


def _refused(text: str, status: int = 403) -> Response:
    return PlainTextResponse(text + "\n", status)


class _Guard:
    """V1, V2, V3 before anything is looked at, and V5 on every answer."""

    def __init__(self, app: Any, name: str) -> None:
        self._app, self._names = app, {name.encode(), name.replace("127.0.0.1", "localhost").encode()}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                own = [(k.lower().encode(), v.encode()) for k, v in _HEADERS.items()]
                names = {name for name, _ in own}
                message["headers"] = [h for h in message["headers"] if h[0].lower() not in names] + own
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await _refused(refusal)(scope, receive, send_guarded)
            return
        await self._app(scope, receive, send_guarded)

    def _refusal(self, scope: Any) -> str | None:
        headers = dict(scope.get("headers", []))
        peer = scope.get("client") or ("",)
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            return "only looking is possible here"
        if not _is_loopback(peer[0]) or headers.get(b"host", b"").lower() not in self._names:
            return _ELSEWHERE
        # A browser says who asks; programs that are not browsers say nothing and have no cookie to misuse.
        return None if headers.get(b"sec-fetch-site", b"none") in (b"none", b"same-origin") else _ELSEWHERE


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
