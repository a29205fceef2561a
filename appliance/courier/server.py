"""The courier process: takes sealed containers from vision, keeps them on disk, forwards them over MQTT.

It holds the network and nothing that opens anything: of a container it reads the public header. Start it with
`python -m appliance.courier --config courier.json`, with `spawn`, or from the unit's command line.
"""

from __future__ import annotations

import argparse
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from pydantic import ValidationError

from appliance.command_line import complain
from appliance.courier.bounds import out_of_bounds
from appliance.courier.forward import Forwarder
from appliance.courier.outbox import Outbox, OutboxError
from appliance.courier.settings import CourierSettings
from appliance.errors import BluelampError, ConfigError, CourierError, SealError
from appliance.limits import LIMITS
from appliance.sockets import link
from appliance.sockets.link import Greeting, Hello, Reply
from appliance.sockets.listen import Gate
from appliance.transport import tls
from appliance.trust import seal

_CONNECTIONS = 4  # vision has one; a restarted one may overlap with its predecessor
_IDLE_SECONDS = 3600.0


class Server:
    """The courier's end of the local socket."""

    def __init__(
        self, settings: CourierSettings, outbox: Outbox, forwarder: Forwarder, say: Callable[[str], None]
    ) -> None:
        self._settings, self._outbox, self._forwarder, self._say = settings, outbox, forwarder, say
        self._allowed = {os.getuid(), *settings.vision_uids}
        self._lock = threading.Lock()
        self._streams: set[socket.socket] = set()
        self._gate = Gate(settings.socket, settings.socket_mode)

    def run(self) -> None:
        """Accept until `stop`."""
        while (stream := self._gate.accept()) is not None:
            threading.Thread(target=self._talk, args=(stream,), name="vision", daemon=True).start()

    def stop(self) -> None:
        """Accept no more, hang up, remove the socket."""
        self._gate.close()
        with self._lock:
            for stream in self._streams:
                with suppress(OSError):  # it may have hung up by itself
                    stream.shutdown(socket.SHUT_RDWR)

    def _talk(self, stream: socket.socket) -> None:
        try:
            with stream:
                self._admit(stream)
                self._serve(stream)
        except (OSError, CourierError) as error:
            self._say(f"local socket: {error}")
        finally:
            with self._lock:
                self._streams.discard(stream)
                self._forwarder.vision_connected = bool(self._streams)
            self._forwarder.wake()

    def _admit(self, stream: socket.socket) -> None:
        uid = link.peer_uid(stream)
        if uid not in self._allowed:
            raise CourierError(f"refused a process of user {uid}; only {sorted(self._allowed)} may connect")
        stream.settimeout(_IDLE_SECONDS)
        with self._lock:
            if len(self._streams) >= _CONNECTIONS:
                raise CourierError(f"refused a connection: there are {_CONNECTIONS} already")
            self._streams.add(stream)

    def _serve(self, stream: socket.socket) -> None:
        hello = link.read_record(stream, Hello)
        point = self._outbox.chain(hello.deployment)
        queued = self._forwarder.waiting()
        greeting = Greeting(queued=queued, broker=self._forwarder.connected)
        if point is not None:
            place = {"chain": point.chain, "sequence": point.sequence, "previous": point.previous}
            greeting = greeting.model_copy(update=place)
        link.write_record(stream, greeting)
        if hello.deployment == link.ASKING:
            return
        self._forwarder.vision_connected = True
        while (container := link.read_frame(stream, LIMITS.envelope_bytes)) is not None:
            reply = self._take(container)
            link.write_record(stream, reply)
            if reply.refused:
                raise CourierError(reply.error)

    def _take(self, container: bytes) -> Reply:
        """Store one container, or say why not."""
        try:
            header = seal.take_apart(container, LIMITS.envelope_bytes).header
        except SealError as error:
            return Reply(id="", refused=True, error=f"not a sealed container: {error}"[:600])
        if header.unit != self._settings.unit or header.kind not in ("alert", "health", "receipt"):
            text = (
                f"{header.kind} of unit {header.unit}; this courier carries alerts and reports of {self._settings.unit}"
            )
            return Reply(id=header.id, refused=True, error=text)
        if (fault := out_of_bounds(header)) is not None:
            return Reply(id=header.id, refused=True, error=f"header out of bounds: {fault}"[:600])
        try:
            if header.kind == "health":
                self._forwarder.health(header, container)
                return Reply(id=header.id, queued=self._forwarder.waiting())
            self._outbox.put(container, header)
            self._forwarder.wake()
            return Reply(id=header.id, stored=True, queued=self._forwarder.waiting())
        except (OutboxError, CourierError) as error:
            return Reply(id=header.id, error=str(error)[:600])


def run_courier(
    settings: CourierSettings, *, stop: threading.Event | None = None, say: Callable[[str], None] | None = None
) -> None:
    """Run until `stop` is set, then flush for at most `flush_seconds`. Raises BluelampError where it cannot start."""
    say = say or logging.getLogger("bluelamp.courier").warning
    stop = stop or threading.Event()
    _check(settings)
    outbox = Outbox(settings.outbox, rows=settings.outbox_rows, say=say)
    forwarder = Forwarder(
        outbox,
        settings.unit,
        settings.broker,
        settings.tls,
        software_version(),
        say=say,
        settle=settings.settle_seconds,
        recall=settings.recall,
    )
    server = Server(settings, outbox, forwarder, say)
    threads = [
        threading.Thread(target=work, name=name) for name, work in (("server", server.run), ("forward", forwarder.run))
    ]
    for thread in threads:
        thread.start()
    try:
        while not stop.wait(0.5):
            if not all(thread.is_alive() for thread in threads):
                raise CourierError("a part of the courier ended by itself; restart it and report what the log says")
    finally:
        server.stop()
        forwarder.stop(settings.flush_seconds)
        for thread in threads:
            thread.join(settings.flush_seconds + 15.0)
        outbox.close()


def _check(settings: CourierSettings) -> None:
    """What can be found wrong before anything starts."""
    tls.tls_context(settings.tls)
    name = tls.common_name(settings.tls)
    if name != settings.unit:
        raise ConfigError(
            f"{settings.tls.certificate}: issued to {name!r}, but this unit is {settings.unit!r}; the broker would "
            "refuse its alerts: correct the unit's name or use its own certificate"
        )


def software_version() -> str:
    """The installed version of this software."""
    try:
        return metadata.version("bluelamp")
    except metadata.PackageNotFoundError:
        return "source"


def spawn(settings: CourierSettings) -> subprocess.Popen[bytes]:
    """The courier as a child process, for a developer's machine.

    Its standard input carries the settings and stays open: when it closes, because we closed it or because we died, the
    courier flushes and ends. `terminate()` does the same.
    """
    command = [sys.executable, "-m", "appliance.courier", "--config", "-"]
    # A session of its own: Ctrl-C reaches us alone, and the courier still takes what we send while we stop.
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    assert process.stdin is not None
    process.stdin.write(settings.model_dump_json().encode() + b"\n")
    process.stdin.flush()
    return process


def _watch_parent(stop: threading.Event) -> None:
    """Stop when the parent's end of our standard input closes."""
    poll = select.poll()
    poll.register(0, select.POLLIN | select.POLLHUP)
    while not stop.is_set():
        if poll.poll(500) and os.read(0, 4096) == b"":
            stop.set()


def _settings(text: str) -> CourierSettings:
    try:
        return CourierSettings.model_validate_json(text)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise ConfigError(f"courier settings: {where}: {error.errors()[0]['msg']}") from error


def main(arguments: list[str] | None = None) -> int:
    """`python -m appliance.courier`: 0 after a clean stop, else the failure's exit code."""
    parser = argparse.ArgumentParser(prog="python -m appliance.courier", description=__doc__)
    parser.add_argument("--config", required=True, help="JSON file with CourierSettings, or - for one line on stdin")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="courier: %(message)s", stream=sys.stderr)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        if chosen.config == "-":
            settings = _settings(sys.stdin.readline())
            threading.Thread(target=_watch_parent, args=(stop,), daemon=True).start()
        else:
            settings = _settings(Path(chosen.config).read_text())
        run_courier(settings, stop=stop)
    except OSError as error:
        complain(f"courier: {error}")
        return CourierError.exit_code
    except BluelampError as error:
        complain(f"courier: {error}")
        return error.exit_code
    return 0
