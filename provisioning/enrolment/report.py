"""The enrolment report: what was refused and why, with thumbnails. It holds images, so it stays at base, 0600."""

from __future__ import annotations

import html
from collections import Counter
from pathlib import Path

from appliance.storage.files import write_private
from provisioning.enrolment.enrolment import Outcome, Summary

STYLE = """body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#1c2430}
table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid #d5dbe3;padding:.4rem;text-align:left;
vertical-align:top}img{max-width:112px;max-height:112px}.no{color:#a1122a}.warn{color:#8a5a00}
.note{background:#f1f4f8;padding:.7rem;border-left:4px solid #1f4e9c}"""
_ACCEPTED_SHOWN = 200  # accepted rows with warnings; all refused ones are shown


def write(summary: Summary, path: Path) -> None:
    """Write the report; nothing in it is taken for markup, whatever a cell of the list held."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(path, page(summary).encode())


def page(summary: Summary) -> str:
    """The report as HTML, without anything from elsewhere."""
    reasons = Counter(reason.split(":")[0][:80] for o in summary.refused for reason in o.reasons)
    warned = [o for o in summary.outcomes if o.accepted and o.warnings]
    return "".join(
        [
            "<!doctype html><html lang=en><meta charset=utf-8><title>Enrolment report</title>",
            f"<style>{STYLE}</style><h1>Enrolment report</h1>",
            "<p class=note>This page holds images of people. It stays at base and is erased with them.</p>",
            f"<p>{summary.rows} rows, {summary.accepted} images accepted, {len(summary.refused)} refused, "
            f"{summary.resumed} known from an earlier run.</p>",
            "".join(f"<p class=warn>{html.escape(w)}</p>" for w in summary.warnings),
            _counts(reasons), _table("Refused", summary.refused),
            _table("Accepted with warnings", warned[:_ACCEPTED_SHOWN]),
            "</html>",
        ]
    )  # fmt: skip


def _counts(reasons: Counter[str]) -> str:
    if not reasons:
        return ""
    rows = "".join(f"<tr><td>{count}<td>{html.escape(reason)}" for reason, count in reasons.most_common(40))
    return f"<h2>Reasons</h2><table>{rows}</table>"


def _table(title: str, outcomes: list[Outcome]) -> str:
    if not outcomes:
        return ""
    head = "<tr><th>line<th>reference<th>image<th>score<th>reasons and warnings<th>"
    return f"<h2>{title}: {len(outcomes)}</h2><table>{head}{''.join(_line(o) for o in outcomes)}</table>"


def _line(outcome: Outcome) -> str:
    score = "" if outcome.score is None else f"{outcome.score:.0f}"
    texts = "".join(f"<div class=no>{html.escape(r)}</div>" for r in outcome.reasons)
    texts += "".join(f"<div class=warn>{html.escape(w)}</div>" for w in outcome.warnings)
    image = f"<img alt='' src='data:image/jpeg;base64,{outcome.thumbnail}'>" if outcome.thumbnail else ""
    cells = (str(outcome.line), outcome.reference_identifier, outcome.image, score)
    return f"<tr>{''.join('<td>' + html.escape(c) for c in cells)}<td>{texts}<td>{image}"
