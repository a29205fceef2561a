"""The pre-flight as a page for people: identifiers and figures, no images, no names."""

from __future__ import annotations

import html

from appliance.formats.preflight import Preflight
from appliance.times import utc
from provisioning.enrolment.report import STYLE

_SHOWN = 300


def page(report: Preflight) -> str:
    """The report as HTML, without anything from elsewhere."""
    verdict = _verdict(report)
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>Pre-flight</title>",
        f"<style>{STYLE}</style><h1>Pre-flight of a watchlist</h1><p class=note>{html.escape(verdict)}</p>",
        _figures(report),
        "".join(f"<p class=warn>{html.escape(w)}</p>" for w in report.warnings),
        _pairs(report), _wolves(report), _counts("Categories", report.categories),
        _counts("Age of the images, in years", report.image_years), "</html>",
    ]  # fmt: skip
    return "".join(parts)


def _verdict(report: Preflight) -> str:
    allowed = report.projected_fpir <= report.greatest_fpir
    word = "within" if allowed else "ABOVE"
    advice = "" if allowed else ". Raise the threshold or shorten the list; no order can be drafted"
    projected, most = 1 / max(report.projected_fpir, 1e-12), 1 / report.greatest_fpir
    return (
        f"{report.projected_alerts:.2f} false alerts to expect among {report.footfall} faces: 1 in {projected:,.0f}, "
        f"{word} the allowed 1 in {most:,.0f}{advice}."
    )


def _figures(report: Preflight) -> str:
    measured = "not measured"
    if report.cohort_fpir is not None and report.cohort_upper is not None:
        measured = f"{report.cohort_fpir:.2g}, at most {report.cohort_upper:.2g} (95 %)"
    rows = [
        ("made", utc(report.made)), ("references", f"{report.references} in {report.entries} templates"),
        ("of them under 18", str(report.minors)), ("threshold", f"{report.threshold:.3f}"),
        ("projected FPIR", f"{report.projected_fpir:.2g}, from the {report.projection}"),
        (f"FPIR on the cohort ({report.cohort.size} strangers)", measured),
        ("one reference's own rate", f"at most {report.reference_limit:.2g}"), ("content", report.content),
    ]  # fmt: skip
    return f"<table>{''.join(f'<tr><th>{html.escape(a)}<td>{html.escape(b)}' for a, b in rows)}</table>"


def _pairs(report: Preflight) -> str:
    if not report.look_alikes:
        return "<h2>Look-alikes</h2><p>None.</p>"
    rows = "".join(
        f"<tr><td>{html.escape(p.first)}<td>{html.escape(p.categories[0])}<td>{html.escape(p.second)}"
        f"<td>{html.escape(p.categories[1])}<td>{p.score:.3f}" for p in report.look_alikes[:_SHOWN]
    )  # fmt: skip
    head = "<tr><th>reference<th>category<th>reference<th>category<th>score"
    note = "<p>Siblings, twins, or one subject under two identifiers: look before the list is issued.</p>"
    return f"<h2>Look-alikes: {len(report.look_alikes)}</h2>{note}<table>{head}{rows}</table>"


def _wolves(report: Preflight) -> str:
    if not report.wolves:
        return "<h2>Wolves</h2><p>None found.</p>"
    rows = "".join(
        f"<tr><td>{html.escape(w.reference_identifier)}<td>{html.escape(w.category)}"
        f"<td>{w.mean:.3f} ± {w.deviation:.3f}"
        f"<td>{w.highest:.3f}<td>{w.rate:.2g}<td>{w.threshold:.3f}" for w in report.wolves[:_SHOWN]
    )  # fmt: skip
    head = "<tr><th>reference<th>category<th>against strangers<th>highest<th>own rate<th>its threshold"
    return f"<h2>Wolves: {len(report.wolves)}</h2><table>{head}{rows}</table>"


def _counts(title: str, counts: dict[str, int]) -> str:
    rows = "".join(f"<tr><td>{html.escape(name)}<td>{count}" for name, count in counts.items())
    return f"<h2>{title}</h2><table>{rows}</table>"
