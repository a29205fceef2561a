"""Open-set identification (ISO/IEC 19795-1): probes against lists of many sizes, from one search of all references.

Every probe is searched once against every reference, without its own, which gives its non-mated scores; a list of
N references drawn at random from them is then a matter of counting: the chance that the j-th best of M is the best of
N drawn is C(M - j, N - 1) / C(M, N). So rates at each size are averages over all lists of that size, not over a few
that were drawn. Each named still is a non-mated probe (its own references left out) and, where its identity has a
reference of another still, a mated one.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from appliance.records import Floats
from provisioning.evaluation import intervals
from provisioning.evaluation.intervals import Share
from provisioning.evaluation.statistics import Tail, fit_tail

ROWS, COLUMNS = 256, 2500  # a tile of scores (2.5 MB) that stays in the cache while it is reduced
KEPT = 400  # greatest non-mated scores kept of each probe
LEAST_EVENTS = 10  # comparisons above a threshold under which it counts as extrapolated
Numbers = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Trials:
    """What the search of all probes left. n probes, K greatest non-mated scores of each, falling."""

    identities: Numbers  # (n,) of the probes
    tail: Floats  # (n, K)
    pool: int  # references that are not the probe's own: what a list is drawn from
    mated: Floats  # (n,) best score of its own references; NaN where it has none
    above: Numbers  # (n,) non-mated references that score more than that
    _sorted: dict[int, tuple[Doubles, Doubles]] = field(default_factory=dict, compare=False, repr=False)

    def fpir(self, threshold: float, size: int) -> Share:
        """Share of non-mated searches in which any of `size` references scores `threshold` or more."""
        share = (self.tail >= threshold) @ _best_of(self.pool, size, self.tail.shape[1])
        found = intervals.clustered(np.asarray(share, np.float64), self.identities)
        if share.any():
            return found
        return Share(0.0, 0.0, intervals.rule_of_three(found.trials), 0, found.trials)

    def tpir(self, threshold: float, size: int, rank: int = 1) -> Share:
        """Share of mated searches in which the own reference scores `threshold` or more, among the best `rank`.

        A probe in which no face was found was searched too: it has no score and is missed.
        """
        return intervals.clustered(self.found(threshold, size, rank), self.identities[~np.isnan(self.mated)])

    def found(self, threshold: float, size: int, rank: int = 1) -> Doubles:
        """Chance, for each mated probe, that it is found: over all lists of `size` with its own reference."""
        probes = ~np.isnan(self.mated)
        within = _within(self.above[probes], self.pool, size, rank)
        return np.where(self.mated[probes] >= threshold, within, 0.0)

    def threshold(self, size: int, fpir: float) -> tuple[float, bool]:
        """The least threshold that keeps `fpir` with `size` references, and whether it had to be extrapolated."""
        scores, weights = self._events(size)
        total = np.cumsum(weights)
        count = int(np.searchsorted(total, fpir + 1e-12, side="right"))
        if count >= len(scores):
            return float(scores[-1]), False
        # Just above the first score that would be one too many; single precision, as the scores are.
        seen = float(np.nextafter(np.float32(scores[count]), np.float32(2)))
        if count >= LEAST_EVENTS:
            return seen, False
        return max(seen, self.tail_of(size).threshold_at(fpir)), True

    def tail_of(self, size: int) -> Tail:
        """The fitted tail of the non-mated scores of lists of `size`."""
        return fit_tail(*self._events(size))

    def det(self, size: int, points: int = 120) -> list[tuple[float, float, float]]:
        """The identification DET curve: (threshold, FPIR, FNIR at rank 1)."""
        scores, weights = self._events(size)
        total = np.cumsum(weights)
        places = np.unique(np.searchsorted(total, np.geomspace(total[0], total[-1] * 0.999, points)))
        curve = []
        for place in places[places < len(scores)]:
            t = float(scores[place])
            curve.append((t, float(total[place]), 1 - self.tpir(t, size).value))
        return curve

    def ranks(self, size: int, ranks: tuple[int, ...] = (1, 5, 10)) -> dict[int, float]:
        """Share of mated searches whose own reference is among the best `rank`, whatever its score."""
        return {rank: self.tpir(-np.inf, size, rank).value for rank in ranks}

    def strongest(self, size: int, rate: float) -> tuple[Numbers, Doubles, Doubles]:
        """The greatest non-mated scores, falling, as many as make up `rate`: probe, score, share of its lists."""
        best = _best_of(self.pool, size, self.tail.shape[1])
        total = np.cumsum(self._events(size)[1])
        count = min(int(np.searchsorted(total, rate)) + LEAST_EVENTS, self.tail.size)
        order = (
            np.argpartition(-self.tail, count - 1, axis=None)[:count] if count < self.tail.size else np.arange(count)
        )
        order = order[np.argsort(-self.tail.reshape(-1)[order])]
        row, rank = np.divmod(order, self.tail.shape[1])
        return row, self.tail[row, rank].astype(np.float64), best[rank]

    def _events(self, size: int) -> tuple[Doubles, Doubles]:
        """Non-mated scores, falling, and what each adds to the FPIR of lists of `size`."""
        if size not in self._sorted:
            weights = np.broadcast_to(_best_of(self.pool, size, self.tail.shape[1]) / len(self.tail), self.tail.shape)
            order = np.argsort(np.where(weights > 0, -self.tail, np.inf), axis=None)[: np.count_nonzero(weights)]
            self._sorted[size] = self.tail.reshape(-1)[order].astype(np.float64), weights.reshape(-1)[order]
        return self._sorted[size]


@dataclass(frozen=True)
class Resampled:
    """Trials at one size and rate, made ready for many bootstrap draws; fits no tail."""

    trials: Trials
    size: int
    fpir: float
    places: Numbers  # probe of each of the greatest non-mated scores, falling
    scores: Doubles
    shares: Doubles

    @classmethod
    def of(cls, trials: Trials, size: int, fpir: float) -> Resampled:
        """Keep the scores that can set a threshold in any likely draw."""
        return cls(trials, size, fpir, *trials.strongest(size, 20 * fpir))

    def tpir(self, weights: Numbers) -> float:
        """TPIR at the least threshold that keeps the rate, where probe i counts `weights`[i] times."""
        total = np.cumsum(self.shares * weights[self.places]) / weights.sum()
        count = min(int(np.searchsorted(total, self.fpir, side="right")), len(self.scores) - 1)
        threshold = float(np.nextafter(np.float32(self.scores[count]), np.float32(2)))
        mated = weights[~np.isnan(self.trials.mated)]
        found = self.trials.found(threshold, self.size)
        return float((found * mated).sum() / max(int(mated.sum()), 1))


def search(
    probes: Floats, owners: Numbers, references: Floats, of: Numbers, keep: int = KEPT, shift: Floats | None = None
) -> Trials:
    """Search every probe (n, length), of identity `owners`, among all references (m, length), of identity `of`.

    `shift` (m,) is added to each reference's scores. A probe's own references take no part in its non-mated scores.
    The pool is m less the references of one identity (the most that any probe has), the same for every probe.
    """
    order = np.argsort(of, kind="stable")
    first, last = (np.searchsorted(of[order], owners, side=s) for s in ("left", "right"))
    pool = len(references) - int((last - first).max(initial=0))
    keep = min(keep, pool)
    columns = np.ascontiguousarray(references.T)
    parts = []
    for start in range(0, len(probes), ROWS):
        rows = slice(start, start + ROWS)
        own = [order[a:b] for a, b in zip(first[rows], last[rows], strict=True)]
        parts.append(_searched(probes[rows], own, columns, keep, shift))
    tail, mated, above = (np.concatenate(p) for p in zip(*parts, strict=True))
    return Trials(owners, tail, pool, mated, above)


def best(probes: Floats, references: Floats, threads: int | None = None) -> tuple[Floats, Numbers]:
    """The best reference of each probe: (n,) score, (n,) row. Never holds more than a tile of scores a thread.

    Threads take rows, and each product runs on its thread alone: a BLAS that splits such small products over cores
    spends longer waiting for them than multiplying, above all on a busy machine.
    """
    columns = np.ascontiguousarray(references.T)
    workers = threads or os.cpu_count() or 1
    starts = range(0, len(probes), ROWS)
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(workers) as pool:
        parts = list(pool.map(lambda start: _best(probes[start : start + ROWS], columns), starts))
    scores, rows = (np.concatenate(p) for p in zip(*parts, strict=True))
    return scores, rows


def _best(probes: Floats, columns: Floats) -> tuple[Floats, Numbers]:
    scores, rows = np.full(len(probes), -np.inf, np.float32), np.zeros(len(probes), np.int64)
    numbers = np.arange(len(probes))
    for start in range(0, columns.shape[1], COLUMNS):
        found = probes @ columns[:, start : start + COLUMNS]
        row = found.argmax(axis=1)
        score = found[numbers, row]
        better = score > scores
        scores[better], rows[better] = score[better], row[better] + start
    return scores, rows


def _searched(
    probes: Floats, own: list[Numbers], columns: Floats, keep: int, shift: Floats | None
) -> tuple[Floats, Floats, Numbers]:
    scores = probes @ columns
    if shift is not None:
        scores += shift
    mated = np.full(len(probes), np.nan, np.float32)
    for i, places in enumerate(own):
        if len(places):
            mated[i] = scores[i, places].max()
            scores[i, places] = -np.inf
    above = np.count_nonzero(scores > mated[:, None], axis=1)  # never more than NaN
    tail = -np.sort(-np.partition(scores, scores.shape[1] - keep, axis=1)[:, scores.shape[1] - keep :], axis=1)
    return tail, mated, above.astype(np.int64)


def _best_of(pool: int, size: int, keep: int) -> Doubles:
    """(keep,) chance that the j-th best of `pool` is the best of `size` drawn from them."""
    size = _possible(size, pool)
    j = np.arange(1, keep + 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = _log_choose(pool - j, size - 1) - _log_choose(pool, size)
    return np.where(pool - j >= size - 1, np.exp(logs), 0.0)


def _within(above: Numbers, pool: int, size: int, rank: int) -> Doubles:
    """Chance that fewer than `rank` of the `above` better ones are among the other `size` - 1 of the list."""
    drawn = _possible(size, pool) - 1
    total = np.zeros(len(above))
    for better in range(rank):
        possible = (better <= above) & (drawn - better <= pool - above) & (better <= drawn)
        k = above[possible]
        logs = _log_choose(k, better) + _log_choose(pool - k, drawn - better) - _log_choose(pool, drawn)
        total[possible] += np.exp(logs)
    return np.minimum(total, 1.0)


def _log_choose(n: Numbers | int, k: Numbers | int) -> Doubles:
    return np.asarray(gammaln(np.add(n, 1)) - gammaln(np.add(k, 1)) - gammaln(np.subtract(n, k) + 1), np.float64)


def _possible(size: int, pool: int) -> int:
    if not 1 <= size <= pool:
        raise ValueError(f"a list of {size} cannot be drawn from {pool} references")
    return size
