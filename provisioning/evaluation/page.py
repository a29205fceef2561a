"""The report as one HTML file that needs nothing else: no script, no network, plots in it, light and dark."""

from __future__ import annotations

from datetime import datetime, timezone
from html import escape
from typing import Any

from provisioning.evaluation import sections
from provisioning.evaluation.markup import STYLE, percent, table, times
from provisioning.evaluation.plots import Line, curves
from provisioning.evaluation.table import rate

OURS = ((1000, 1e-3), (10_000, 1 / 6000))  # what is put beside published figures


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
            _summary(report),
            _verification(report["verification"]),
            sections.evidence(report["evidence"]),
            _identification(report["identification"]),
            sections.passes(report["passes"]),
            sections.groups(report),
            _conditions(report["conditions"]),
            sections.gains(report["gains"]),
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
        ("no face found", percent(data["failure_to_acquire"])),
        ("measured", f"{made:%Y-%m-%d %H:%M} UTC, vocabulary and method of ISO/IEC 19795-1"),
    ]
    body = "".join(f"<tr><td>{name}</td><td class=w>{text}</td></tr>" for name, text in rows)
    return f"<table>{body}</table>"


def _summary(report: dict[str, Any]) -> str:
    lines = [
        f"{percent(r['tpir'])} of single stills are found at FPIR {rate(r['wanted_fpir'])} with {r['size']:,} "
        f"references ({'extrapolated' if r['extrapolated'] else 'measured'})."
        for r in report["identification"]["rows"]
        if (r["size"], r["wanted_fpir"]) in OURS
    ]
    for part in (report["passes"] or {"lists": []})["lists"]:
        many = "one reference photograph" if part["stills"] == 1 else f"up to {part['stills']} reference photographs"
        lines += [
            f"{percent(r['tpir_seen_well'])} of composed passes with {many} are found at the threshold for "
            f"{r['operating_point']}."
            for r in part["rows"]
        ]
    if worst := report["greatest_fmr_ratio"]:
        lines.append(
            f"False match rates within groups differ by up to {times(worst['fmr_ratio'])} times ({worst['group']}): a "
            "threshold set on one population does not hold on another."
        )
    note = f"<p class=note><b>Photographs are not a street.</b> {escape(report['limits'][0])}</p>"
    return "<h2>In short</h2><ul>" + "".join(f"<li>{escape(text)}</li>" for text in lines) + f"</ul>{note}"


def _verification(part: dict[str, Any]) -> str:
    if not part["rows"]:
        return "<h2>One to one</h2><p>Too few comparisons for rates.</p>"
    rows = [[rate(r["wanted_fmr"]), f"{r['threshold']:.4f}", percent(r["fnmr"])] for r in part["rows"]]
    lines = [Line("all pairs", [(p["fmr"], p["fnmr"]) for p in part["det"]])]
    return (
        f"<h2>One to one</h2><p>{part['mated']:,} mated and {part['non_mated']:,} non-mated comparisons; "
        f"at best, {part['words']}.</p>"
        + table(("FMR", "threshold", "FNMR [95 %]"), rows)
        + curves("Verification DET", "false match rate", "false non-match rate", lines)
    )


def _identification(part: dict[str, Any]) -> str:
    if not part["rows"]:
        return "<h2>Open-set identification</h2><p>No identity has two stills: nothing to find.</p>"
    rows = [
        [
            f"{r['size']:,}",
            rate(r["wanted_fpir"]),
            f"{r['threshold']:.4f}",
            percent(r["tpir"]),
            percent(r["fpir"], 3) if r["fpir"] else "",
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
        f"drawn from {part['pool']:,} references; at best, {part['words']}.</p>"
        + table(("references", "wanted FPIR", "threshold", "TPIR, rank 1 [95 %]", "FPIR [95 %]", "basis"), rows)
        + curves("Identification DET", "FPIR", "FNIR at rank 1", lines)
        + "<h3>Whatever the score: own reference among the best</h3>"
        + table(("references", "1", "5", "10"), ranks)
    )


def _conditions(part: dict[str, Any]) -> str:
    rows = [
        [name, f"{r['from']:.3g} to {r['to']:.3g}", percent(r["tpir"])] for name, found in part.items() for r in found
    ]
    if not rows:
        return ""
    words = (
        "Quarters of the mated probes by what the image is like: pixels between the eyes, sharpness, yaw, mean grey."
    )
    return f"<h2>By image condition</h2><p>{words}</p>" + table(
        ("condition", "range", "mated score reaches threshold"), rows
    )


def _published(report: dict[str, Any]) -> str:
    rows = [
        [
            p["source"],
            p["test"],
            "" if p["tpir"] is None else f"{p['tpir']:.2f}",
            "" if p["fpir"] is None else (rate(p["fpir"]) if p["fpir"] else "0"),
            "" if p["references"] is None else f"{p['references']:,}",
            p["note"],
        ]
        for p in report["published"]
    ]
    theirs, ours = len(rows), _ours(report)
    return (
        "<h2>Beside published figures</h2><p>Theirs are of streets and volunteers, ours of photographs and of a "
        "composed street: the two cannot be read off one scale.</p>"
        + table(
            ("source", "test", "TPIR", "FPIR", "references", "note"),
            rows + ours,
            wide=(0, 1, 5),
            ours=tuple(range(theirs, theirs + len(ours))),
        )
    )


def _ours(report: dict[str, Any]) -> list[list[str]]:
    rows = []
    for r in report["identification"]["rows"]:
        if (r["size"], r["wanted_fpir"]) in OURS:
            basis = "extrapolated" if r["extrapolated"] else "measured"
            point = [percent(r["tpir"]), rate(r["wanted_fpir"]), f"{r['size']:,}", basis]
            rows.append(["this report", "photographs, one probe still, one reference still", *point])
    for part in (report["passes"] or {"lists": []})["lists"]:
        for r in part["rows"]:
            test = f"composed passes, {part['stills']} reference photograph{'s' if part['stills'] > 1 else ''} at most"
            note = f"at the stills' threshold for {r['operating_point']}"
            rows.append(["this report", test, percent(r["tpir_seen_well"]), percent(r["fpir"]), "", note])
    return rows
