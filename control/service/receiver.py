"""From the broker to the ledger: an alert is acknowledged when it is on disk, and not before.

Whatever cannot be stored (a full disk) is not acknowledged: the broker keeps it, and it is asked for again. What must
not be believed is refused, counted and said; a unit that is not on the roster waits in quarantine.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from appliance.errors import BluelampError, SealError
from appliance.formats.receipt import read
from appliance.pace import Backoff
from appliance.records import Alert, CourierState, Health
from appliance.storage.files import write_public
from appliance.transport import tls
from appliance.transport.mqtt import BrokerAddress, Received, topic
from appliance.trust.keys import KeyFolder
from control.bounds import unbelievable
from control.ledger.ledger import Ledger
from control.receive.fleet import Fleet
from control.receive.inbox import Opened, Reason, RefusedError, split_topic
from control.receive.quarantine import Quarantine
from control.receive.sorting import Desk, Hearers
from control.receive.subscriber import Subscriber, client_id

SESSION = "room"
_QUIET_SECONDS = 60.0  # one event for a unit and reason in this time: a flood of forgeries must not flood the consoles
_UNIT = re.compile(r"[a-z0-9][a-z0-9-]{0,38}")


@dataclass(frozen=True)
class Books:
    """Where it all goes."""

    ledger: Ledger
    fleet: Fleet
    quarantine: Quarantine
    receipts: Path  # folder of signed deletion receipts, for the base: bluelamp-provision receipts take


class Receiver:
    """Receives for one control room until stopped. `run` is one thread's; the other methods may be called by any."""

    def __init__(self, folder: KeyFolder, broker: BrokerAddress, books: Books, *, say: Callable[[str], None]) -> None:
        self._books, self._say = books, say
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._backoff = Backoff(1.0, 30.0)
        self._said: dict[tuple[str, Reason], float] = {}
        self._stored: Counter[str] = Counter()
        self._heard: set[str] = set()  # units whose messages were opened since the last look at what is missing
        self._desk = Desk(folder, Hearers(self._opened, self._state, self._refused, say))
        self._desk.inbox.restore(books.ledger.chain())
        self._desk.inbox.quarantine.extend(books.quarantine.load())
        self._note_quarantine()
        files = self._desk.tls_files()
        session = client_id(tls.common_name(files), SESSION, files)
        self._subscriber = Subscriber(broker, files, session, self.handle, status=self._status)

    @property
    def keys(self) -> KeyFolder:
        """The control room's keys, with the roster that is in use now."""
        return self._desk.keys

    def run(self) -> None:
        """Receive until `stop`, whatever broker and disk do meanwhile."""
        while not self._stopped.is_set():
            try:
                self._subscriber.run()
            except (BluelampError, OSError) as error:
                self._books.fleet.note_broker(False, str(error))
                self._say(f"not acknowledged, asked for again soon: {error}")
                self._stopped.wait(self._backoff.next())

    def stop(self) -> None:
        """End `run` soon."""
        self._stopped.set()
        self._subscriber.stop()

    def handle(self, message: Received) -> None:
        """Take one message. Raises LedgerError or OSError where it could not be kept."""
        with self._lock:
            self._desk.handle(message)
            self._note_heard()
        self._backoff.reset()

    def look_for_roster(self) -> None:
        """Put a newer roster to use now, also where no message comes."""
        with self._lock:
            if self._desk.renew_roster():
                self._note_quarantine()
                self._note_heard()

    def stored(self) -> Counter[str]:
        """How many alerts were stored since the start, by unit."""
        with self._lock:
            return Counter(self._stored)

    def refused(self) -> Counter[Reason]:
        """How many messages were refused since the start, by reason."""
        with self._lock:
            return Counter(self._desk.inbox.refused)

    def _opened(self, opened: Opened) -> None:
        self._heard.add(opened.header.unit)
        record = opened.record
        if isinstance(record, Alert):
            if self._books.ledger.store(opened, record):
                self._stored[record.unit] += 1
        elif isinstance(record, Health):
            self._books.ledger.health(record)
            if self._books.fleet.note_health(record):
                self._books.ledger.say("unit", record.unit, record.state)
        else:
            self._receipt(opened)

    def _receipt(self, opened: Opened) -> None:
        """A unit's signed word that a deployment is erased. One that is malformed is refused like any message."""
        unit = self._desk.keys.roster.unit(opened.header.unit)
        try:
            receipt = read(opened.content, [unit.signing_key()] if unit else [])
            if (receipt.unit, receipt.deployment) != (opened.header.unit, opened.header.deployment):
                raise SealError("header and receipt name different things")
            if (field := unbelievable(receipt)) is not None:
                raise SealError(f"{field} cannot be")
        except SealError as error:
            self._desk.inbox.refused[Reason.MALFORMED] += 1
            self._refused(topic(opened.header.unit, "receipt"), RefusedError(Reason.MALFORMED, str(error)))
            return
        digest = hashlib.sha256(opened.content).hexdigest()
        self._books.receipts.mkdir(exist_ok=True)
        write_public(self._books.receipts / f"{receipt.deployment}.{receipt.unit}.json", opened.content)
        self._books.ledger.receipt(receipt.deployment, digest, receipt)
        self._say(f"{receipt.unit} erased deployment {receipt.deployment} ({receipt.reason}); its receipt is kept")

    def _state(self, state: CourierState) -> None:
        if self._books.fleet.note_state(state):
            self._books.ledger.say("unit", state.unit, state.state)

    def _refused(self, where: str, refusal: RefusedError) -> None:
        if refusal.reason is Reason.UNKNOWN_UNIT:
            self._note_quarantine()
        unit, now = _unit_of(where), time.monotonic()
        last = self._said.get((unit, refusal.reason))
        if last is None or now - last > _QUIET_SECONDS:
            self._said[unit, refusal.reason] = now
            self._say(f"refused: {refusal}")
            self._books.ledger.say("refused", unit, refusal.reason.value)

    def _status(self, line: str) -> None:
        self._say(line)
        connected = self._subscriber.connected
        if self._books.fleet.note_broker(connected, line):
            self._books.ledger.say("unit", "broker", "connected" if connected else "away")

    def _note_heard(self) -> None:
        while self._heard:
            unit = self._heard.pop()
            missing = self._desk.inbox.missing(unit)
            if self._books.fleet.note_heard(unit, missing):
                self._books.ledger.say("unit", unit, f"{missing} alert(s) missing")

    def _note_quarantine(self) -> None:
        waiting = self._desk.inbox.quarantine
        self._books.quarantine.keep_exactly(waiting)
        self._books.fleet.note_quarantine(Counter(_unit_of(where) for where, _ in waiting))


def _unit_of(where: str) -> str:
    """The unit that a topic names, as it may be shown; anybody with a certificate chooses it freely."""
    try:
        unit, _ = split_topic(where)
    except RefusedError:
        return "unknown"
    return unit if _UNIT.fullmatch(unit) else "unknown"
