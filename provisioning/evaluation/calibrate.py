"""From trials to the calibration record that the unit, orders and pre-flight read."""

from __future__ import annotations

import numpy as np

from appliance.errors import ConfigError
from appliance.recognition.calibration import Calibration, FalseMatch, Normalisation, Operating
from provisioning.evaluation import intervals, likelihood
from provisioning.evaluation.identification import LEAST_EVENTS, Trials
from provisioning.evaluation.statistics import Histogram, Tail, fit_tail
from provisioning.evaluation.verification import Verification

SIZES = (100, 1000, 2500, 10_000)
RATES = (0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1 / 6000, 1e-4, 3e-5, 1e-5, 1e-6)
FLOOR_SIZE, FLOOR_RATE = 100, 1e-3  # no list, however short, runs above 1 false positive in 1,000 (Bridges)
STEP = 0.01  # of score, in the table of false match rates


def operating_points(
    trials: Trials, sizes: tuple[int, ...] = SIZES, rates: tuple[float, ...] = RATES
) -> list[Operating]:
    """Thresholds for every size and rate, made to rise with both; beyond the pool by the union bound, and marked."""
    rows: dict[tuple[int, float], Operating] = {}
    for index, size in enumerate(sizes):
        for place, rate in enumerate(rates):
            threshold, extrapolated = point(trials, size, rate)
            least = [rows[size, r].threshold for r in rates[:place]] + [rows[s, rate].threshold for s in sizes[:index]]
            threshold = max([threshold, *least])
            tpir = trials.tpir(threshold, min(size, trials.pool))
            rows[size, rate] = Operating(
                size=size,
                fpir=rate,
                threshold=round(threshold + 5e-7, 6),
                tpir=tpir.value,
                low=tpir.low,
                high=tpir.high,
                extrapolated=extrapolated,
            )
    return list(rows.values())


def point(trials: Trials, size: int, rate: float) -> tuple[float, bool]:
    """Threshold of one size and rate, and whether it is extrapolated.

    A list longer than the pool is given the pool's threshold at the rate scaled down by the length: the union bound.
    """
    if size <= trials.pool:
        return trials.threshold(size, rate)
    return trials.threshold(trials.pool, rate * trials.pool / size)[0], True


def false_matches(non_mated: Histogram) -> list[FalseMatch]:
    """Score to FMR in steps of STEP; past the last LEAST_EVENTS comparisons an exponential tail, marked."""
    if non_mated.total < 1000:
        raise ConfigError(
            f"{non_mated.total} non-mated comparisons are too few to calibrate a score; give 50 identities or more"
        )
    tail, rows = _tail(non_mated), list[FalseMatch]()
    for score in np.arange(-0.2, 1.0 + STEP / 2, STEP):
        share = non_mated.share_at(float(score))
        events = round(share * non_mated.total)
        extrapolated = events < LEAST_EVENTS
        fmr = tail.rate_at(float(score)) if extrapolated else share
        upper = intervals.clopper_pearson(events, non_mated.total).high
        fmr = min(fmr, rows[-1].fmr) if rows else fmr
        rows.append(FalseMatch(score=round(float(score), 4), fmr=fmr, upper=max(upper, fmr), extrapolated=extrapolated))
    return rows


def record(
    trials: Trials,
    pairs: Verification,
    *,
    embedder: str,
    detector: str,
    made: float,
    data: str,
    data_sha256: str,
    normalisation: Normalisation | None = None,
) -> Calibration:
    """The whole record; `trials` are of scores as `normalisation` says, `pairs` of plain cosines.

    Raises ConfigError where the data cannot carry one.
    """
    if not (~np.isnan(trials.mated)).any():
        raise ConfigError("no identity has two stills, so no mated probe: a calibration needs some; add stills")
    return Calibration(
        format=1,
        embedder=embedder,
        detector=detector,
        made=made,
        data=data,
        data_sha256=data_sha256,
        normalisation=normalisation or Normalisation(),
        floor=round(point(trials, FLOOR_SIZE, FLOOR_RATE)[0], 6),
        false_matches=tuple(false_matches(pairs.non_mated)),
        thresholds=tuple(operating_points(trials)),
        likelihood=likelihood.fitted(pairs),
    )


def _tail(histogram: Histogram) -> Tail:
    """The greatest scores of a histogram, each at the lower edge of its bin."""
    counts, edges = histogram.counts[::-1], histogram.edges[::-1]
    taken = np.nonzero(counts)[0][:200]
    scores = np.repeat(edges[taken], np.minimum(counts[taken], 1000))
    return fit_tail(scores, np.full(len(scores), 1 / histogram.total))
