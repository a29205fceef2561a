"""From bytes that arrived to a record that may be believed. No socket, no file, no clock of its own.

Steps, in this order; each refuses with its own reason, and nothing is opened before its sender is verified:
 1 the topic is one of ours and says which unit and kind
 2 size and structure                               (seal.take_apart)
 3 not these very bytes before
 4 header and topic name the same unit and kind
 5 the unit is on the roster                        (else quarantined: its admission may only be late)
 6 signed by that unit's key                        (seal.verify)
 7 sealed to one of our keys, and opens             (seal.open_sealed)
 8 a record of its kind whose numbers can be, and it agrees with the header
 9 not expired
10 its place in its unit's chain: remarked, only a repeat is refused (chain.py)
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

from pydantic import ValidationError
from securesystemslib.signer import Key

from appliance.errors import BluelampError, SealError
from appliance.limits import LIMITS
from appliance.records import Alert, CourierState, Header, Health, Record
from appliance.transport.mqtt import ROOT
from appliance.trust import seal
from appliance.trust.keys import KeyFolder, Roster
from control.bounds import unbelievable
from control.receive.chain import ChainBook, Fit, Link, Placement

CLOCK_SLACK = 300.0  # seconds a unit's clock may differ from ours
_DIGESTS = 50_000
_KINDS = ("alert", "health", "receipt")
_NAME = re.compile(r"[0-9A-Za-z-]{1,64}")


class Reason(str, Enum):
    """Why something was not shown."""

    TOPIC = "topic is not ours"
    STRUCTURE = "not a sealed container"
    DUPLICATE = "duplicate"
    DISAGREES = "header, topic and content disagree"
    UNKNOWN_UNIT = "unit is not on the roster"
    SIGNATURE = "signature does not verify"
    NOT_OURS = "not sealed to this control room, or altered"
    MALFORMED = "content is malformed"
    EXPIRED = "expired"
    REPLAYED = "replayed"


class RefusedError(BluelampError):
    """A message that must not be believed; `reason` says which step refused it."""

    exit_code = 9

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason


@dataclass(frozen=True)
class Opened:
    """A message that passed every step. `digest` is its container's SHA-256; `content` is a receipt's plaintext."""

    header: Header
    record: Alert | Health | None
    content: bytes
    digest: str
    placement: Placement | None
    notes: tuple[str, ...]
    received: float

    @property
    def alert(self) -> Alert | None:
        """The alert, where it is one."""
        return self.record if isinstance(self.record, Alert) else None


class Inbox:
    """Verifies what arrives for one control room and counts what it refuses. Not thread-safe."""

    def __init__(self, keys: KeyFolder) -> None:
        self._keys = keys
        self._unit_keys: dict[str, Key] = {}
        self._book = ChainBook()
        self._digests: OrderedDict[str, None] = OrderedDict()
        self._reported: dict[str, float] = {}  # unit -> creation of its newest health report
        self.refused: Counter[Reason] = Counter()
        self.quarantine: deque[tuple[str, bytes]] = deque(maxlen=LIMITS.quarantine_messages)

    def receive(self, topic: str, payload: bytes, now: float) -> Opened:
        """Verify and open a message at `now` (UTC seconds); `accept` remembers it. Raises RefusedError, counted."""
        try:
            return self._receive(topic, payload, now)
        except RefusedError as refusal:
            self.refused[refusal.reason] += 1
            if refusal.reason is Reason.UNKNOWN_UNIT:
                self._quarantine(topic, payload)
            raise

    def _quarantine(self, topic: str, payload: bytes) -> None:
        """Let a message wait for its unit's admission; where there is no room, the oldest goes."""
        self.quarantine.append((topic, payload))
        held = sum(len(waiting) for _, waiting in self.quarantine)
        while held > LIMITS.quarantine_bytes:
            held -= len(self.quarantine.popleft()[1])

    def restore(self, links: Iterable[Link]) -> None:
        """Remember the alerts that were stored before this process began, in the order in which they came."""
        for link in links:
            self._remember(link.digest)
            self._book.restore([link])

    def accept(self, opened: Opened) -> None:
        """The message is shown or stored: from now on it is a duplicate."""
        self._remember(opened.digest)
        if isinstance(opened.record, Alert):
            self._book.accept(opened.record, opened.digest)
        if isinstance(opened.record, Health):
            self._reported[opened.header.unit] = opened.header.created

    def state(self, topic: str, payload: bytes) -> CourierState:
        """A courier's unsigned state. Raises RefusedError."""
        try:
            unit, kind = split_topic(topic)
            if kind != "state" or len(payload) > LIMITS.header_bytes:
                raise RefusedError(Reason.TOPIC, f"{kind} where a state was expected")
            state = CourierState.model_validate_json(payload)
            if state.unit != unit:
                raise RefusedError(Reason.DISAGREES, f"state of {state.unit} on the topic of {unit}")
            if self._keys.roster.unit(unit) is None:
                raise RefusedError(Reason.UNKNOWN_UNIT, unit)
            if (field := unbelievable(state)) is not None:
                raise RefusedError(Reason.MALFORMED, f"state of {unit}: {field} cannot be")
            return state
        except ValidationError as error:
            self.refused[Reason.MALFORMED] += 1
            raise RefusedError(Reason.MALFORMED, f"state of {topic}") from error
        except RefusedError as refusal:
            self.refused[refusal.reason] += 1
            raise

    def use_roster(self, roster: Roster) -> list[tuple[str, bytes]]:
        """Trust another roster from now on; the result are the quarantined messages, to be received once more."""
        self._keys = replace(self._keys, roster=roster)
        self._unit_keys.clear()
        waiting = list(self.quarantine)
        self.quarantine.clear()
        return waiting

    def missing(self, unit: str | None = None) -> int:
        """How many alerts the chains show to be missing: of one unit, or of all."""
        return self._book.missing(unit)

    def _remember(self, digest: str) -> None:
        self._digests[digest] = None
        while len(self._digests) > _DIGESTS:
            self._digests.popitem(last=False)

    def _receive(self, topic: str, payload: bytes, now: float) -> Opened:
        unit, kind = split_topic(topic)  # 1
        if kind not in _KINDS:
            raise RefusedError(Reason.TOPIC, topic[:100])
        try:
            sealed = seal.take_apart(payload, LIMITS.envelope_bytes)  # 2
        except SealError as error:
            raise RefusedError(Reason.STRUCTURE, str(error)) from error
        digest = hashlib.sha256(payload).hexdigest()
        if digest in self._digests:  # 3
            raise RefusedError(Reason.DUPLICATE, sealed.header.id)
        if (sealed.header.unit, sealed.header.kind) != (unit, kind):  # 4
            raise RefusedError(Reason.DISAGREES, f"{sealed.header.kind} of {sealed.header.unit} on {topic}")
        content = self._open(sealed)  # 5-7
        record = _parse(sealed.header, content)  # 8
        notes = self._fresh(sealed.header, now)  # 9
        placement = self._place(record, digest)  # 10
        return Opened(sealed.header, record, content, digest, placement, notes + _chain_notes(placement), now)

    def _open(self, sealed: seal.Sealed) -> bytes:
        key = self._unit_key(sealed.header.unit)
        try:
            seal.verify(sealed, [key])
        except SealError as error:
            raise RefusedError(Reason.SIGNATURE, str(error)) from error
        if sealed.header.sender != key.keyid:
            raise RefusedError(
                Reason.DISAGREES, f"names {sealed.header.sender[:12]}... as its sender, signed by another key"
            )
        try:
            return seal.open_sealed(sealed, self._keys.sealing)
        except SealError as error:
            raise RefusedError(Reason.NOT_OURS, str(error)) from error

    def _unit_key(self, unit: str) -> Key:
        if unit not in self._unit_keys:
            identity = self._keys.roster.unit(unit)
            if identity is None:
                raise RefusedError(Reason.UNKNOWN_UNIT, f"{unit}; admit it at the base and bring the new roster here")
            self._unit_keys[unit] = identity.signing_key()
        return self._unit_keys[unit]

    def _fresh(self, header: Header, now: float) -> tuple[str, ...]:
        """A clock that runs ahead is remarked, not refused: the signature says who, the chain says in which order."""
        if now > header.expires + CLOCK_SLACK:
            raise RefusedError(
                Reason.EXPIRED, f"{header.id} ended {now - header.expires:.0f} s ago; check the unit's clock"
            )
        if header.kind == "health" and header.created < self._reported.get(header.unit, float("-inf")):
            raise RefusedError(Reason.REPLAYED, f"health of {header.unit} is older than the last")
        ahead = header.created - now
        return (f"unit's clock is {ahead:.0f} s ahead",) if ahead > CLOCK_SLACK else ()

    def _place(self, record: Alert | Health | None, digest: str) -> Placement | None:
        if not isinstance(record, Alert):
            return None
        placement = self._book.place(record, digest)
        if placement.fit is Fit.DUPLICATE:
            raise RefusedError(Reason.DUPLICATE, f"alert {record.alert_id}, number {record.sequence} of its chain")
        return placement


def split_topic(topic: str) -> tuple[str, str]:
    """Unit and kind of one of our topics. Raises RefusedError."""
    head, _, tail = topic.partition(f"{ROOT}/")
    unit, _, kind = tail.partition("/")
    if head or not unit or not kind or "/" in kind:
        raise RefusedError(Reason.TOPIC, topic[:100])
    return unit, kind


def _parse(header: Header, content: bytes) -> Alert | Health | None:
    """The record of its kind; receipts are read by those who asked for them."""
    _believe(header, header)
    if header.kind == "receipt":
        return None
    kind = Alert if header.kind == "alert" else Health
    try:
        record = kind.model_validate_json(content)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise RefusedError(Reason.MALFORMED, f"{header.id}: {where}: {error.errors()[0]['msg']}") from error
    _believe(header, record)
    if isinstance(record, Alert) and not _NAME.fullmatch(record.alert_id):
        raise RefusedError(Reason.MALFORMED, "an alert whose identifier is none")
    same = (record.unit, record.deployment) == (header.unit, header.deployment)
    if isinstance(record, Alert):
        same = same and record.alert_id == header.id
        same = same and (not header.chain or (header.chain, header.sequence) == (record.chain, record.sequence))
    if not same:
        raise RefusedError(Reason.DISAGREES, f"{header.id}: header and content name different things")
    return record


def _believe(header: Header, record: Record) -> None:
    if (field := unbelievable(record)) is not None:
        raise RefusedError(Reason.MALFORMED, f"{header.id}: {field} cannot be")


def _chain_notes(placement: Placement | None) -> tuple[str, ...]:
    if placement is None or placement.fit is Fit.NEXT:
        return ()
    if placement.fit is Fit.GAP:
        return (f"{placement.missing} alert(s) before this one have not arrived",)
    if placement.fit is Fit.LATE:
        return ("arrived late: fills a gap",)
    if placement.fit is Fit.REUSED:
        return ("its number was used before: an older outbox, or two units of one name; look at the unit",)
    if placement.fit is Fit.BROKEN:
        return ("it does not follow the alert before it: an older outbox, or two units of one name; look at the unit",)
    if placement.fit is Fit.NEW_CHAIN:
        return ("the unit began a new chain of alerts: its courier's outbox was replaced",)
    return (f"{placement.missing} earlier alert(s) of this chain were not seen here",) if placement.missing else ()
