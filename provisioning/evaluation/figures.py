"""The report's numbers as plain data: what report.json holds, and what the page is drawn from."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from appliance.formats.published import figures as published_figures
from appliance.recognition.calibration import Likelihood
from provisioning.evaluation import calibrate, groups, intervals, likelihood, statistics
from provisioning.evaluation.evaluate import GROUP_RATE, GROUP_SIZE, SIZES, Evaluation, Levelled
from provisioning.evaluation.groups import Group
from provisioning.evaluation.intervals import Share
from provisioning.evaluation.passes import USABLE, Passes, References
from provisioning.evaluation.verification import Verification

FORMAT = 1
LEAST_PASSES = 100  # under which the passes' own scores set no threshold
POINTS = ((1000, 1e-3), (10_000, 1 / 6000))  # sizes and rates that passes are counted at
LIMITS = (
    "These are photographs, not a street. Faces that turn, move, hide in a crowd or stand in bad light cost TPIR "
    "that this test does not see; a laboratory's figure is from volunteers in a street. Frames of a pass hang "
    "together and a pass is compared several times, so rates for each pass differ from rates for each still.",
    "Intervals are for sampling only: Wilson's at the effective number of probes (stills of one identity hang "
    "together), Clopper-Pearson's for comparisons, which share stills, so the latter are narrower than the truth.",
    "Points marked extrapolated rest on fewer than ten events, or on a list longer than the references at hand: a "
    "fitted tail and the union bound give them, both of which err towards a threshold that is too high.",
    "Labels are the data sets' own, some given by an algorithm and not checked; mislabelled and doubled "
    "photographs are in both sets. What such pairs score counts against the model.",
    "UTKFace names nobody: two of its photographs may be of one subject, which counts as a false match, so its "
    "false match rates by group are upper limits. Photographs of it that resemble one of LFW to a teacher model "
    "were left out beforehand, so rates with its faces on the list are a little low for that model and its "
    "pupils.",
    "Where a group has no two stills of one identity, its mated probe is the reference's own photograph made "
    "small, soft, dark and compressed: its FNMR is a lower limit, fit to compare groups, not to quote.",
)


def verification(result: Verification) -> dict[str, Any]:
    """FNMR at usual false match rates, each with its threshold and intervals, and the DET curve."""
    rows = []
    for rate in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6):
        if not result.mated.total or rate * result.non_mated.total < 1:
            continue
        threshold = result.non_mated.threshold_at(rate)
        fmr, fnmr = result.fmr(threshold), result.fnmr(threshold)
        rows.append({"wanted_fmr": rate, "threshold": threshold, "fmr": share(fmr), "fnmr": share(fnmr)})
    curve = [{"threshold": t, "fmr": a, "fnmr": b} for t, a, b in statistics.det(result.mated, result.non_mated)]
    return {
        "mated": result.mated.total,
        "non_mated": result.non_mated.total,
        "words": intervals.in_words(result.non_mated.total) if result.non_mated.total else "",
        "rows": rows,
        "det": curve,
    }


def gained(test: Evaluation) -> list[dict[str, Any]]:
    """What each way of comparing better gains."""
    return [asdict(g) for g in test.gains]


def evidence_of(test: Evaluation) -> dict[str, Any] | None:
    """What log-likelihood ratios of a test's scores are worth."""
    return evidence(test.evidence, likelihood.fitted(test.verification))


def evidence(shown: likelihood.Shown | None, line: Likelihood | None) -> dict[str, Any] | None:
    """Costs and curves of log-likelihood ratios on identities that their line was not fitted on; `line` is of all."""
    if shown is None or line is None:
        return None
    nothing = likelihood.Evidence(np.zeros(1), np.ones(1), np.ones(1))
    return {
        "line": line.model_dump(),
        "mated": shown.mated,
        "non_mated": shown.non_mated,
        "cllr": shown.calibrated.cllr(),
        "cllr_min": shown.best.cllr(),
        "ece": [
            {"prior": p, "calibrated": shown.calibrated.ece(p), "best": shown.best.ece(p), "none": nothing.ece(p)}
            for p in likelihood.PRIORS
        ],
        "tippett": [{"log_ratio": v, "mated": a, "non_mated": b} for v, a, b in shown.calibrated.tippett()],
    }


def identification(test: Evaluation) -> dict[str, Any]:
    """TPIR and threshold at every size and rate, ranks and DET curves of the sizes that the pool allows."""
    if not test.points:
        return {"rows": [], "det": {}, "ranks": {}, "pool": test.trials.pool}
    sizes = [s for s in SIZES if s <= test.trials.pool]
    searched = len(np.unique(test.trials.identities))
    return {
        "pool": test.trials.pool,
        "non_mated_searches": len(test.trials.identities),
        "identities_searched": searched,
        "mated_searches": int((~np.isnan(test.trials.mated)).sum()),
        "words": intervals.in_words(len(test.trials.identities)),
        "rows": [
            {
                "size": p.size,
                "wanted_fpir": p.fpir,
                "threshold": p.threshold,
                "extrapolated": p.extrapolated,
                "fpir": share(p.measured) if p.measured else None,
                "tpir": share(p.tpir),
            }
            for p in test.points
        ],
        "ranks": {str(s): {str(r): v for r, v in test.trials.ranks(s).items()} for s in sizes},
        "det": {str(s): [{"threshold": t, "fpir": a, "fnir": b} for t, a, b in test.trials.det(s)] for s in sizes},
    }


def by_group(found: list[Group]) -> list[dict[str, Any]]:
    """Rows in the form that arming checks: `group`, `tpir`, `fpir` and what belongs to them."""
    return [
        {
            "group": f"{g.attribute}: {g.label}",
            "attribute": g.attribute,
            "label": g.label,
            "stills": g.stills,
            "tpir": share(g.tpir) if g.tpir else None,
            "fpir": share(g.fpir),
            "fmr": share(g.fmr),
            "fnmr": share(g.fnmr) if g.fnmr else None,
            "fmr_ratio": dict(zip(("value", "low", "high"), g.fmr_ratio, strict=True)),
            "fta": share(g.fta) if g.fta else None,
            "fmr_p": g.fmr_p,
            "tpir_p": g.tpir_p,
        }
        for g in found
    ]


def levelled(found: Levelled | None) -> dict[str, Any] | None:
    """Groups of adults at one overall false match rate, by plain cosines and with cohort normalisation."""
    if found is None:
        return None
    ways = (("plain", found.threshold, found.plain), ("moved", found.moved_threshold, found.moved))
    return {"fmr": found.rate} | {
        name: {"threshold": threshold, "groups": by_group(rows), "greatest_fmr_ratio": by_group([worst])[0]}
        for name, threshold, rows in ways
        if (worst := groups.greatest_ratio(rows)) is not None
    }


def by_pass(found: list[tuple[References, Passes]], thresholds: dict[str, float]) -> dict[str, Any]:
    """Rates over passes: at named thresholds (those of stills), and at the thresholds that the passes set themselves.

    Every list is given the same passes. Where some references are fused from several photographs, the rates of just
    those are given for each list, so that one photograph and several are compared on the same passes.
    """
    result = found[0][1]
    most = found[-1][0]
    return {
        "passes": len(result.seen),
        "mated": sum(s.reference_identifier is not None for s in result.seen),
        "stray_tracks": len(result.strays),
        "references": result.references,
        "lists": [
            {
                "stills": listed.stills,
                "rows": [_at_threshold(n, t, passes) for n, t in thresholds.items()],
                "own": [_at_rate(passes, size, rate) for size, rate in POINTS if len(result.seen) >= LEAST_PASSES],
                "of_most": {"stills": most.stills, "rows": _of_most(passes, thresholds, most)}
                if len(found) > 1
                else None,
            }
            for listed, passes in found
        ],
        "gains": [_gained_by_pass(n, t, result, found[-1][1], most) for n, t in thresholds.items() if len(found) > 1],
    }


def _at_threshold(name: str, threshold: float, passes: Passes) -> dict[str, Any]:
    tpir, seen, false = passes.tpir(threshold), passes.tpir(threshold, USABLE), passes.fpir(threshold)
    return {
        "operating_point": name,
        "threshold": threshold,
        "tpir": share(tpir) if tpir else None,
        "tpir_seen_well": share(seen) if seen else None,
        "fpir": share(false) if false else None,
        "words": intervals.in_words(int(false.trials)) if false and not false.events else "",
    }


def _at_rate(passes: Passes, size: int, rate: float) -> dict[str, Any]:
    """At the threshold that the passes' own non-mated scores set: every pass counts, its own reference left out."""
    threshold, extrapolated = calibrate.point(passes.trials(), size, rate)
    seen = passes.tpir(threshold, USABLE)
    return {
        "size": size,
        "wanted_fpir": rate,
        "threshold": threshold,
        "extrapolated": extrapolated,
        "tpir_seen_well": share(seen) if seen else None,
    }


def _gained_by_pass(name: str, threshold: float, one: Passes, several: Passes, most: References) -> dict[str, Any]:
    """What several photographs gain on the passes of just those who have them, at one threshold."""
    before, after = (p.found(threshold, USABLE, most.fused) for p in (one, several))
    row = {"operating_point": name, "stills": most.stills, "passes": len(before)}
    return (
        row | dict(zip(("gain", "low", "high"), intervals.paired(before, after), strict=True)) if len(before) else row
    )


def _of_most(passes: Passes, thresholds: dict[str, float], most: References) -> list[dict[str, Any]]:
    rates = ((name, passes.tpir(t, USABLE, most.fused)) for name, t in thresholds.items())
    return [{"operating_point": name, "tpir_seen_well": share(rate) if rate else None} for name, rate in rates]


def everything(test: Evaluation, passes: dict[str, Any] | None = None) -> dict[str, Any]:
    """The whole report. Keys `models`, `made` and `groups` are what a unit checks before it arms."""
    greatest = groups.greatest_ratio(test.groups)
    return {
        "format": FORMAT,
        "made": test.made,
        "models": {"detector": test.detector.digest, "embedder": test.embedder.digest},
        "packs": {
            "detector": f"{test.detector.manifest.name} {test.detector.manifest.version}",
            "embedder": f"{test.embedder.manifest.name} {test.embedder.manifest.version}",
        },
        "data": {
            "name": test.dataset.name,
            "note": test.dataset.note,
            "sha256": test.dataset.digest,
            "stills": len(test.dataset.stills),
            "identities": len(np.unique(test.dataset.identities[~test.dataset.distractors])),
            "distractors": int(test.dataset.distractors.sum()),
            "failure_to_acquire": share(test.failures),
        },
        "verification": verification(test.verification),
        "evidence": evidence_of(test),
        "identification": identification(test),
        "operating_point": {"size": GROUP_SIZE, "fpir": GROUP_RATE, "threshold": test.threshold},
        "groups": by_group(test.groups),
        "greatest_fmr_ratio": by_group([greatest])[0] if greatest else None,
        "worst_fmr_over_geometric_mean": groups.over_mean(test.groups),
        "levelled": levelled(test.levelled),
        "conditions": {
            name: [{"from": low, "to": high, "tpir": share(found)} for low, high, found in rows]
            for name, rows in test.conditions.items()
        },
        "gains": gained(test),
        "passes": passes,
        "published": [asdict(p) for p in published_figures()],
        "limits": list(LIMITS),
    }


def share(value: Share) -> dict[str, float]:
    """A share as plain numbers."""
    return {k: float(v) for k, v in asdict(value).items()}
