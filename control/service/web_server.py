"""The console's web server: an address that may be listened on, its certificate, and uvicorn in a thread of its own."""

from __future__ import annotations

import ssl
import time
from collections.abc import Sequence
from pathlib import Path

import uvicorn
from cryptography import x509
from starlette.applications import Starlette

from appliance.errors import ConfigError, KeyFileError
from appliance.limits import LIMITS
from appliance.storage.files import read_bounded
from appliance.trust import keys
from control.listen import Listen
from control.web.settings import WebSettings

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_START_SECONDS = 15.0
_CONNECTIONS = 500  # open ones and requests at once; more are told to come again
_STREAMS_SECONDS = 3  # for browsers to leave at the end


class Site:
    """The console at its address. `bind` before anything else is started, `start` last."""

    def __init__(self, listen: Listen, tls: Path | None, hosts: Sequence[str] = ()) -> None:
        """Raises ConfigError where others could read what goes over the wire, KeyFileError where TLS files are missing.

        `hosts` are further names that the console answers to.
        """
        if tls is None and not listen.is_loopback():
            raise ConfigError(f"{listen} is not a loopback address, and faces would travel unencrypted: give --tls "
                              "FOLDER, as 'bluelamp-provision keys broker --host NAME' makes it")  # fmt: skip
        self._listen, self._tls = listen, tls
        named = _names(tls / "server.crt") if tls is not None else []
        if tls is not None:
            keys.read_private(tls / "server.key")
        self._name = named[0] if named else listen.host
        hosts = tuple(dict.fromkeys([*named, *hosts, *_LOOPBACK]))
        self.settings = WebSettings(hosts=hosts, secure=tls is not None)
        self._socket = listen.bind()
        self._server: uvicorn.Server | None = None
        self._app: Starlette | None = None

    @property
    def address(self) -> str:
        """Where browsers find it."""
        host = f"[{self._name}]" if ":" in self._name else self._name
        return f"{'https' if self._tls else 'http'}://{host}:{self._socket.getsockname()[1]}"

    def run(self, app: Starlette) -> None:
        """Serve until `stop`. Blocks."""
        certificate, key = (self._tls / "server.crt", self._tls / "server.key") if self._tls else (None, None)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, lifespan="off", proxy_headers=False,
            ws="none", limit_concurrency=_CONNECTIONS, timeout_graceful_shutdown=_STREAMS_SECONDS,
            ssl_certfile=certificate, ssl_keyfile=key,
        )  # fmt: skip
        config.load()
        if config.ssl is not None:
            config.ssl.minimum_version = ssl.TLSVersion.TLSv1_3
        self._app, self._server = app, uvicorn.Server(config)
        self._server.run(sockets=[self._socket])

    def wait_started(self) -> bool:
        """Whether it answers; waits a little for it."""
        deadline = time.monotonic() + _START_SECONDS
        while self._server is None or not self._server.started:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def stop(self) -> None:
        """End the streams, then `run`."""
        if self._app is not None:
            self._app.state.feed.close()
        if self._server is not None:
            self._server.should_exit = True

    def close(self) -> None:
        """Let go of the address, also where it was never served."""
        self._socket.close()


def _names(certificate: Path) -> list[str]:
    """The names and addresses a certificate is for."""
    try:
        parsed = x509.load_pem_x509_certificate(read_bounded(certificate, LIMITS.config_bytes))
        found = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound) as error:
        raise KeyFileError(f"{certificate}: no certificate of a server ({error}); make it at the base: "
                           "bluelamp-provision keys broker --host NAME")  from error  # fmt: skip
    return [str(name.value) for name in found if isinstance(name, (x509.DNSName, x509.IPAddress))]
