"""Does it err more often for some than for others? Rates by label, with intervals, ratios and corrected tests.

False matches are counted within a group, as FRVT part 3 does: impostors of one's own sex, age band or ethnicity label
are the ones that a watchlist of such people holds. Labels are the data set's. Every group is compared with the one
that fares best; Holm's correction is over all tests of an attribute. Groups of fewer than LEAST stills are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from appliance.records import Floats
from provisioning.evaluation import intervals
from provisioning.evaluation.intervals import Share
from provisioning.evaluation.statistics import Histogram
from provisioning.evaluation.verification import BLOCK

LEAST = 100
Labels = npt.NDArray[np.str_]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """One label's rates at one threshold. `fmr` counts comparisons within the group, `fpir` searches of its stills in
    lists of all groups; `fnmr` and `tpir` are None where the data has no mated stills of the group.

    `fmr_ratio` is over the attribute's best group, with limits; `fmr_p` tests the difference, corrected. `fta` is the
    share of the label's stills in which no face was found: a failure to acquire, and to enrol from that still.
    """

    attribute: str
    label: str
    stills: int
    fmr: Share
    fpir: Share
    fnmr: Share | None
    tpir: Share | None
    fmr_ratio: tuple[float, float, float]
    fmr_p: float
    tpir_p: float | None
    fta: Share | None = None


@dataclass(frozen=True)
class Labelled:
    """Labelled stills: templates (n, length), as probes and as references, and the outcome of each one's searches.

    A reference has one number more where its scores are moved (see `moved`), and so has its probe.
    `mated` is the score of a mated comparison of each still; `alone` the greatest score in a list of other
    identities of all groups; `first` whether the mated score was also greater than that.
    """

    templates: Floats
    references: Floats
    identities: Numbers
    mated: Floats
    alone: Floats

    @property
    def first(self) -> npt.NDArray[np.bool_]:
        """(n,) whether the mated score is greater than all others."""
        return np.asarray(self.mated > self.alone, bool)


def by_attribute(stills: Labelled, attribute: str, labels: Labels, threshold: float) -> list[Group]:
    """Rates of every label of one attribute at a threshold, in the labels' order."""
    names = [str(n) for n, count in zip(*np.unique(labels, return_counts=True), strict=True) if n and count >= LEAST]
    if not names:
        return []
    rows = {name: np.nonzero(labels == name)[0] for name in names}
    fmr = {
        name: within(stills.templates[r], stills.references[r], stills.identities[r], threshold)
        for name, r in rows.items()
    }
    fpir = {n: intervals.clopper_pearson(int((stills.alone[r] >= threshold).sum()), len(r)) for n, r in rows.items()}
    fnmr = {name: _missed(stills, r, threshold) for name, r in rows.items()}
    tpir = {name: _found(stills, r, threshold) for name, r in rows.items()}
    best = min(names, key=lambda n: (fmr[n].value, -fmr[n].trials))
    p = dict(zip(names, intervals.holm(np.array([_p(fmr[n], fmr[best]) for n in names])), strict=True))
    q = _tpir_tests(names, tpir)
    return [
        Group(
            attribute, n, len(rows[n]), fmr[n], fpir[n], fnmr[n], tpir[n], _ratio(fmr[n], fmr[best]), float(p[n]), q[n]
        )
        for n in names
    ]


def moved(probes: Floats, references: Floats, shift: Floats) -> tuple[Floats, Floats]:
    """Probes and references whose product is the score moved by each reference's `shift` (m,): one number is added."""
    ones = np.ones((len(probes), 1), np.float32)
    return np.hstack([probes, ones]), np.hstack([references, shift[:, None].astype(np.float32)])


def within(probes: Floats, references: Floats, identities: Numbers, threshold: float) -> Share:
    """FMR among stills of one group: every pair of different identities once, Clopper-Pearson."""
    events = trials = 0
    for scores in _pairs(probes, references, identities):
        events += int(np.count_nonzero(scores >= threshold))
        trials += len(scores)
    return intervals.clopper_pearson(events, max(trials, 1))


def comparisons(stills: Labelled) -> Histogram:
    """Scores of every pair of different identities once, whatever their groups; moved ones may lie outside -1 to 1."""
    found = Histogram(-2.0, 2.0)
    for scores in _pairs(stills.templates, stills.references, stills.identities):
        found.add(scores)
    return found


def _pairs(probes: Floats, references: Floats, identities: Numbers) -> Iterator[Floats]:
    """Scores of pairs of different identities, each once, in blocks."""
    for start in range(0, len(probes), BLOCK):
        rows = slice(start, start + BLOCK)
        scores = probes[rows] @ references[start:].T
        other = identities[rows][:, None] != identities[start:]
        other &= np.arange(scores.shape[1]) > np.arange(scores.shape[0])[:, None]
        yield scores[other]


def over_mean(groups: list[Group]) -> dict[str, float]:
    """For each attribute, the worst group's FMR over the geometric mean of all its groups' (ISO/IEC 19795-10).

    Half an event is added to every group of an attribute of which one has none.
    """
    found: dict[str, float] = {}
    for attribute in dict.fromkeys(group.attribute for group in groups):
        rates = [group.fmr for group in groups if group.attribute == attribute]
        add = 0.5 if any(rate.events == 0 for rate in rates) else 0.0
        values = np.array([(rate.events + add) / (rate.trials + add) for rate in rates])
        found[attribute] = float(values.max() / np.exp(np.log(values).mean()))
    return found


def greatest_ratio(groups: list[Group]) -> Group | None:
    """The group whose FMR is furthest above the best one's."""
    return max(groups, key=lambda g: g.fmr_ratio[0], default=None)


def by_condition(
    values: Floats, scores: Floats, owners: Numbers, threshold: float, parts: int = 4
) -> list[tuple[float, float, Share]]:
    """TPIR of mated probes in equal parts of an image condition: (least value, greatest value, share)."""
    usable = ~np.isnan(scores)
    values, scores, owners = values[usable], scores[usable], owners[usable]
    if len(values) < parts:
        return []
    edges = np.quantile(values, np.linspace(0, 1, parts + 1))
    place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, parts - 1)
    rows = (np.nonzero(place == part)[0] for part in range(parts))
    return [
        (
            float(values[r].min()),
            float(values[r].max()),
            intervals.clustered((scores[r] >= threshold).astype(float), owners[r]),
        )
        for r in rows
        if len(r)
    ]


def _missed(stills: Labelled, rows: Numbers, threshold: float) -> Share | None:
    mated = stills.mated[rows][~np.isnan(stills.mated[rows])]
    return intervals.clopper_pearson(int((mated < threshold).sum()), len(mated)) if len(mated) else None


def _found(stills: Labelled, rows: Numbers, threshold: float) -> Share | None:
    rows = rows[~np.isnan(stills.mated[rows])]
    if not len(rows):
        return None
    found = (stills.mated[rows] >= threshold) & stills.first[rows]
    return intervals.clopper_pearson(int(found.sum()), len(rows))


def _ratio(group: Share, best: Share) -> tuple[float, float, float]:
    """FMR over the best group's, and its limits; half an event is added where one has none."""
    low, high = intervals.ratio(group, best)
    add = 0.5 if min(group.events, best.events) == 0 else 0.0
    middle = ((group.events + add) / (group.trials + add)) / ((best.events + add) / (best.trials + add))
    return middle, low, high


def _p(a: Share, b: Share) -> float:
    return intervals.differ((round(a.events), round(b.events)), (round(a.trials), round(b.trials)))


def _tpir_tests(names: list[str], shares: dict[str, Share | None]) -> dict[str, float | None]:
    known = [(n, s) for n in names if (s := shares[n]) is not None]
    if not known:
        return dict.fromkeys(names)
    best = max((s for _, s in known), key=lambda s: s.value)
    corrected = intervals.holm(np.array([_p(s, best) for _, s in known]))
    return {**dict.fromkeys(names), **{n: float(c) for (n, _), c in zip(known, corrected, strict=True)}}
