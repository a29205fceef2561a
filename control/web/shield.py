"""What holds for every answer, whoever asks: the host's name, the size of a body, the headers.

Plain ASGI, outermost: nothing, not even an error page or a static file, leaves without these headers.

The content security policy allows this host's own scripts, styles, pictures, fonts and connections, and nothing else;
nothing inline, no frames, and no string becomes markup (Trusted Types): a note that holds a script stays a note.
"""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from control.web.settings import WebSettings

POLICY = "; ".join(
    (
        "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'", "font-src 'self'",
        "connect-src 'self'", "manifest-src 'self'", "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'",
        "require-trusted-types-for 'script'", "trusted-types 'none'",
    )
)  # fmt: skip
_PERMISSIONS = (
    "accelerometer", "browsing-topics", "camera", "display-capture", "encrypted-media", "fullscreen",
    "geolocation", "gyroscope", "hid", "idle-detection", "local-fonts", "magnetometer", "microphone", "midi",
    "payment", "publickey-credentials-get", "screen-wake-lock", "serial", "usb", "xr-spatial-tracking",
)  # fmt: skip
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Origin-Agent-Cluster": "?1",
    "Permissions-Policy": ", ".join(f"{name}=()" for name in _PERMISSIONS),
    "X-Robots-Tag": "noindex, nofollow, noarchive",
}
_TWO_YEARS = "max-age=63072000"


class Shield:
    """Wraps the whole console."""

    def __init__(self, app: ASGIApp, settings: WebSettings) -> None:
        self._app, self._settings = app, settings
        self._headers = dict(HEADERS)
        if settings.secure:
            self._headers["Strict-Transport-Security"] = _TWO_YEARS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._dress(scope["path"], MutableHeaders(scope=message))
            await send(message)

        refusal = self._refusal(Headers(scope=scope))
        await (refusal or self._app)(scope, receive, dressed)

    def _refusal(self, headers: Headers) -> PlainTextResponse | None:
        if _name(headers.get("host", "")) not in self._settings.hosts:
            return PlainTextResponse(
                "This console does not answer to that name. Open it under the name its operator gave "
                "(bluelamp-control serve --host).\n", 421,
            )  # fmt: skip
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length) > self._settings.body_bytes:
            return PlainTextResponse(f"Too much at once: at most {self._settings.body_bytes} bytes.\n", 413)
        if "transfer-encoding" in headers:  # a body says its length here; no form of ours is sent in chunks
            return PlainTextResponse("Send the length of the body.\n", 411)
        return None

    def _dress(self, path: str, headers: MutableHeaders) -> None:
        for name, value in self._headers.items():
            headers[name] = value
        # What shows a face or a name is never kept by a browser; our own styles and scripts are asked for again.
        headers["Cache-Control"] = "no-cache" if path.startswith("/static/") else "no-store"


def _name(host: str) -> str:
    """The host's name without port and brackets."""
    name, _, port = host.rpartition(":")
    return (name if name and port.isdigit() else host).strip("[]").lower()
