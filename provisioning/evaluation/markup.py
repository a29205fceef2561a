"""The pieces a report's page is made of: its style, tables, and numbers as readers expect them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from provisioning.evaluation.table import share

STYLE = """
:root{color-scheme:light dark;--ink:#1a2230;--paper:#fff;--line:#c9d1dc;--soft:#f2f5f9;--dim:#51607a;
--a:#1f5fbf;--b:#b3500d;--c:#1d7d4f;--d:#8a3fb0;--e:#a3264f}
@media(prefers-color-scheme:dark){:root{--ink:#e4e9f1;--paper:#12161d;--line:#3a4556;--soft:#1b222d;--dim:#a3b0c4;
--a:#7fb2ff;--b:#f3a262;--c:#6fd3a0;--d:#cf9bf0;--e:#f58bb0}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:70rem;margin:2rem auto;
padding:0 1rem}
h1{line-height:1.2}h2{margin-top:2.4rem;border-top:1px solid var(--line);padding-top:1rem}p,li{max-width:48rem}
table{border-collapse:collapse;margin:.6rem 0;font-size:.875rem;font-variant-numeric:tabular-nums;display:block;
overflow-x:auto}
th,td{border-bottom:1px solid var(--line);padding:.25rem .5rem;text-align:right;white-space:nowrap;vertical-align:top}
th:first-child,td:first-child{text-align:left}thead th{background:var(--soft);vertical-align:bottom}
th.w,td.w{white-space:normal;text-align:left;min-width:13rem}td small{color:var(--dim)}
tr.ours td{background:var(--soft)}
svg{width:100%;max-width:42rem;height:auto;display:block;margin:1rem 0}
svg text{font:12px system-ui,sans-serif;fill:var(--ink)}svg .t{font-weight:600;font-size:14px}
.g{stroke:var(--line);stroke-width:.7}.z{stroke:var(--dim);stroke-width:1}polyline{fill:none;stroke-width:2}
.c0{stroke:var(--a)}.c1{stroke:var(--b);stroke-dasharray:7 3}.c2{stroke:var(--c);stroke-dasharray:2 3}
.c3{stroke:var(--d);stroke-dasharray:9 3 2 3}.c4{stroke:var(--e);stroke-dasharray:4 2}.d0{fill:var(--a)}
line.c0,line.c1,line.c2,line.c3,line.c4{stroke-width:2}code{overflow-wrap:anywhere}
.note{background:var(--soft);border-left:4px solid var(--a);padding:.6rem 1rem}
@media print{body{max-width:none}table{display:table}}
"""


def table(
    names: Sequence[str], rows: Iterable[Sequence[str]], wide: tuple[int, ...] = (), ours: tuple[int, ...] = ()
) -> str:
    """A table of plain text cells; `wide` columns may break lines, `ours` are rows set off from the others.

    The limits of a share, in brackets, are set smaller than the share.
    """

    def one(kind: str, column: int, text: str) -> str:
        value, bracket, limits = escape(text).partition(" [")
        shown = f"{value} <small>[{limits}</small>" if bracket and column not in wide else escape(text)
        return f"<{kind}{' class=w' if column in wide else ''}>{shown}</{kind}>"

    head = "".join(one("th", i, name) for i, name in enumerate(names))
    body = "".join(
        f"<tr{' class=ours' if number in ours else ''}>" + "".join(one("td", i, c) for i, c in enumerate(row)) + "</tr>"
        for number, row in enumerate(rows)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def percent(value: dict[str, float] | None, digits: int = 1) -> str:
    """A share with its limits, empty where it was not measured."""
    return "" if value is None else share(value, digits)


def times(value: dict[str, float]) -> str:
    """A ratio with its limits; three figures at most, since no more are known."""
    low, middle, high = (f"{value[k]:,.0f}" if value[k] >= 100 else f"{value[k]:.3g}" for k in ("low", "value", "high"))
    return f"{middle} [{low}, {high}]"


def small(value: dict[str, float]) -> str:
    """A small rate with its limits, as powers of ten."""
    return f"{value['value']:.1e} [{value['low']:.1e}, {value['high']:.1e}]"
