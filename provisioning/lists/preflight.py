"""The pre-flight of a list: look-alikes, wolves, ages, and the false alerts to expect.

Look-alikes are pairs of different identifiers that could raise each other's alert: they score at or above the threshold
in use. Siblings, twins and one subject under two identifiers do. A policy may also ask for pairs below it.

Wolves are references that score high against strangers: each gets a threshold of its own, raised
until its own false-positive rate is within its limit.

A reference's own rate is read from its scores against the cohort. Rates below one in the cohort's size cannot be
counted, so the tail beyond is taken as normal with the reference's own mean and deviation, and the higher of the two
answers counts. The list's projected FPIR comes from the calibration for this size where the pack has one, else it is
the cohort's upper 95 % limit: a small cohort cannot show a small rate, and is not believed to.
"""

from __future__ import annotations

import datetime
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from appliance.errors import PackError
from appliance.formats.preflight import LookAlikes, Preflight, Wolf
from appliance.rates import upper
from appliance.recognition import calibration
from appliance.recognition.packs import Pack
from appliance.records import Floats
from provisioning.base import Base
from provisioning.lists.cohort import Strangers
from provisioning.lists.selection import Selection

_BLOCK = 2048  # rows compared at once: 100,000 entries fit in memory
_PAIRS = 2000  # look-alikes listed; more of them mean that the list or the threshold is wrong
_FAIR = 10.0  # a wolf takes more than this many times its fair share of the greatest FPIR


@dataclass(frozen=True)
class Question:
    """What the list is to be judged by."""

    threshold: float
    greatest_fpir: float
    footfall: int
    reference_limit: float | None = None  # of one reference's own rate; ten fair shares if not given


@dataclass(frozen=True)
class _Scores:
    """Of each reference over the cohort: what its best template scores. All arrays are (references,)."""

    mean: Floats
    deviation: Floats
    highest: Floats
    quantile: Floats  # the score at the limit's quantile, as far as the cohort can tell
    rate: Floats  # share of the cohort at or above the threshold


def examine(
    base: Base, selection: Selection, detector: Pack, embedder: Pack, strangers: Strangers, ask: Question
) -> Preflight:
    """The report. Raises PackError where the pack's calibration is malformed (none at all is a warning)."""
    names = list(dict.fromkeys(r.reference_identifier for r in selection.rows))
    limit = ask.reference_limit or min(ask.greatest_fpir, _FAIR * ask.greatest_fpir / len(names))
    owner = {name: i for i, name in enumerate(names)}
    owners = np.array([owner[r.reference_identifier] for r in selection.rows])
    scores = _cohort_scores(selection.templates, owners, len(names), strangers.templates, ask.threshold, limit)
    category = {r.reference_identifier: r.category for r in selection.rows}
    wolves = _wolves(names, category, scores, ask.threshold, limit, len(strangers.templates))
    warnings = [] if len(strangers.templates) else ["no cohort was given: wolves cannot be found"]
    false, warned = _projection(selection, owners, names, wolves, strangers, ask, embedder, detector)
    pairs = look_alikes(selection, base.policy.look_alike_share * ask.threshold)
    if len(pairs) > _PAIRS:
        warned.append(f"{len(pairs)} look-alikes, the {_PAIRS} closest are listed: is the threshold too low?")
    ages, minors = _people(selection)
    return Preflight(
        made=time.time(), content=selection.digest, models=selection.models, entries=len(selection.rows),
        references=len(names), threshold=ask.threshold, greatest_fpir=ask.greatest_fpir, reference_limit=limit,
        projected_fpir=false.rate, projection=false.source, cohort_fpir=false.measured, cohort_upper=false.upper,
        footfall=ask.footfall, projected_alerts=false.rate * ask.footfall, cohort=strangers.about,
        look_alikes=tuple(pairs[:_PAIRS]), wolves=tuple(wolves), image_years=ages, minors=minors,
        categories=dict(Counter(category.values())), warnings=tuple(warnings + warned),
    )  # fmt: skip


def look_alikes(selection: Selection, least: float) -> list[LookAlikes]:
    """Pairs of different identifiers that score `least` or more, closest first; one entry for a pair of identifiers."""
    names = [r.reference_identifier for r in selection.rows]
    best: dict[tuple[str, str], tuple[float, int, int]] = {}
    for start in range(0, len(names), _BLOCK):
        part = selection.templates[start : start + _BLOCK] @ selection.templates[start:].T
        for i, j in zip(*np.nonzero(part >= least), strict=True):
            a, b = start + int(i), start + int(j)
            if a < b and names[a] != names[b]:
                key = (min(names[a], names[b]), max(names[a], names[b]))
                best[key] = max(best.get(key, (-2.0, 0, 0)), (float(part[i, j]), a, b))
    rows = selection.rows
    found = [
        LookAlikes(first=rows[a].reference_identifier, second=rows[b].reference_identifier,
                   categories=(rows[a].category, rows[b].category), score=round(score, 4))
        for score, a, b in best.values()
    ]  # fmt: skip
    return sorted(found, key=lambda p: -p.score)


def _cohort_scores(
    templates: Floats, owners: npt.NDArray[Any], count: int, cohort: Floats, threshold: float, limit: float
) -> _Scores:
    """A reference's score against a stranger is that of its best template, as in a search."""
    if not len(cohort):
        zeros = np.zeros(count, np.float32)
        return _Scores(zeros, zeros, zeros - 1, zeros - 1, zeros)
    order = np.argsort(owners, kind="stable")
    starts = np.searchsorted(owners[order], np.arange(count))
    parts = []
    for begin in range(0, count, 512):
        end = min(begin + 512, count)
        last = starts[end] if end < count else len(order)
        rows = order[starts[begin] : last]
        scores = np.maximum.reduceat(templates[rows] @ cohort.T, starts[begin:end] - starts[begin], axis=0)
        quantile = np.quantile(scores, 1 - limit, axis=1, method="higher")
        parts.append((scores.mean(1), scores.std(1), scores.max(1), quantile, (scores >= threshold).mean(1)))
    return _Scores(*(np.concatenate(p).astype(np.float32) for p in zip(*parts, strict=True)))


def _wolves(
    names: list[str], category: dict[str, str], scores: _Scores, threshold: float, limit: float, size: int
) -> list[Wolf]:
    if not size:
        return []
    reach = float(norm.isf(limit))
    tail = scores.mean + reach * scores.deviation
    needed = np.maximum(tail, np.nextafter(scores.quantile, np.float32(2)))
    expected = norm.sf((threshold - scores.mean) / np.maximum(scores.deviation, 1e-6))
    found = []
    for i in np.nonzero(needed > threshold)[0]:
        found.append(
            Wolf(reference_identifier=names[i], category=category[names[i]], mean=round(float(scores.mean[i]), 4),
                 deviation=round(float(scores.deviation[i]), 4), highest=round(float(scores.highest[i]), 4),
                 rate=float(max(scores.rate[i], expected[i])), threshold=min(1.0, round(float(needed[i]) + 5e-5, 4)))
        )  # fmt: skip
    return sorted(found, key=lambda w: -w.rate)


@dataclass(frozen=True)
class _Projection:
    rate: float
    source: Literal["calibration", "cohort"]
    measured: float | None
    upper: float | None


def _projection(
    selection: Selection, owners: npt.NDArray[Any], names: list[str], wolves: list[Wolf], strangers: Strangers,
    ask: Question, embedder: Pack, detector: Pack,
) -> tuple[_Projection, list[str]]:  # fmt: skip
    """The list's FPIR at its thresholds, and warnings."""
    measured = above = None
    if size := len(strangers.templates):
        raised = {w.reference_identifier: w.threshold for w in wolves}
        thresholds = np.array([raised.get(n, ask.threshold) for n in names], np.float32)[owners]
        alerts = sum(
            int((strangers.templates[s : s + 256] @ selection.templates.T >= thresholds).any(1).sum())
            for s in range(0, size, 256)
        )
        measured, above = alerts / size, upper(alerts, size, 0.05)
    try:
        record = calibration.load(embedder)
        if record.detector != detector.digest:
            raise PackError("its calibration was measured with another detector pack")
        rate = record.fpir_at(len(selection.rows), ask.threshold)
        return _Projection(rate, "calibration", measured, above), []
    except PackError as error:
        warned = [f"no calibration, so the cohort alone speaks: {error}"]
        return _Projection(1.0 if above is None else above, "cohort", measured, above), warned


def _people(selection: Selection) -> tuple[dict[str, int], int]:
    """References by the age of their image, and how many are of minors."""
    rows = {r.reference_identifier: r for r in selection.rows}
    today = datetime.date.today()
    ages = Counter(_bucket((today - datetime.date.fromisoformat(r.image_date)).days / 365.25) for r in rows.values())
    order = ("under 1", "1 to 5", "5 to 10", "over 10")
    return {name: ages.get(name, 0) for name in order}, sum(r.under_18 for r in rows.values())


def _bucket(years: float) -> str:
    return "under 1" if years < 1 else "1 to 5" if years < 5 else "5 to 10" if years < 10 else "over 10"
