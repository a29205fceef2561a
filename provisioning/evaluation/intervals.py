"""How sure a share is: Clopper-Pearson, Wilson, the rule of three, and what several stills of one identity cost.

ISO/IEC 19795-1 asks for the uncertainty beside every rate. All intervals are two-sided at 95 % unless said otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

LEVEL = 0.95
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Share:
    """A rate with its limits. `events` of `trials`; both may be fractional where a rate is averaged over lists."""

    value: float
    low: float
    high: float
    events: float
    trials: float

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.3g}, {self.high:.3g}]"


def clopper_pearson(events: int, trials: int, level: float = LEVEL) -> Share:
    """The exact interval (Clopper and Pearson 1934): never covers less than `level`."""
    _check(events, trials)
    rest = (1 - level) / 2
    low = 0.0 if events == 0 else float(stats.beta.ppf(rest, events, trials - events + 1))
    high = 1.0 if events == trials else float(stats.beta.ppf(1 - rest, events + 1, trials - events))
    return Share(events / trials, low, high, events, trials)


def wilson(events: float, trials: float, level: float = LEVEL) -> Share:
    """The score interval (Wilson 1927); `trials` may be an effective number."""
    _check(events, trials)
    z2 = float(stats.norm.ppf(0.5 + level / 2)) ** 2
    share = events / trials
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = math.sqrt(z2 * (share * (1 - share) / trials + z2 / (4 * trials**2))) / (1 + z2 / trials)
    return Share(share, max(0.0, min(middle - half, share)), min(1.0, max(middle + half, share)), events, trials)


def rule_of_three(trials: float, level: float = LEVEL) -> float:
    """The greatest rate that no event in `trials` leaves possible: exactly 1 - (1 - level)^(1 / n), about 3 / n."""
    _check(0, trials)
    return float(-np.expm1(np.log1p(-level) / trials))


def in_words(trials: int, level: float = LEVEL) -> str:
    """`no false positive in 18,000 trials proves 1 in 6,009 at 95 %`: what silence is worth."""
    return f"none in {trials:,} trials proves 1 in {int(1 / rule_of_three(trials, level)):,} at {level:.0%}"


def clustered(values: Doubles, clusters: npt.NDArray[np.int64], level: float = LEVEL) -> Share:
    """A mean of values in 0 to 1, of which those of one cluster (one identity's stills) hang together.

    Wilson's interval at the effective number of trials: n over the design effect (Rao and Scott 1992), which the
    variance between clusters gives. Where nothing varies it is the number of clusters.
    """
    count = len(values)
    _check(0, count)
    mean = float(values.mean())
    return wilson(mean * (trials := _effective(values, clusters, mean)), trials, level)


def _effective(values: Doubles, clusters: npt.NDArray[np.int64], mean: float) -> float:
    _, place = np.unique(clusters, return_inverse=True)
    groups = int(place.max()) + 1
    binomial = mean * (1 - mean) / len(values)
    if groups < 2 or binomial <= 0:
        return float(groups)
    residuals = np.bincount(place, values - mean)
    variance = groups / (groups - 1) * float((residuals**2).sum()) / len(values) ** 2
    if variance <= 0:
        return float(groups)
    return float(min(len(values), max(binomial / variance * len(values), 1.0)))


def paired(
    before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_], draws: int = 2000
) -> tuple[float, float, float]:
    """Gain in share between two outcomes of the same trials, and its limits: a percentile bootstrap over trials."""
    gain = after.astype(float) - before
    drawn = np.random.default_rng(1).integers(0, len(gain), (draws, len(gain)))
    low, high = np.quantile(gain[drawn].mean(axis=1), ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(gain.mean()), float(low), float(high)


def holm(values: Doubles) -> Doubles:
    """P-values corrected for being many (Holm 1979): reject where the result is below the level wanted."""
    order = np.argsort(values)
    factors = len(values) - np.arange(len(values))
    corrected = np.minimum(np.maximum.accumulate(values[order] * factors), 1.0)
    result = np.empty(len(values))
    result[order] = corrected
    return result


def differ(events: tuple[int, int], trials: tuple[int, int]) -> float:
    """P-value (two-sided, Fisher's exact test) that two shares are the same."""
    table = [[events[0], trials[0] - events[0]], [events[1], trials[1] - events[1]]]
    return float(stats.fisher_exact(table).pvalue)


def ratio(a: Share, b: Share, level: float = LEVEL) -> tuple[float, float]:
    """Limits of a's rate over b's (Katz 1978, logarithmic), half an event added to each where one has none."""
    add = 0.5 if min(a.events, b.events) == 0 else 0.0
    x, n, y, m = a.events + add, a.trials + add, b.events + add, b.trials + add
    half = float(stats.norm.ppf(0.5 + level / 2)) * math.sqrt(max(1 / x - 1 / n + 1 / y - 1 / m, 0.0))
    middle = math.log(x / n) - math.log(y / m)
    return math.exp(middle - half), math.exp(middle + half)


def _check(events: float, trials: float) -> None:
    if trials <= 0 or not 0 <= events <= trials * (1 + 1e-9):
        raise ValueError(f"{events} events of {trials} trials is no share")
