"""The report as one HTML file that needs nothing else: no script, no network, plots in it, light and dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from html import escape
from typing import Any

from provisioning.evaluation.plots import Bar, Line, bars, curves

STYLE = """
:root{color-scheme:light dark;--ink:#1a2230;--paper:#fff;--line:#c9d1dc;--soft:#f2f5f9;
--a:#1f5fbf;--b:#b3500d;--c:#1d7d4f;
--d:#8a3fb0;--e:#a3264f}
@media(prefers-color-scheme:dark){:root{--ink:#e4e9f1;--paper:#12161d;--line:#3a4556;--soft:#1b222d;
--a:#7fb2ff;--b:#f3a262;
--c:#6fd3a0;--d:#cf9bf0;--e:#f58bb0}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:62rem;
margin:2rem auto;padding:0 1rem}
h1{line-height:1.2}table{border-collapse:collapse;margin:.6rem 0;font-size:.9rem;
display:block;overflow-x:auto}
th,td{border-bottom:1px solid var(--line);padding:.25rem .6rem;text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left}thead th{background:var(--soft)}td.w{white-space:normal;text-align:left}
svg{width:100%;max-width:38rem;height:auto;display:block;margin:1rem 0}
svg text{font:12px system-ui,sans-serif;fill:var(--ink)}
svg .t{font-weight:600;font-size:14px}.g{stroke:var(--line);stroke-width:.7}polyline{fill:none;stroke-width:2}
.c0{stroke:var(--a)}.c1{stroke:var(--b)}.c2{stroke:var(--c)}.c3{stroke:var(--d)}.c4{stroke:var(--e)}.d0{fill:var(--a)}
line.c0,line.c1,line.c2,line.c3,line.c4{stroke-width:2}code{overflow-wrap:anywhere}.note{background:var(--soft);
border-left:4px solid var(--a);padding:.6rem 1rem}
"""


def render(report: dict[str, Any]) -> str:
    """The page of a report's data (figures.everything)."""
    packs = report["packs"]
    return "".join(
        [
            '<!doctype html><html lang="en"><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            f"<title>How often {escape(packs['embedder'])} errs</title><style>{STYLE}</style>",
            f"<h1>How often {escape(packs['embedder'])} errs, and for whom</h1>",
            _head(report),
            _verification(report["verification"]),
            _evidence(report["evidence"]),
            _identification(report["identification"]),
            _passes(report["passes"]),
            _groups(report),
            _conditions(report["conditions"]),
            _gains(report["gains"], report["operating_point"]),
            _published(report),
            "<h2>What this cannot show</h2><ul>" + "".join(f"<li>{escape(t)}</li>" for t in report["limits"]) + "</ul>",
            "</html>\n",
        ]
    )


def _head(report: dict[str, Any]) -> str:
    data, models = report["data"], report["models"]
    made = datetime.fromtimestamp(report["made"], timezone.utc)
    rows = [
        ("embedder", f"{report['packs']['embedder']}, <code>{models['embedder']}</code>"),
        ("detector", f"{report['packs']['detector']}, <code>{models['detector']}</code>"),
        ("data", f"{escape(data['name'])}: {escape(data['note'])} <code>{data['sha256']}</code>"),
        ("size", f"{data['stills']:,} stills, {data['identities']:,} identities, {data['distractors']:,} distractors"),
        ("no face found", _percent(data["failure_to_acquire"])),
        ("measured", f"{made:%Y-%m-%d %H:%M} UTC, vocabulary and method of ISO/IEC 19795-1"),
    ]
    body = "".join(f"<tr><td>{name}</td><td class=w>{text}</td></tr>" for name, text in rows)
    note = f"<p class=note><b>Photographs are not a street.</b> {escape(report['limits'][0])}</p>"
    return f"<table>{body}</table>{note}"


def _verification(part: dict[str, Any]) -> str:
    if not part["rows"]:
        return "<h2>One to one</h2><p>Too few comparisons for rates.</p>"
    rows = [[_rate(r["wanted_fmr"]), f"{r['threshold']:.4f}", _percent(r["fnmr"])] for r in part["rows"]]
    lines = [Line("all pairs", [(p["fmr"], p["fnmr"]) for p in part["det"]])]
    return (
        f"<h2>One to one</h2><p>{part['mated']:,} mated and {part['non_mated']:,} non-mated comparisons; "
        f"{part['words']}.</p>"
        + _table(("FMR", "threshold", "FNMR [95 %]"), rows)
        + curves("Verification DET", "false match rate", "false non-match rate", lines)
    )


def _evidence(part: dict[str, Any] | None) -> str:
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
        + _table(("Cllr (bits)", "least possible", "log10 LR that the data can support"), rows)
        + curves("Empirical cross-entropy", "prior odds", "bits", costs, log_y=False)
        + curves("Tippett plot", "likelihood ratio at or above", "share of comparisons", shares, log_y=False)
    )


def _identification(part: dict[str, Any]) -> str:
    if not part["rows"]:
        return "<h2>Open-set identification</h2><p>No identity has two stills: nothing to find.</p>"
    rows = [
        [
            f"{r['size']:,}",
            _rate(r["wanted_fpir"]),
            f"{r['threshold']:.4f}",
            _percent(r["tpir"]),
            _percent(r["fpir"], 3) if r["fpir"] else "",
            "extrapolated" if r["extrapolated"] else "measured",
        ]
        for r in part["rows"]
    ]
    lines = [Line(f"{int(s):,} references", [(p["fpir"], p["fnir"]) for p in c]) for s, c in part["det"].items()]
    ranks = [[f"{int(s):,}", *(f"{v:.4f}" for v in r.values())] for s, r in part["ranks"].items()]
    return (
        f"<h2>Open-set identification</h2><p>{part['mated_searches']:,} mated and "
        f"{part['non_mated_searches']:,} non-mated "
        f"searches of {part['identities_searched']:,} identities, averaged over all lists of each size that can be "
        f"drawn from {part['pool']:,} references; {part['words']}.</p>"
        + _table(("references", "wanted FPIR", "threshold", "TPIR, rank 1 [95 %]", "FPIR [95 %]", "basis"), rows)
        + curves("Identification DET", "FPIR", "FNIR at rank 1", lines)
        + "<h3>Whatever the score: own reference among the best</h3>"
        + _table(("references", "1", "5", "10"), ranks)
    )


def _passes(part: dict[str, Any] | None) -> str:
    if not part:
        return ""
    rows = [
        [
            r["operating_point"],
            f"{r['threshold']:.4f}",
            *(_percent(r[k]) for k in ("tpir", "tpir_seen_well", "fpir")),
            r["words"],
        ]
        for r in part["rows"]
    ]
    return (
        f"<h2>For each pass</h2><p>{part['passes']} passes and {part['stray_tracks']} stray tracks before "
        f"{part['references']:,} references. {escape(part.get('note', ''))}</p>"
        + _table(("operating point", "threshold", "TPIR [95 %]", "TPIR, five faces or more", "FPIR [95 %]", ""), rows)
    )


def _groups(report: dict[str, Any]) -> str:
    found, at = report["groups"], report["operating_point"]
    if not found:
        return "<h2>By group</h2><p>The data set has no labels, and none is inferred.</p>"
    worst = report["greatest_fmr_ratio"]
    dots = [Bar(g["group"], g["fmr"]["value"], g["fmr"]["low"], g["fmr"]["high"]) for g in found]
    return (
        f"<h2>By group</h2><p>At threshold {at['threshold']:.4f} (FPIR {_rate(at['fpir'])} with "
        f"{at['size']:,} references). "
        f"Impostors are of the same group. Greatest ratio: {escape(worst['group'])}, {_times(worst['fmr_ratio'])}. "
        "p: that the group errs as often as the best one, Holm-corrected over the attribute.</p>"
        + _group_table(found)
        + bars("False match rate within groups", "FMR (logarithmic)", dots, log=True)
        + _levelled(report["levelled"])
    )


def _levelled(part: dict[str, Any]) -> str:
    if not part["groups"]:
        return ""
    worst = part["greatest_fmr_ratio"]
    return (
        "<h3>With cohort normalisation of the references</h3><p>Each reference's threshold is raised by how much it "
        "resembles its nearest of a cohort of other identities of all groups; the operating point gives the same FPIR "
        f"on the named identities as above (moved score {part['threshold']:.4f}). Stills of the cohort take no part. "
        f"Greatest ratio: {escape(worst['group'])}, {_times(worst['fmr_ratio'])}.</p>" + _group_table(part["groups"])
    )


def _group_table(found: list[dict[str, Any]]) -> str:
    rows = [
        [
            g["group"],
            f"{g['stills']:,}",
            _percent(g["fmr"], 4),
            _times(g["fmr_ratio"]),
            f"{g['fmr_p']:.2g}",
            _percent(g["fpir"]),
            _percent(g["tpir"]),
            _percent(g["fnmr"]),
            "" if g["tpir_p"] is None else f"{g['tpir_p']:.2g}",
        ]
        for g in found
    ]
    return _table(("group", "stills", "FMR within", "ratio to best", "p", "FPIR", "TPIR", "FNMR", "p"), rows)


def _conditions(part: dict[str, Any]) -> str:
    rows = [
        [name, f"{r['from']:.3g} to {r['to']:.3g}", _percent(r["tpir"])] for name, found in part.items() for r in found
    ]
    if not rows:
        return ""
    words = (
        "Quarters of the mated probes by what the image is like: pixels between the eyes, sharpness, yaw, mean grey."
    )
    return f"<h2>By image condition</h2><p>{words}</p>" + _table(
        ("condition", "range", "mated score reaches threshold"), rows
    )


def _gains(found: list[dict[str, Any]], at: dict[str, Any]) -> str:
    if not found:
        return ""
    rows = [
        [
            g["way"] + (f" ({g['fitted']})" if g["fitted"] else ""),
            f"{g['probes']:,}",
            f"{g['plain']:.4f}",
            f"{g['tpir']:.4f}",
            f"{100 * g['gain']:+.1f} [{100 * g['low']:+.1f}, {100 * g['high']:+.1f}]",
        ]
        for g in found
    ]
    dots = [Bar(g["way"], max(g["gain"], 0) * 100, max(g["low"], 0) * 100, max(g["high"], 0) * 100) for g in found]
    return (
        f"<h2>The same models, compared better</h2><p>At FPIR {_rate(at['fpir'])} with "
        f"{at['size']:,} references, each way at "
        "its own threshold, on identities it was not fitted on; rows that name another rate are at that.</p>"
        + _table(("way", "probes", "plain cosine", "TPIR", "gain in points [95 %]"), rows)
        + bars("Gain over the plain cosine", "points of TPIR", dots)
    )


def _published(report: dict[str, Any]) -> str:
    rows = [
        [
            p["source"],
            p["test"],
            "" if p["tpir"] is None else f"{p['tpir']:.2f}",
            "" if p["fpir"] is None else (_rate(p["fpir"]) if p["fpir"] else "0"),
            "" if p["references"] is None else f"{p['references']:,}",
            p["note"],
        ]
        for p in report["published"]
    ]
    for r in report["identification"]["rows"]:
        if (r["size"], r["wanted_fpir"]) in ((1000, 1e-3), (10_000, 1 / 6000)):
            basis = "extrapolated" if r["extrapolated"] else "measured"
            name = "<b>this report, single stills</b>"
            rows.append([name, "photographs", _percent(r["tpir"]), _rate(r["wanted_fpir"]), f"{r['size']:,}", basis])
    names = ("source", "test", "TPIR", "FPIR", "references", "note")
    return "<h2>Beside published figures</h2>" + _table(names, rows, wide=(1, 5), raw=(0,))


def _table(
    names: Sequence[str], rows: Iterable[Sequence[str]], wide: tuple[int, ...] = (), raw: tuple[int, ...] = ()
) -> str:
    head = "".join(f"<th>{escape(n)}</th>" for n in names)
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{' class=w' if i in wide else ''}>{cell if i in raw else escape(cell)}</td>"
            for i, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _percent(value: dict[str, float] | None, digits: int = 1) -> str:
    if value is None:
        return ""
    return f"{value['value']:.{digits}%} [{value['low']:.{digits}%}, {value['high']:.{digits}%}]"


def _times(value: dict[str, float]) -> str:
    return f"{value['value']:.2f} [{value['low']:.2f}, {value['high']:.2f}]"


def _rate(value: float) -> str:
    return f"1 in {1 / value:,.0f}"
