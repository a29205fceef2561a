"""Decoys: pairs that are not one human being, shown like alerts at a set rate, to measure how often people say yes.

- When: exponential gaps, so that nobody can expect one; seeded, so that a schedule can be repeated.
- Not now: while a real alert has waited for more than a tenth of its time to live, or several wait, staff have no time
  to lose: the decoy waits. Neither is one shown outside a deployment's window, nor for a unit that is not armed or has
  no camera running: there it would be known for what it is.
- Like an alert: unit and camera are ones that run; score, delay and track are a real alert's, a little moved; quality
  was measured on the probe. Before any real one came, the score lies a little above the order's threshold.
- It is never dispatched: adjudication closes a decoy that was judged the same.
"""

from __future__ import annotations

import random
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from appliance.formats.dossier import Decoy
from appliance.formats.order import Order
from appliance.identifiers import uuid7
from control.deployments.dossiers import Pool
from control.ledger.ledger import Ledger
from control.receive.fleet import Fleet
from control.records import Case, ReferencePicture

_PATIENCE = 0.1  # of the time to live: a real alert that waits longer keeps decoys away
_FEW = 3  # real alerts that may wait while a decoy is shown
_AGAIN_SECONDS = 15.0  # until the next try where now is not the time
_FRESH_SECONDS = 60.0  # age of a health report that still tells what runs
_LATE = 0.5  # seconds from frame to arrival; a real alert that was held up is no example
_EXAMPLES = 200  # newest real alerts whose figures decoys take after


@dataclass(frozen=True)
class Rate:
    """How many an hour, and the seed of the schedule; without one it differs at each start."""

    per_hour: float = 0.0
    seed: int | None = None


@dataclass(frozen=True)
class _Stage:
    """Where a decoy could be shown now."""

    order: Order
    unit: str
    camera: str
    pool: Pool


class Decoys:
    """Shows decoys when they are due. Not thread-safe; `step` is called every few seconds."""

    def __init__(
        self, ledger: Ledger, fleet: Fleet, pools: Callable[[], Sequence[Pool]], rate: Rate, ttl: float,
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self._ledger, self._fleet, self._pools, self._rate, self._ttl = ledger, fleet, pools, rate, ttl
        self._clock = clock
        self._random = random.Random(rate.seed)
        self._unused: dict[str, list[int]] = {}  # pairs of a deployment that were not shown since all were
        self._due = self._next(clock())

    @property
    def due(self) -> float:
        """When the next is to be shown, UTC seconds; infinity where none are."""
        return self._due

    def step(self) -> Case | None:
        """Show one where it is due and now is the time. Raises LedgerError where it cannot be stored."""
        now = self._clock()
        if now < self._due:
            return None
        stage = None if self._is_busy(now) else self._stage(now)
        if stage is None:
            self._due = now + _AGAIN_SECONDS
            return None
        self._due = self._next(now)
        decoy = self._pick(stage.pool)
        return self._ledger.store_decoy(self._case(stage, decoy, now), decoy.probe, _reference(decoy))

    def _next(self, now: float) -> float:
        if self._rate.per_hour <= 0:
            return float("inf")
        return now + self._random.expovariate(self._rate.per_hour / 3600.0)

    def _is_busy(self, now: float) -> bool:
        waiting = [case for case in self._ledger.cases(states=("waiting", "disputed")) if not case.decoy]
        return len(waiting) > _FEW or any(now - case.received > _PATIENCE * self._ttl for case in waiting)

    def _stage(self, now: float) -> _Stage | None:
        """One of the running units' running cameras, under an order that is in force and has decoys."""
        orders = {d.order.deployment: d.order for d in self._ledger.deployments()}
        pools = {pool.deployment: pool for pool in self._pools() if pool.decoys}
        stages = []
        for view in self._fleet.units():
            health = view.health
            if health is None or health.state != "armed" or now - health.time > _FRESH_SECONDS:
                continue
            order, pool = orders.get(health.deployment), pools.get(health.deployment)
            if order is None or pool is None or not order.not_before <= now < order.not_after:
                continue
            stages += [_Stage(order, view.unit, c.name, pool) for c in health.cameras if c.state == "running"]
        return self._random.choice(stages) if stages else None

    def _pick(self, pool: Pool) -> Decoy:
        """Every pair once, in random order, before any comes again: people remember faces."""
        left = self._unused.get(pool.deployment)
        if not left or max(left) >= len(pool.decoys):
            left = list(range(len(pool.decoys)))
            self._random.shuffle(left)
        number = left.pop()
        self._unused[pool.deployment] = left
        return pool.decoys[number]

    def _case(self, stage: _Stage, decoy: Decoy, now: float) -> Case:
        """All fields as an alert that was decided a moment ago would have them."""
        pick, reference = self._random, decoy.pair.reference
        seen = self._ledger.cases(deployment=stage.order.deployment, limit=_EXAMPLES)
        real = [case for case in seen if not case.decoy]
        like = pick.choice(real) if real else None
        threshold = like.threshold if like else stage.order.threshold
        score = _moved(pick, like.score, 0.02) if like else threshold + pick.uniform(0.005, 0.08)
        late = _moved(pick, min(like.received - like.observed, _LATE) if like else 0.07, 0.4)
        before = _moved(pick, like.observed - like.captured if like else 0.5, 0.4)
        seconds = round(_moved(pick, like.track_seconds if like else 1.6, 0.3), 2)
        return Case(
            alert_id=uuid7(now), decoy=True, unit=stage.unit, deployment=stage.order.deployment, camera=stage.camera,
            category=reference.category, reference_identifier=reference.reference_identifier,
            captured=now - late - before, observed=now - late, received=now, shown=None,
            stale_after=now - late + self._ttl, keep_until=now + stage.order.retention.alert_hours * 3600.0,
            erased=None, score=round(min(max(score, threshold), 0.9999), 4), threshold=threshold,
            quality=round(decoy.pair.quality, 3), interocular=round(decoy.pair.interocular, 1),
            frames=max(2, round(_moved(pick, like.frames if like else 14, 0.3))), track_seconds=seconds,
            has_probe=True, state="waiting", required=stage.order.adjudicators,
        )  # fmt: skip


def _moved(pick: random.Random, value: float, share: float) -> float:
    return value * pick.uniform(1 - share, 1 + share)


def _reference(decoy: Decoy) -> ReferencePicture:
    picture = b64encode(decoy.picture).decode()
    return ReferencePicture(**decoy.pair.reference.model_dump(exclude={"size"}), picture=picture)
