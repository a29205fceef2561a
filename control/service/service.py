"""The control room's service: one process that receives, keeps, shows and forgets.

`Service.run` is the whole of it: one list of what is opened and one of what is started, in order, ended in reverse.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

from appliance.errors import BluelampError, ConfigError
from appliance.transport.mqtt import BrokerAddress
from appliance.trust import keys
from control.deployments import dossiers
from control.deployments.decoys import Decoys, Rate
from control.deployments.dossiers import Pool
from control.ledger import retention
from control.ledger.ledger import Ledger
from control.listen import Listen
from control.outside.bridge import Bridge
from control.outside.metrics import Metrics
from control.people.people import People
from control.receive.fleet import Fleet
from control.receive.quarantine import Quarantine
from control.room import Room
from control.service.receiver import Books, Receiver
from control.service.web_server import Site
from control.web.app import make_app

_TICK_SECONDS = 1.0
_POOL_SECONDS = 600.0
Say = Callable[[str], None]


class ServiceError(BluelampError):
    """A part of the service ended by itself."""


@dataclass(frozen=True)
class ServiceSettings:
    """What `serve` was told. `ttl`: seconds an alert may be acted on. `hosts`: further names of the console."""

    keys: Path
    broker: BrokerAddress
    store: Path
    listen: Listen
    tls: Path | None = None
    ttl: float = 600.0
    decoys: Rate = field(default_factory=Rate)
    metrics: Listen | None = None
    bridge: Listen | None = None  # another broker, for other systems
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Opened:
    """What is open, in the order of opening."""

    site: Site
    room: Room
    receiver: Receiver
    decoys: Decoys
    pools: _Pools


class Service:
    """One control room. `run` blocks until `stop`, or until a part of it fails."""

    def __init__(self, settings: ServiceSettings, say: Say) -> None:
        self._settings, self._say = settings, say
        self._ended = threading.Event()
        self._failure: BaseException | None = None
        self.address = ""  # of the console, once it answers

    def stop(self) -> None:
        """End `run`; any thread, or a signal's handler, may call this."""
        self._ended.set()

    def run(self, ready: Callable[[Room], None] = lambda room: None) -> None:
        """Serve. `ready` is called once the console answers. Raises BluelampError where something cannot be opened."""
        with ExitStack() as stack:
            opened = self._open(stack)
            self._start(stack, opened)
            self._welcome(opened)
            ready(opened.room)
            self._ended.wait()
            self._say("stopping: the console, then what arrives, then the ledger")
        if self._failure is not None:
            if isinstance(self._failure, BluelampError):
                raise self._failure
            raise ServiceError(f"ended by a fault of its own: {self._failure!r}") from self._failure

    def _open(self, stack: ExitStack) -> _Opened:
        """Everything that has a file or an address, before anything runs."""
        chosen = self._settings
        folder = keys.load(chosen.keys)
        if folder.identity.role != "control":
            raise ConfigError(f"{chosen.keys}: holds the keys of a {folder.identity.role}, not of a control room")
        site = stack.enter_context(closing(Site(chosen.listen, chosen.tls, chosen.hosts)))
        ledger = stack.enter_context(closing(Ledger(chosen.store, ttl=chosen.ttl)))
        people = stack.enter_context(closing(People(chosen.store)))
        fleet = Fleet()
        books = Books(ledger, fleet, Quarantine(chosen.store / "quarantine"), chosen.store / "receipts")
        receiver = Receiver(folder, chosen.broker, books, say=self._say)
        pools = _Pools(folder, chosen.store)
        decoys = Decoys(ledger, fleet, pools.now, chosen.decoys, chosen.ttl, time.time)
        room = Room(
            folder.identity.name, ledger, people, fleet, chosen.store, folder.signer, chosen.ttl,
            chosen.decoys.per_hour,
        )  # fmt: skip
        return _Opened(site, room, receiver, decoys, pools)

    def _start(self, stack: ExitStack, opened: _Opened) -> None:
        """Everything that runs, in order; the stack ends it in reverse."""
        keeper = _Keeper(opened, self._settings, self._say)
        self._thread(stack, "receiver", opened.receiver.run, opened.receiver.stop)
        self._thread(stack, "keeper", keeper.run, keeper.stop)
        if self._settings.metrics is not None:
            metrics = stack.enter_context(closing(Metrics(opened.room.ledger, opened.receiver, opened.room.fleet)))
            metrics.serve(self._settings.metrics)
        if self._settings.bridge is not None:
            bridge = Bridge(opened.room, self._settings.bridge)
            self._thread(stack, "bridge", bridge.run, bridge.stop)
        app = make_app(opened.room, opened.site.settings)
        self._thread(stack, "console", lambda: opened.site.run(app), opened.site.stop)

    def _thread(self, stack: ExitStack, name: str, run: Callable[[], None], stop: Callable[[], None]) -> None:
        """A part that runs until it is stopped; where it fails, the whole ends and says so."""

        def guarded() -> None:
            try:
                run()
            except BaseException as error:  # noqa: BLE001 - raised again by run
                self._failure = error
            finally:
                self._ended.set()

        thread = threading.Thread(target=guarded, name=name)
        thread.start()
        stack.callback(thread.join, 20)
        stack.callback(stop)

    def _welcome(self, opened: _Opened) -> None:
        if not opened.site.wait_started() and self._failure is None:
            raise ServiceError(f"the console does not answer at {opened.site.address}; is the machine overloaded?")
        self.address = opened.site.address
        self._say(f"console: {opened.site.address}")
        token = opened.room.people.setup_token()
        if token is not None:
            self._say(f"nobody has an account yet: open {self.address}/welcome and type this one-time token: {token}")


class _Pools:
    """The decoy pairs of running deployments, read now and then, and at once after a dossier came."""

    def __init__(self, folder: keys.KeyFolder, store: Path) -> None:
        self._folder, self._store = folder, store
        self._found: list[Pool] = []
        self._read = float("-inf")

    def now(self) -> list[Pool]:
        """All pools; what is over is removed. Raises DossierError."""
        if time.monotonic() - self._read > _POOL_SECONDS:
            self._found = dossiers.pools(self._folder, self._store, time.time())
            self._read = time.monotonic()
        return self._found

    def forget(self) -> None:
        """Read them again when next asked."""
        self._read = float("-inf")


class _Keeper:
    """What must be done every second: withdraw, erase, take in, show a decoy, look for a roster."""

    def __init__(self, opened: _Opened, settings: ServiceSettings, say: Say) -> None:
        self._opened, self._settings, self._say = opened, settings, say
        self._stopped = threading.Event()
        self._said: dict[str, str] = {}
        room = opened.room
        self._log = room.audit(room.name)
        self._duties: tuple[tuple[str, Callable[[], object]], ...] = (
            ("withdraw stale alerts", room.ledger.tick),
            ("erase what is over", lambda: retention.purge(room.ledger, self._log, time.time())),
            ("look for a newer roster", opened.receiver.look_for_roster),
            ("take in deployments", self._arrivals),
            ("look after decoys", opened.pools.now),
            ("show decoys", opened.decoys.step),
        )

    def run(self) -> None:
        """Do all of it until `stop`. What fails is said once, and tried again."""
        while not self._stopped.wait(_TICK_SECONDS):
            for name, duty in self._duties:
                try:
                    duty()
                    self._said.pop(name, None)
                except (BluelampError, OSError) as error:
                    if self._said.get(name) != str(error):
                        self._said[name] = str(error)
                        self._say(f"cannot {name}: {error}")

    def stop(self) -> None:
        """End `run`."""
        self._stopped.set()

    def _arrivals(self) -> None:
        store = self._settings.store
        if not dossiers.has_arrivals(store):
            return
        folder = self._opened.receiver.keys
        for result in dossiers.take_arrivals(self._opened.room.ledger, folder, store, self._log):
            if isinstance(result, str):
                self._say(f"deployment refused: {result}")
            else:
                self._say(f"deployment {result.order.deployment}: {result.references} pictures of references are here")
        self._opened.pools.forget()
