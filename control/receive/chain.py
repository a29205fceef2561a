"""Whether an alert continues its unit's chain: what is missing, late, repeated or forged.

A unit numbers its alerts and puts the SHA-256 of the previous container in each. An alert that was dropped on the
way (by broker, courier or network) is missed by it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from appliance.records import Alert

ZERO = "0" * 64
_REMEMBERED = 4096  # alerts of a chain; an older number is remarked as used before
_MISSING = 10_000  # sequence numbers of a chain that may still arrive late
_CHAINS = 256


class Fit(str, Enum):
    """How an alert fits. Only DUPLICATE is refused; all others are accepted, with a remark unless NEXT."""

    NEXT = "next"
    FIRST = "first of its unit"
    NEW_CHAIN = "new chain"
    GAP = "gap before it"
    LATE = "late"
    DUPLICATE = "duplicate"
    REUSED = "number used before"
    BROKEN = "chain broken"


@dataclass(frozen=True)
class Placement:
    """How an alert fits, and how many alerts before it have not arrived (only counted at GAP and NEW_CHAIN)."""

    fit: Fit
    missing: int = 0


@dataclass(frozen=True)
class Link:
    """What a chain needs to know of an alert that arrived: what a ledger keeps of it for the next start."""

    unit: str
    deployment: str
    chain: str
    sequence: int
    previous: str
    digest: str  # SHA-256 of its container


@dataclass
class _Chain:
    last: int
    joined: int  # what came before this number was not ours to receive
    seen: OrderedDict[int, tuple[str, str]] = field(default_factory=OrderedDict)  # sequence -> digest, previous
    missing: set[int] = field(default_factory=set)


class ChainBook:
    """Remembers the chains of all units. `place` looks, `accept` writes down."""

    def __init__(self) -> None:
        self._chains: OrderedDict[tuple[str, str, str], _Chain] = OrderedDict()

    def restore(self, links: Iterable[Link]) -> None:
        """Write down what was accepted before this process began, in the order in which it was."""
        for link in links:
            self.accept(link, link.digest)

    def place(self, alert: Alert | Link, digest: str) -> Placement:
        """How a verified alert fits. `digest` is the SHA-256 of its container. Changes nothing."""
        chain = self._chains.get(_key(alert))
        if chain is None and not _joins(_Chain(0, 0), alert, digest):
            return Placement(Fit.BROKEN)
        if chain is None:
            known = any(key[:2] == _key(alert)[:2] for key in self._chains)
            return Placement(Fit.NEW_CHAIN if known else Fit.FIRST, alert.sequence - 1)
        if alert.sequence in chain.seen:
            return Placement(Fit.DUPLICATE if chain.seen[alert.sequence][0] == digest else Fit.REUSED)
        if alert.sequence <= chain.last and alert.sequence not in chain.missing:
            return Placement(Fit.REUSED)
        if not _joins(chain, alert, digest):
            return Placement(Fit.BROKEN)
        if alert.sequence <= chain.last:
            return Placement(Fit.LATE)
        missing = alert.sequence - chain.last - 1
        return Placement(Fit.GAP if missing else Fit.NEXT, missing)

    def accept(self, alert: Alert | Link, digest: str) -> None:
        """Write down an alert that `place` did not refuse and that is now safely stored."""
        joined = alert.sequence if self.place(alert, digest).fit is Fit.FIRST else 0
        chain = self._chains.setdefault(_key(alert), _Chain(last=0, joined=joined))
        self._chains.move_to_end(_key(alert))
        chain.seen.setdefault(alert.sequence, (digest, alert.previous))  # of a number used twice the first counts
        chain.missing.discard(alert.sequence)
        chain.missing.update(range(max(chain.last + 1, alert.sequence - _MISSING), alert.sequence))
        chain.last = max(chain.last, alert.sequence)
        while len(chain.seen) > _REMEMBERED:
            chain.seen.popitem(last=False)
        while len(chain.missing) > _MISSING:
            chain.missing.discard(min(chain.missing))
        while len(self._chains) > _CHAINS:
            self._chains.popitem(last=False)

    def missing(self, unit: str | None = None) -> int:
        """How many alerts have not arrived since the first that did: of one unit, or of all."""
        chains = (chain for key, chain in self._chains.items() if unit in (None, key[0]))
        return sum(number > chain.joined for chain in chains for number in chain.missing)


def _key(alert: Alert | Link) -> tuple[str, str, str]:
    return alert.unit, alert.deployment, alert.chain


def _joins(chain: _Chain, alert: Alert | Link, digest: str) -> bool:
    """The neighbours that are here agree with it, and the first of a chain follows nothing."""
    if alert.sequence == 1 and alert.previous != ZERO:
        return False
    before, after = chain.seen.get(alert.sequence - 1), chain.seen.get(alert.sequence + 1)
    return (before is None or before[0] == alert.previous) and (after is None or after[1] == digest)
