"""Verification and open-set identification figures from templates, by ISO/IEC 19795-1's names.

TAR at FAR: every pair of photographs once; mated when the identities are equal. A score passes when it is greater than
the threshold, and the threshold is the score that leaves at most FAR * non-mated pairs above it. TPIR at FPIR: a
mated probe counts when its own reference is the best candidate and passes; FPIR is the share of non-mated searches with
any candidate that passes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Names = npt.NDArray[np.str_]

FALSE_ACCEPT_RATES = (1e-3, 1e-4, 1e-5, 1e-6)
_BLOCK = 1024


@dataclass(frozen=True)
class Verification:
    """TAR by FAR, and on how many pairs."""

    accept: dict[float, float]
    thresholds: dict[float, float]
    mated: int
    non_mated: int


@dataclass(frozen=True)
class Identification:
    """TPIR at one FPIR with ``references`` references, one still each, and how many probes it rests on."""

    identified: float
    rate: float
    threshold: float
    references: int
    mated: int
    non_mated: int


def threshold_at(non_mated: Floats, rate: float) -> float:
    """The score above which at most ``rate`` of the non-mated scores lie."""
    above = int(np.floor(rate * len(non_mated)))
    return float(np.partition(non_mated, -above - 1)[-above - 1])


def verification(templates: Floats, identities: Names, rates: tuple[float, ...] = FALSE_ACCEPT_RATES) -> Verification:
    """All pairs of ``templates`` (N, length), unit length, with N ``identities``."""
    mated, non_mated = pair_scores(templates, identities)
    limits = {rate: threshold_at(non_mated, rate) for rate in rates}
    accept = {rate: float((mated > limit).mean()) for rate, limit in limits.items()}
    return Verification(accept, limits, len(mated), len(non_mated))


def pair_scores(templates: Floats, identities: Names) -> tuple[Floats, Floats]:
    """Scores of all mated and of all non-mated pairs, each pair once."""
    _, group = np.unique(identities, return_inverse=True)
    mated, non_mated = [], []
    for start in range(0, len(templates), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(templates)))
        scores = templates[rows] @ templates.T
        later = np.arange(len(templates))[None] > rows[:, None]
        same = group[rows][:, None] == group[None]
        mated.append(scores[later & same])
        non_mated.append(scores[later & ~same])
    return np.concatenate(mated), np.concatenate(non_mated)


def identification(
    references: Floats,
    reference_names: Names,
    probes: Floats,
    probe_names: Names,
    mated: npt.NDArray[np.intp],
    rate: float = 1e-3,
) -> Identification:
    """Open-set search of every probe in ``references``; the best candidate decides.

    Every probe makes a non-mated search, with its own name's reference taken off the list; rows ``mated`` make a mated
    search too.
    """
    own = probe_names[:, None] == reference_names[None]
    scores = probes @ references.T
    false = np.where(own, np.float32(-2), scores).max(1)
    limit = threshold_at(false, rate)
    true = np.where(own, scores, np.float32(-2)).max(1)[mated]
    identified = float(((true > limit) & (true > false[mated])).mean())
    return Identification(identified, rate, limit, len(references), len(mated), len(probes))
