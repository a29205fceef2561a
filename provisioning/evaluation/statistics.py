"""Rates from scores: histograms that billions of comparisons can be streamed into, DET curves, fitted tails."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Scores = npt.NDArray[np.floating]

BINS = 8192  # over -1 to 1: a threshold is right to 1/4096, far below its own uncertainty
TAIL_EVENTS = 30  # events a fitted tail starts at: enough for its slope, few enough to be the tail


@dataclass
class Histogram:
    """Counts of scores in BINS equal bins over `low` to `high`; scores outside are counted in the end bins."""

    low: float = -1.0
    high: float = 1.0
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def add(self, scores: Scores) -> None:
        """Count an array of any shape."""
        scale = np.float32(BINS / (self.high - self.low))
        places = (np.asarray(scores, np.float32).reshape(-1) - np.float32(self.low)) * scale
        np.clip(places, 0, BINS - 1, out=places)
        self.counts += np.bincount(places.astype(np.int32), minlength=BINS)

    @property
    def total(self) -> int:
        """How many scores were counted."""
        return int(self.counts.sum())

    @property
    def edges(self) -> Doubles:
        """(BINS,) the lower edge of each bin."""
        return np.linspace(self.low, self.high, BINS, endpoint=False, dtype=np.float64)

    def survivors(self) -> npt.NDArray[np.int64]:
        """(BINS,) how many scores are at or above each lower edge."""
        return np.asarray(self.counts[::-1].cumsum()[::-1], np.int64)

    def share_at(self, threshold: float) -> float:
        """Share of scores at or above `threshold`, which is moved up to the next edge."""
        place = int(np.searchsorted(self.edges, threshold - 1e-12))
        return 0.0 if place >= BINS else float(self.survivors()[place]) / max(self.total, 1)

    def threshold_at(self, rate: float) -> float:
        """The least edge at which no more than `rate` of the scores is at or above it."""
        places = np.nonzero(self.survivors() <= rate * self.total)[0]
        return float(self.edges[places[0]]) if len(places) else self.high


def det(mated: Histogram, non_mated: Histogram, points: int = 200) -> list[tuple[float, float, float]]:
    """The DET curve: (threshold, FMR, FNMR) at false match rates spread evenly over the decades that were seen."""
    if not mated.total or not non_mated.total:
        return []
    rates = np.geomspace(1.0 / non_mated.total, 1.0, points)
    thresholds = sorted({non_mated.threshold_at(float(r)) for r in rates})
    return [(t, non_mated.share_at(t), 1 - mated.share_at(t)) for t in thresholds]


@dataclass(frozen=True)
class Tail:
    """Rates above `start` as an exponential: rate(t) = `rate` * exp(-(t - start) / scale).

    The far tails of comparison scores fall faster than exponentially (they are bounded), so a threshold read off here
    is too high rather than too low: it errs towards fewer false positives than asked for.
    """

    start: float
    rate: float
    scale: float
    events: int

    def threshold_at(self, rate: float) -> float:
        """The threshold of a rate at or below `self.rate`."""
        return self.start + self.scale * float(np.log(self.rate / min(rate, self.rate)))

    def rate_at(self, threshold: float) -> float:
        """The rate of a threshold at or above `start`."""
        return self.rate * float(np.exp(-max(threshold - self.start, 0.0) / self.scale))


def fit_tail(scores: Doubles, weights: Doubles, events: int = TAIL_EVENTS) -> Tail:
    """Fit to the `events` greatest scores; `weights` are what each adds to the rate. Maximum likelihood.

    `scores` falls; the mean excess over the last score taken is the estimate of the exponential's scale.
    """
    count = min(events, len(scores) - 1)
    if count < 2:
        raise ValueError("a tail cannot be fitted to fewer than three scores")
    start, taken = float(scores[count]), weights[:count]
    scale = float(((scores[:count] - start) * taken).sum() / taken.sum())
    return Tail(start, float(taken.sum()), max(scale, 1e-6), count)
