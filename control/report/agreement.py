"""How far two people who judged the same pairs agree beyond chance: Cohen's kappa (1960), of verdicts without order."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import norm

from appliance.rates import Share, share
from appliance.records import Record

MANY = 30  # pairs
_LEVEL = 0.95
_NOTHING = 1e-12


class Agreement(Record):
    """Kappa with its 95 % limits, and the plain share of equal answers. None where kappa has no value."""

    pairs: int
    equal: Share
    kappa: float | None
    low: float | None
    high: float | None


def cohen(pairs: Sequence[tuple[str, str]]) -> Agreement:
    """Agreement of first with second answers. Kappa has no value where everybody always gave one and the same answer.

    The limits are those of Fleiss, Cohen and Everitt (1969), which are for large numbers: of fewer than MANY pairs, or
    where their width would be nothing, they are Clopper-Pearson's of the plain share, corrected for chance.
    """
    equal, count = sum(a == b for a, b in pairs), len(pairs)
    plain = share(equal, count)
    kinds = sorted({answer for pair in pairs for answer in pair})
    if len(kinds) < 2:
        return Agreement(pairs=count, equal=plain, kappa=None, low=None, high=None)
    p = np.zeros((len(kinds), len(kinds)))
    for a, b in pairs:
        p[kinds.index(a), kinds.index(b)] += 1 / count
    chance = float(p.sum(axis=1) @ p.sum(axis=0))
    kappa = (equal / count - chance) / (1 - chance)
    low, high = ((limit - chance) / (1 - chance) for limit in (plain.low, plain.high))
    variance = _variance(p, kappa, chance)
    if count >= MANY and variance > _NOTHING:
        half = float(norm.ppf(0.5 + _LEVEL / 2)) * math.sqrt(variance / count)
        low, high = kappa - half, kappa + half
    return Agreement(pairs=count, equal=plain, kappa=kappa, low=max(-1.0, low), high=min(1.0, high))


def _variance(p: np.ndarray, kappa: float, chance: float) -> float:
    """Of kappa, times the number of pairs. `p`: (kinds, kinds) shares, first answers down, second across."""
    first, second = p.sum(axis=1), p.sum(axis=0)
    diagonal = np.diag(p) * (1 - (first + second) * (1 - kappa)) ** 2
    others = p * (second[:, None] + first[None, :]) ** 2
    off = (1 - kappa) ** 2 * (others.sum() - np.trace(others))
    return float((diagonal.sum() + off - (kappa - chance * (1 - kappa)) ** 2) / (1 - chance) ** 2)
