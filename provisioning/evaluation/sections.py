"""Sections of the report's page that are about people: passes, groups, evidence, and what better comparing gains."""

from __future__ import annotations

from html import escape
from typing import Any

from provisioning.evaluation.markup import percent, small, table, times
from provisioning.evaluation.plots import LEFT, Bar, Line, bars, curves
from provisioning.evaluation.table import rate

Figures = dict[str, Any]


def passes(part: Figures | None) -> str:
    """For each pass of somebody before a camera, with one photograph on the list and with several."""
    if not part:
        return ""
    return (
        f"<h2>For each pass</h2><p>{part['passes']} passes, {part['mated']} of them of somebody on the list, and "
        f"{part['stray_tracks']} stray tracks before {part['references']:,} references, with the unit's own rules of "
        f"an alert. {escape(part.get('note', ''))}</p>"
        + "".join(_list_of_passes(one) for one in part["lists"])
        + "".join(_gain_by_pass(row) for row in part["gains"] if "gain" in row)
        + "<p>Thresholds are the calibration record's, measured on stills. The passes' own are what their non-mated "
        "scores would set; with so few passes they are extrapolated far, by a tail that errs towards too high.</p>"
    )


def _gain_by_pass(row: Figures) -> str:
    gain = f"{100 * row['gain']:+.1f} points [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"
    return (
        f"<p>{row['stills']} photographs for one gain <b>{gain}</b> at the threshold for {row['operating_point']}, on "
        f"the {row['passes']} passes of those who have them (paired bootstrap).</p>"
    )


def _list_of_passes(part: Figures) -> str:
    title = "One photograph a reference" if part["stills"] == 1 else f"Up to {part['stills']} photographs fused"
    rows = [
        [r["operating_point"], f"{r['threshold']:.4f}", percent(r["tpir_seen_well"]), percent(r["fpir"]), r["words"]]
        for r in part["rows"]
    ]
    if most := part["of_most"]:
        rows += [
            [
                f"{r['operating_point']}; those with {most['stills']} photographs",
                "",
                percent(r["tpir_seen_well"]),
                "",
                "",
            ]
            for r in most["rows"]
        ]
    rows += [
        [
            f"{rate(r['wanted_fpir'])} with {r['size']:,} references, by the passes' own scores",
            f"{r['threshold']:.4f}",
            percent(r["tpir_seen_well"]),
            "",
            "extrapolated" if r["extrapolated"] else "measured",
        ]
        for r in part["own"]
    ]
    names = ("at the threshold for", "threshold", "TPIR, five faces or more [95 %]", "FPIR [95 %]", "")
    return f"<h3>{title}</h3>" + table(names, rows, wide=(0, 4))


def groups(report: Figures) -> str:
    """Rates by label at the operating threshold, and what cohort normalisation makes of them."""
    found, at = report["groups"], report["operating_point"]
    if not found:
        return "<h2>By group</h2><p>The data set has no labels, and none is inferred.</p>"
    worst = report["greatest_fmr_ratio"]
    dots = [Bar(g["group"], g["fmr"]["value"], g["fmr"]["low"], g["fmr"]["high"]) for g in found]
    return (
        f"<h2>By group</h2><p>At threshold {at['threshold']:.4f}, the calibration record's for FPIR {rate(at['fpir'])} "
        f"with {at['size']:,} references. Impostors are of the same group. p: that the group errs as often as the best "
        f"one, Holm-corrected over the attribute.</p><p><b>Greatest ratio of false match rates: "
        f"{escape(times(worst['fmr_ratio']))}, {escape(worst['group'])}.</b> One figure for all hides this: report "
        "each group's, choose the threshold by the group that fares worst, and watch alerts by group. The worst FMR "
        "over the geometric mean of an attribute's groups: "
        + ", ".join(f"{escape(n)} {v:.1f}" for n, v in report.get("worst_fmr_over_geometric_mean", {}).items())
        + ". FTA: stills in which no face was found, from which nobody can be enrolled either.</p>"
        + _group_table(found)
        + bars("False match rate within groups", "FMR (logarithmic)", dots, log=True)
        + _levelled(report["levelled"])
    )


def _levelled(part: Figures | None) -> str:
    if not part:
        return ""
    words = [
        f"{name}: {times(part[key]['greatest_fmr_ratio']['fmr_ratio'])} ({part[key]['greatest_fmr_ratio']['group']})"
        for key, name in (("plain", "plain cosine"), ("moved", "cohort normalisation"))
    ]
    both = [
        [
            a["group"], times(a["fmr_ratio"]), percent(a["tpir"]), times(b["fmr_ratio"]), percent(b["tpir"]),
        ]
        for a, b in zip(part["plain"]["groups"], part["moved"]["groups"], strict=True)
    ]  # fmt: skip
    names = ("adults", "ratio of FMR, plain", "TPIR", "ratio, normalised", "TPIR")
    return (
        "<h3>With cohort normalisation of the references</h3><p>Each reference's threshold is raised by how much it "
        "resembles its nearest of a cohort of other adults of all groups. Both ways at the same false match rate over "
        f"all adults together, {part['fmr']:.1e}; stills of the cohort take no part. Greatest ratio, "
        f"{escape('; '.join(words))}. Where a cohort of all groups is at hand, use it; "
        "then measure again, since a cohort that lacks a group does nothing for it.</p>" + table(names, both)
    )


def _group_table(found: list[Figures]) -> str:
    rows = [
        [
            g["group"],
            f"{g['stills']:,}",
            small(g["fmr"]),
            times(g["fmr_ratio"]),
            f"{g['fmr_p']:.2g}",
            percent(g["fpir"]),
            percent(g["tpir"]),
            "" if g["tpir_p"] is None else f"{g['tpir_p']:.2g}",
            percent(g.get("fta")),
        ]
        for g in found
    ]
    return table(("group", "stills", "FMR within", "ratio to best", "p", "FPIR", "TPIR", "p", "FTA"), rows)


def evidence(part: Figures | None) -> str:
    """Likelihood ratios: what they are not, what they cost, how they are spread."""
    if not part:
        return ""
    line, ece = part["line"], part["ece"]
    names = (("none", "no comparison"), ("calibrated", "calibrated"), ("best", "best possible (PAV)"))
    costs = [Line(name, [(10 ** r["prior"], r[key]) for r in ece]) for key, name in names]
    shares = [
        Line(name, [(10 ** r["log_ratio"], r[key]) for r in part["tippett"]])
        for key, name in (("mated", "mated"), ("non_mated", "non-mated"))
    ]
    rows = [[f"{part['cllr']:.4f}", f"{part['cllr_min']:.4f}", f"{line['least']:.2f} to {line['greatest']:.2f}"]]
    return (
        "<h2>As evidence</h2><p>log10 of the likelihood ratio of a comparison is "
        f"{line['slope']:.2f} x score {line['offset']:+.2f}. Below, {part['mated']:,} mated and {part['non_mated']:,} "
        "non-mated comparisons, each judged by a line fitted on other identities.</p>"
        "<p class=note><b>What it is not.</b> A likelihood ratio says how much more usual a score is between two "
        "stills of one identity than between stills of two. It is not the probability that they are of one: that "
        "depends on how many others could have walked by. It says nothing of what anybody did. No alert is decided "
        "by it, and no officer is shown it.</p>"
        + table(("Cllr (bits)", "least possible", "log10 LR that the data can support"), rows)
        + curves("Empirical cross-entropy", "prior odds", "bits", costs, log_y=False, key=LEFT)
        + curves("Tippett plot", "likelihood ratio at or above", "share of comparisons", shares, log_y=False)
    )


def gains(found: list[Figures]) -> str:
    """What each way of comparing gains over the plain cosine."""
    if not found:
        return ""
    rows = [
        [
            g["way"] + (f" ({g['fitted']})" if g["fitted"] else ""),
            f"{g['size']:,}",
            rate(g["fpir"]),
            f"{g['probes']:,}",
            f"{g['plain']:.1%}",
            f"{g['tpir']:.1%}",
            f"{100 * g['gain']:+.1f} [{100 * g['low']:+.1f}, {100 * g['high']:+.1f}]",
        ]
        for g in found
    ]
    dots = [Bar(g["way"], g["gain"] * 100, g["low"] * 100, g["high"] * 100) for g in found]
    return (
        "<h2>The same models, compared better</h2><p>Each way at its own threshold for the rate, on identities it was "
        "not fitted on; intervals are a paired bootstrap over identities, thresholds chosen anew in each draw. Where a "
        "list is filled up from another source, cohort normalisation also tells the sources apart, which no list of "
        "one source would gain from: the row without such distractors is the fair one.</p>"
        + table(("way", "list", "FPIR", "probes", "plain cosine", "TPIR", "gain in points [95 %]"), rows, wide=(0,))
        + bars("Gain over the plain cosine", "points of TPIR", dots)
    )
