"""The attestation as a page that a citizen can read: one HTML file, no script, no network, light and dark."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from html import escape

from appliance.attest.record import Attestation, Finding, Surface, short_digest

_STYLE = """
:root{color-scheme:light dark;--ink:#1a2230;--paper:#fff;--line:#c9d1dc;--soft:#f2f5f9;--good:#14663a;--bad:#a3261c}
@media(prefers-color-scheme:dark){:root{--ink:#e4e9f1;--paper:#12161d;--line:#3a4556;--soft:#1b222d;--good:#7fdcab;
--bad:#ff9c91}}
body{font:17px/1.55 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:50rem;margin:2rem auto;
padding:0 1rem}
h1{line-height:1.2}h2{margin-top:2rem}.sum{border-left:6px solid var(--good);background:var(--soft);padding:.7rem 1rem}
.sum.bad{border-color:var(--bad)}.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.92rem}
th,td{border-bottom:1px solid var(--line);padding:.4rem .6rem;text-align:left;vertical-align:top}
thead th{background:var(--soft)}.g{color:var(--good);font-weight:600}.b{color:var(--bad);font-weight:600}
code{overflow-wrap:anywhere}.key{font:600 1.5rem/1.4 ui-monospace,monospace;letter-spacing:.04em}small{opacity:.85}
"""
_TITLES = {
    "files": "Files", "outbox": "Outbox", "messages": "Printed messages", "journal": "The machine's diary",
    "local socket": "What camera handed to network", "figures": "The status screen's figures",
    "network": "Network traffic",
    "courier memory": "Memory of the network part", "swap": "Swap", "core files": "After a forced crash",
    "vision afterwards": "Memory of the camera part, afterwards", "control room": "The control room's screen",
}  # fmt: skip


def page(record: Attestation, blob: bytes) -> str:
    """The page of a signed attestation; `blob` is the signed file, whose digest the page shows."""
    verdict = "kept nothing" if record.passed else "did not pass"
    title = f"Unit {record.unit}: privacy test of {_day(record.ended)}"
    return "".join(
        [
            '<!doctype html><html lang="en-GB"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>",
            f"<h1>{escape(title)}</h1>",
            _summary(record, verdict),
            _what_was_done(record),
            _controls(record),
            _surfaces(record),
            _memory(record),
            "<h2>What was not searched</h2>", _items((*record.not_searched, *_not_here(record.surfaces))),
            _facts(record, blob),
            "</main></body></html>\n",
        ]
    )  # fmt: skip


def _summary(record: Attestation, verdict: str) -> str:
    done = record.done
    if not record.passed:
        return (
            f'<div class="sum bad"><p><b>This test {verdict}.</b> It does not show that the unit keeps nothing:</p>'
            f"{_items(record.faults)}</div>"
        )
    size = sum(s.size for s in record.surfaces if s.must == "hold nothing")
    return (
        f'<div class="sum"><p><b>In this test the unit {verdict} of people it was not looking for.</b> Its camera'
        f" followed {done.unmatched} faces that were not on the list, and {done.matched} that were. Afterwards"
        f" {_amount(size)} of files, messages and memory were searched for them, and no trace of any was found in a"
        f" place that lasts or leaves the van. Faces that were on the list left it only in {done.alerts} sealed alerts,"
        " which nobody but the control room can open.</p></div>"
    )


def _what_was_done(record: Attestation) -> str:
    return (
        "<h2>What was done</h2><p>The unit was given a recording in place of its camera. The people in it are synthetic"
        " or volunteers. It did what it does in a street: found faces, compared them with a watchlist, and sent sealed"
        f" alerts for those that matched. Then {record.needles:,} tell-tale pieces of these faces were looked for: runs"
        " of their pixels at the sizes the software uses, of their compressed pictures, and of the numbers that it"
        " makes of a face; at several moments of each. The test was also interrupted by a crash that was caused on"
        " purpose.</p>"
    )


def _controls(record: Attestation) -> str:
    rows = []
    for control in record.controls:
        result = f"{control.found} of {control.planted}"
        shown = _mark(control.good, result) if control.planted else escape(control.note)
        rows.append([escape(control.place.capitalize()), shown])
    live = ", ".join(record.live) or "none"
    return (
        "<h2>Would the search have found something?</h2><p>Before the test, one piece of every kind was hidden on"
        f" purpose, and had to be found:</p>{_table(('Hidden in', 'Found again'), rows)}<p>While faces were in front of"
        " the camera, their pieces were seen in"
        f" its working memory ({escape(live)}), where they must be: so the right things were "
        f"looked for. The chance that unrelated data look like one of them is below {_odds(record.chance)}.</p>"
    )


def _surfaces(record: Attestation) -> str:
    rows = []
    for surface in record.surfaces:
        if surface.searched and surface.must != "be told":
            about = f"<b>{escape(_TITLES[surface.name])}</b><br><small>{escape(surface.words)}</small>"
            note = f"<br><small>{escape(surface.note)}</small>" if surface.note else ""
            rows.append([about + note, _amount(surface.size), _result(surface)])
    return f"<h2>Where was searched</h2>{_table(('Place', 'Amount', 'Found'), rows)}"


def _result(surface: Surface) -> str:
    if not surface.findings:
        return _mark(True, "nothing")
    if surface.good:
        faces = max(f.canaries for f in surface.findings)
        return _mark(True, f"{faces} matched face(s), as it should be; nobody else")
    return _mark(False, "something that must not be there") + _items(_told(f) for f in surface.findings)


def _memory(record: Attestation) -> str:
    """Process memory after the last face: a finding about memory that cannot leave, told in any case."""
    parts = []
    for surface in record.surfaces:
        if surface.must != "be told":
            continue
        faces = [f for f in surface.findings if f.role == "track"]
        listed = [f for f in surface.findings if f.role == "reference"]
        parts.append(f"<h2>{escape(_TITLES[surface.name])}</h2><p>{escape(surface.words)}</p>")
        if not surface.searched:
            parts.append(f"<p>Not read here: {escape(surface.note)}</p>")
            continue
        parts.append(f"<p>{_amount(surface.size)} were read. ")
        parts.append("Of the faces that had passed, copies were left:</p>" + _items(_told(f) for f in faces) if faces
                     else "Of the faces that had passed, nothing was left.</p>")  # fmt: skip
        if listed:
            parts.append(
                "<p>The numbers of the watchlist itself were there, as they must be until the deployment ends.</p>"
            )
    return "".join(parts)


def _told(finding: Finding) -> str:
    whose = "of the watchlist" if finding.role == "reference" else "that matched" if finding.matched else "not matched"
    return f"{finding.kind} ({finding.encoding}): {finding.canaries} face(s) {whose}, {finding.occurrences} places"


def _not_here(surfaces: Iterable[Surface]) -> list[str]:
    return [f"{_TITLES[s.name]}: {s.note}" for s in surfaces if not s.searched]


def _facts(record: Attestation, blob: bytes) -> str:
    rows = [
        ("Unit and test", f"{record.unit}, {record.deployment}"),
        ("Time", f"{_moment(record.started)} to {_moment(record.ended)}"),
        ("Software", f"Bluelamp {record.software}"),
        ("Face finder (SHA-256)", record.models.detector), ("Face comparer (SHA-256)", record.models.embedder),
        ("Recording (SHA-256)", record.clip), ("Test kit (SHA-256)", record.kit),
        ("The camera part had given up", ", ".join(record.given_up) or "not reported"),
        ("Frames, faces followed, alerts", f"{record.done.frames}, {record.done.tracks}, {record.done.alerts}"),
        ("Forms searched", ", ".join(record.encodings)),
        ("Signed file (SHA-256)", hashlib.sha256(blob).hexdigest()),
    ]  # fmt: skip
    body = _table(("", ""), [[escape(name), f"<code>{escape(text)}</code>"] for name, text in rows])
    return (
        f"<h2>How to check this page</h2><p>The sign on the van shows the same sixteen characters:</p>"
        f'<p class="key">{short_digest(blob)}</p><p>They are made from the signed file beside this page. With the '
        "software, anyone can check that this unit signed it: <code>bluelamp-unit attest verify attestation.json"
        f" --roster roster.json</code></p>{body}"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    titles = f"<thead><tr>{top}</tr></thead>" if any(head) else ""
    return f'<div class="scroll"><table>{titles}<tbody>{body}</tbody></table></div>'


def _items(lines: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _mark(good: bool, text: str) -> str:
    return f'<span class="{"g" if good else "b"}">{"✓" if good else "✗"} {escape(text)}</span>'


def _amount(size: int) -> str:
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= step:
            return f"{size / step:.1f} {unit}"
    return f"{size} bytes"


def _odds(chance: float) -> str:
    return f"1 in {1 / max(chance, 1e-30):,.0f}"


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%d %B %Y").lstrip("0")


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
