"""What the ledger is built on: the store, the bell, and what it holds of deployments."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from appliance.formats.order import Order
from appliance.formats.receipt import Receipt
from appliance.records import Health
from control.cases.adjudication import LedgerError
from control.ledger import case_rows, deployment_rows
from control.ledger.event_queue import Bell, Listener
from control.ledger.keyed_file import Strongroom
from control.ledger.vault import DataKey
from control.records import Deployment, Event, ReferencePicture

_AT_ONCE = 100  # references written in one transaction: about 2 MB
Result = TypeVar("Result")


class LedgerBase:
    """The store, open: see Ledger."""

    def __init__(self, store: Path, *, ttl: float = 600.0, clock: Callable[[], float] = time.time) -> None:
        self._ttl, self._clock = ttl, clock
        self._room = Strongroom(store)
        self._file = self._room.file
        self._bell = Bell(self._file, clock)
        self._putting = threading.Lock()

    def close(self) -> None:
        """Close the store; another process may open it then."""
        self._room.close()

    def add_deployment(self, order: Order, digest: str) -> Deployment:
        """Take in an order, once; alerts that came before it are under it from now on.

        `digest` is its document's SHA-256. Raises LedgerError where another order has its name.
        """

        def work(db: sqlite3.Connection) -> None:
            if any(known.digest != digest for known in deployment_rows.deployments(db, order.deployment)):
                raise LedgerError(f"{order.deployment}: another order of this name is here; one name, one order")
            if not deployment_rows.deployments(db, order.deployment):
                deployment_rows.add(db, order, digest, self._clock())
                case_rows.apply_order(db, order)
                self._bell.write(db, "deployment", order.deployment, "order")

        self._write(work)
        return self._deployment(order.deployment)

    def deployments(self) -> list[Deployment]:
        """All deployments, the newest first."""
        return self._file.read(deployment_rows.deployments)

    def deployment(self, name: str) -> Deployment | None:
        """One deployment, or None."""
        return next(iter(self._file.read(lambda db: deployment_rows.deployments(db, name))), None)

    def put_references(self, deployment: str, pictures: Iterable[ReferencePicture]) -> int:
        """Keep this set of references, the whole of it, until its order is over; an older set is erased.

        Returns how many are here now. Raises LedgerError.
        """
        self._deployment(deployment)
        count, source = 0, iter(pictures)
        with self._putting:
            key = self._write(partial(self._new_set, deployment=deployment))
            while batch := list(islice(source, _AT_ONCE)):
                self._write(partial(deployment_rows.put_pictures, deployment=deployment, key=key, pictures=batch))
                count += len(batch)
            self._room.erase(partial(deployment_rows.use_pictures, deployment=deployment, record=key.record))
        self.say("deployment", deployment, f"{count} references")
        return count

    def reference(self, deployment: str, identifier: str) -> ReferencePicture | None:
        """A reference of a deployment; None where it was deleted or never here."""
        return self._file.read(lambda db: self._reference(db, deployment, identifier))

    def receipt(self, deployment: str, digest: str, receipt: Receipt | None = None) -> None:
        """Note a unit's receipt of deletion, once; with its content, the report quotes it."""

        def work(db: sqlite3.Connection) -> None:
            if deployment_rows.add_receipt(db, deployment, digest, receipt, self._clock()):
                self._bell.write(db, "deployment", deployment, "receipt")

        self._write(work)

    def health(self, health: Health) -> None:
        """Keep a unit's newest counts for the report."""
        self._write(lambda db: deployment_rows.put_health(db, health))

    def events(self, after: int, limit: int = 500) -> list[Event]:
        """Events later than a sequence number, oldest first; they are kept two days."""
        return self._bell.after(after, limit)

    def newest(self) -> int:
        """The last sequence number given."""
        return self._bell.newest()

    def listen(self, callback: Listener) -> Callable[[], None]:
        """Call back after each event is on disk, from the acting thread; the returned function ends it."""
        return self._bell.listen(callback)

    def say(self, kind: str, subject: str, detail: str = "") -> Event:
        """Tell the consoles something of a unit, a refusal or a deployment."""
        number = self._write(lambda db: self._bell.write(db, kind, subject, detail))
        return self._bell.after(number - 1, 1)[0]

    def _write(self, work: Callable[[sqlite3.Connection], Result], *, needed: bool = True) -> Result:
        result = self._file.write(work, needed=needed)
        self._bell.ring()
        return result

    def _new_set(self, db: sqlite3.Connection, deployment: str) -> DataKey:
        if deployment_rows.references_erased(db, deployment):
            raise LedgerError(f"{deployment} is over and its references were erased; they are not taken in again")
        return self._room.new_key(db, deployment_rows.new_record(deployment))

    def _reference(self, db: sqlite3.Connection, deployment: str, identifier: str) -> ReferencePicture | None:
        record = deployment_rows.record_in_use(db, deployment)
        key = None if record is None else self._room.key(db, record)
        return None if key is None else deployment_rows.picture(db, key, identifier)

    def _deployment(self, name: str) -> Deployment:
        found = self.deployment(name)
        if found is None:
            raise LedgerError(f"{name[:64]}: its order is not here; bring the signed order first", "unknown")
        return found
