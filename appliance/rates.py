"""Shares of counts with exact confidence intervals (Clopper and Pearson)."""

from __future__ import annotations

from appliance.records import Record


class Share(Record):
    """A share with its 95 % limits; the limits of nothing out of nothing are 0 and 1."""

    count: int
    of: int
    share: float
    low: float
    high: float


def share(count: int, of: int) -> Share:
    """A share with Clopper-Pearson's 95 % limits."""
    return Share(count=count, of=of, share=count / of if of else 0.0, low=lower(count, of, 0.025),
                 high=upper(count, of, 0.025))  # fmt: skip


def lower(count: int, of: int, chance: float) -> float:
    """Clopper-Pearson's one-sided lower limit: the share under which so many or more had that chance."""
    return 0.0 if count == 0 else _beta(chance, count, of - count + 1)


def upper(count: int, of: int, chance: float) -> float:
    """Clopper-Pearson's one-sided upper limit."""
    return 1.0 if count == of else _beta(1 - chance, count + 1, of - count)


def _beta(chance: float, a: int, b: int) -> float:
    """Quantile of the beta distribution."""
    from scipy.special import betaincinv  # slow to load, and courier, keeper and supervisor have no use for it

    return float(betaincinv(a, b, chance))
