"""What a comparison score says as evidence: log-likelihood ratios, how well they are calibrated, what they could be.

A likelihood ratio compares how usual a score is between two stills of one identity with how usual it is between stills
of two. It is not the probability that two stills are of one identity: that also depends on how many people could have
walked by, which no score knows, and it says nothing of what anybody did. The unit alerts by thresholds, not by these.

The line from score to log-likelihood ratio is a logistic regression with both kinds of comparison weighing the same
(Brümmer and du Preez 2006). Cllr is the cost of its answers in bits; minimum Cllr what the best rising function of the
same scores would cost (PAV); the difference is what calibration loses. A useless method costs 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit

from appliance.recognition.calibration import Likelihood
from appliance.records import Floats
from provisioning.evaluation import verification
from provisioning.evaluation.intervals import rule_of_three
from provisioning.evaluation.statistics import Doubles, Histogram
from provisioning.evaluation.verification import Verification

FOLDS = 5
PRIORS = tuple(float(p) for p in np.linspace(-6, 2, 33))  # log10 odds that the ECE plot is drawn over
LEAST_MATED = 200  # comparisons of each kind under which no line is fitted
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Evidence:
    """Log10 likelihood ratios of mated and non-mated comparisons, each value with its share of its own kind."""

    values: Doubles
    mated: Doubles
    non_mated: Doubles

    def cllr(self) -> float:
        """Cost in bits, both kinds weighing the same (Brümmer and du Preez 2006)."""
        return self.ece(0.0)

    def ece(self, prior: float) -> float:
        """Empirical cross-entropy in bits where the prior log10 odds are `prior` (Ramos and others 2013)."""
        odds = (self.values + prior) * np.log(10)
        share = float(expit(prior * np.log(10)))
        missed, false = _mean(np.logaddexp(0, -odds), self.mated), _mean(np.logaddexp(0, odds), self.non_mated)
        return (share * missed + (1 - share) * false) / float(np.log(2))

    def tippett(self, points: int = 200) -> list[tuple[float, float, float]]:
        """(log10 LR, share of mated, share of non-mated comparisons at or above it), over the values seen."""
        order = np.argsort(self.values, kind="stable")
        above = [np.append(part[order][::-1].cumsum()[::-1], 0.0) for part in (self.mated, self.non_mated)]
        values = self.values[order]
        marks = np.linspace(values[0], values[-1], points)
        places = np.searchsorted(values, marks)
        return [(float(m), float(above[0][p]), float(above[1][p])) for m, p in zip(marks, places, strict=True)]


@dataclass(frozen=True)
class Shown:
    """A line fitted on some identities, and what its answers are worth on others.

    `calibrated` holds the line's answers, `best` those of PAV on the very comparisons shown.
    """

    mated: int
    non_mated: int
    calibrated: Evidence
    best: Evidence


def fit(scores: Verification) -> Likelihood:
    """The line of log10 LR over score, and the bounds outside which the comparisons cannot support a ratio."""
    values, mated, non_mated = _counted(scores.mated, scores.non_mated)
    middle, spread = float(values.mean()), float(values.std()) or 1.0
    x = (values - middle) / spread

    def cost(line: Doubles) -> tuple[float, Doubles]:
        odds = line[0] * x + line[1]
        slope = non_mated * expit(odds) - mated * expit(-odds)
        total = _mean(np.logaddexp(0, -odds), mated) + _mean(np.logaddexp(0, odds), non_mated)
        return total, np.array([float((slope * x).sum()), float(slope.sum())])

    line = minimize(cost, np.array([1.0, 0.0]), jac=True, method="BFGS").x / np.log(10)
    return Likelihood(
        slope=float(line[0] / spread),
        offset=float(line[1] - line[0] * middle / spread),
        least=float(np.log10(rule_of_three(scores.mated.total))),
        greatest=float(-np.log10(rule_of_three(scores.non_mated.total))),
    )


def fitted(scores: Verification) -> Likelihood | None:
    """The line for a calibration record; None where the comparisons are too few for one."""
    return fit(scores) if enough(scores) else None


def answers(line: Likelihood, scores: Verification) -> Evidence:
    """The line's answers for counted scores."""
    values, mated, non_mated = _counted(scores.mated, scores.non_mated)
    return Evidence(np.array([line.log_ratio(v) for v in values]), mated, non_mated)


def best(scores: Verification) -> Evidence:
    """What no rising function of the same scores can beat on them: pool adjacent violators, with hindsight."""
    _, mated, non_mated = _counted(scores.mated, scores.non_mated)
    weights = mated + non_mated
    share = np.clip(isotonic_regression(mated / weights, weights=weights).x, 0.0, 1.0)
    with np.errstate(divide="ignore"):
        return Evidence(np.log10(share) - np.log10(1 - share), mated, non_mated)


def crossed(templates: Floats, identities: Numbers, distractors: npt.NDArray[np.bool_], parts: Numbers) -> Shown | None:
    """Every part's comparisons, judged by a line fitted on the comparisons of all other parts; None of too few.

    `parts` (n,) numbers each row's part, by identity: no identity is both fitted on and shown.
    """
    shown, given = Verification(), list[Evidence]()
    for part in range(FOLDS):
        inside = parts == part
        fitted, seen = (
            verification.all_pairs(templates[rows], identities[rows], distractors[rows]) for rows in (~inside, inside)
        )
        if not enough(fitted) or not seen.mated.total or not seen.non_mated.total:
            return None
        given.append(_weighed(answers(fit(fitted), seen), seen))
        for whole, one in ((shown.mated, seen.mated), (shown.non_mated, seen.non_mated)):
            whole.counts += one.counts
    return Shown(shown.mated.total, shown.non_mated.total, _joined(given, shown), best(shown))


def enough(scores: Verification) -> bool:
    """Whether a line can be fitted at all."""
    return min(scores.mated.total, scores.non_mated.total) >= LEAST_MATED


def _weighed(part: Evidence, scores: Verification) -> Evidence:
    """Shares turned into counts, so that parts of different sizes can be joined."""
    return Evidence(part.values, part.mated * scores.mated.total, part.non_mated * scores.non_mated.total)


def _joined(parts: Sequence[Evidence], scores: Verification) -> Evidence:
    values, mated, non_mated = (
        np.concatenate([getattr(p, name) for p in parts]) for name in ("values", "mated", "non_mated")
    )
    return Evidence(values, mated / scores.mated.total, non_mated / scores.non_mated.total)


def _counted(mated: Histogram, non_mated: Histogram) -> tuple[Doubles, Doubles, Doubles]:
    """Middles of the bins that hold anything, and each kind's share in them."""
    places = np.nonzero(mated.counts + non_mated.counts)[0]
    values = mated.edges[places] + (mated.high - mated.low) / len(mated.counts) / 2
    own, other = (h.counts[places] / max(h.total, 1) for h in (mated, non_mated))
    return values, own, other


def _mean(values: Doubles, shares: Doubles) -> float:
    """Sum of shares times values; what has no share may be infinite."""
    return float((values[shares > 0] * shares[shares > 0]).sum())
