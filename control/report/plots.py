"""The report's plots as SVG that stands in the page: text stays text, colours are the page's, light and dark.

matplotlib draws with stand-in colours; each is then replaced by the page's variable of that name.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from control.report.records import Report

_STANDINS = {"ink": "#010203", "muted": "#010204", "line": "#010205", "c0": "#010206", "c1": "#010207", "c2": "#010208",
             "c3": "#010209", "c4": "#01020a", "soft": "#01020b"}  # fmt: skip
_STYLE = {
    "svg.fonttype": "none", "figure.facecolor": "none", "axes.facecolor": "none", "font.family": "sans-serif",
    "font.size": 10.5, "text.color": _STANDINS["ink"], "axes.labelcolor": _STANDINS["ink"],
    "axes.edgecolor": _STANDINS["line"], "axes.linewidth": 0.8, "axes.spines.top": False, "axes.spines.right": False,
    "xtick.color": _STANDINS["muted"], "ytick.color": _STANDINS["ink"], "grid.color": _STANDINS["line"],
    "grid.linewidth": 0.6, "legend.frameon": False, "axes.titlelocation": "left", "axes.titleweight": "bold",
    "axes.titlesize": 10.5,
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One estimate with its limits; `own` is this report's, the others stand beside it."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    own: bool = False


def flow(report: Report) -> str:
    """What became of the watchlist's alerts: one bar, parts in words and numbers. Empty where there were none."""
    parts = [(name, count) for name, count in flow_parts(report) if count]
    if not parts:
        return ""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(1, 1.7)
        start, colours = 0, ("c2", "c0", "c3", "c4", "c1", "line", "muted", "ink")
        order = [name for name, _ in flow_parts(report)]
        for name, count in parts:
            colour = _STANDINS[colours[order.index(name)]]
            axes[0].barh(0, count, left=start, height=0.5, color=colour, label=f"{name}: {count:,}",
                         edgecolor=_STANDINS["soft"], linewidth=1.5)  # fmt: skip
            start += count
        axes[0].set(yticks=[], xlim=(0, start), xlabel="alerts")
        axes[0].spines["left"].set_visible(False)
        axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[0].legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, fontsize=10, handlelength=1, borderpad=0)
        return _svg(figure, "flow", "What became of the alerts")


def flow_parts(report: Report) -> list[tuple[str, int]]:
    """The parts of the watchlist's alerts, in words; they add up to all that arrived."""
    found = report.flow
    return [
        ("confirmed", found.confirmed), ("same, outcome awaited", found.awaited), ("not found", found.not_found),
        ("mistaken", found.mistaken), ("judged not the same", found.not_same), ("too old, withdrawn", found.withdrawn),
        ("undecided", found.undecided), ("outcome not recorded", found.unrecorded),
    ]  # fmt: skip


def rates(report: Report) -> str:
    """TPIR and FPIR beside what was ordered and what others published."""
    tpir = _measured("this deployment", report.machine.tpir.share, report.machine.tpir, report.machine.tpir.of)
    tpir += [Row(_short(p.source), p.tpir) for p in report.published if p.tpir]
    fpir = _measured("this deployment", report.machine.fpir.share, report.machine.fpir, report.machine.fpir.of)
    fpir += [Row("projected by the order", report.setting.projected_fpir),
             Row("the order's greatest", report.setting.greatest_fpir)]  # fmt: skip
    fpir += [Row(_short(p.source), p.fpir) for p in report.published if p.fpir]
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(2, 1.2 + 0.3 * max(len(tpir), len(fpir)))
        _dots(axes[0], tpir, "TPIR: volunteers recognised")
        axes[0].set(xlim=(0, 1.02))
        _dots(axes[1], fpir, "FPIR: false alerts a face")
        least = min(r.value for r in fpir if r.value > 0)
        axes[1].set_xscale("log")
        axes[1].set_xlim(min(least, report.machine.fpir.high) / 3, max(3e-3, report.machine.fpir.high * 1.5))
        axes[1].xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"1:{1 / value:,.0f}"))
        axes[1].xaxis.set_minor_formatter(NullFormatter())
        axes[1].tick_params(axis="x", labelsize=9)
        return _svg(figure, "rates", "TPIR and FPIR of this deployment beside published figures")


def waiting(report: Report, seconds: Mapping[str, Sequence[float]]) -> str:
    """How long it took from the capture: the share of alerts that had arrived, were seen, were decided."""
    names = {"to_alert": "alert here", "to_shown": "first seen", "to_decision": "decided"}
    shown = {name: np.sort(np.maximum(values, 0.01)) for name, values in seconds.items() if len(values)}
    if not shown:
        return ""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(1, 3.0)
        last = max(float(values[-1]) for values in shown.values()) * 1.5
        for number, (name, values) in enumerate(shown.items()):
            x = np.concatenate([values[:1], values, [last]])
            y = np.concatenate([[0.0], np.arange(1, len(values) + 1) / len(values), [1.0]])
            axes[0].step(x, y, where="post", color=_STANDINS[f"c{number}"], linewidth=2, label=names[name],
                         linestyle=("-", "--", "-.")[number])  # fmt: skip
        axes[0].set_xscale("log")
        axes[0].xaxis.set_major_formatter(FuncFormatter(_seconds))
        axes[0].set(ylim=(0, 1.03), xlabel="since the capture", ylabel="share of alerts", yticks=[0, 0.5, 0.9, 1.0])
        axes[0].grid(True, axis="y")
        axes[0].legend(loc="lower right")
        return _svg(figure, "waiting", "Time from capture to alert, first look and decision")


def humans(report: Report) -> str:
    """Yes to decoys, and agreement of those who judged the same pair. Empty where neither was measured."""
    found = report.humans
    rows = _measured("said yes to a wrong pair", found.decoys.same.share, found.decoys.same, found.decoys.answered)
    rows += _measured("wrong pairs let through", found.decoys.led_on.share, found.decoys.led_on, found.decoys.led_on.of)
    rows += _measured("two gave one answer", found.agreement.equal.share, found.agreement.equal, found.agreement.pairs)
    if found.agreement.kappa is not None:
        rows.append(Row("kappa: beyond chance", found.agreement.kappa, found.agreement.low, found.agreement.high, True))
    if not rows:
        return ""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(1, 0.8 + 0.34 * len(rows))
        _dots(axes[0], rows, "")
        axes[0].set(xlim=(min(-0.02, *(r.low or 0 for r in rows)), 1.02))
        return _svg(figure, "humans", "How often people said yes to a wrong pair, and how far they agreed")


def _measured(name: str, value: float, limits: object, of: int) -> list[Row]:
    """A row of what was measured; none where there was nothing to measure."""
    return [Row(name, value, getattr(limits, "low", None), getattr(limits, "high", None), True)] if of else []


def _dots(axes: Axes, rows: Sequence[Row], title: str) -> None:
    for number, row in enumerate(rows):
        colour = _STANDINS["c0" if row.own else "muted"]
        if row.low is not None and row.high is not None:
            axes.plot([max(row.low, 1e-9), row.high], [number, number], color=colour, linewidth=2.5,
                      solid_capstyle="butt")  # fmt: skip
        axes.plot(row.value, number, marker="o" if row.own else "D", color=colour, markersize=7 if row.own else 5)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="x")
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    if title:
        axes.set_title(title)


def _figure(columns: int, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(8.4, height), layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def _svg(figure: Figure, name: str, title: str) -> str:
    """The figure as an element of a page: ids are its own, colours the page's."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)
    svg = re.sub(r"font: ([0-9.]+)px [^;\"]*", r"font-size: \1px", svg)
    svg = re.sub(r"font: bold ([0-9.]+)px [^;\"]*", r"font-weight: 600; font-size: \1px", svg)
    for variable, colour in _STANDINS.items():
        svg = svg.replace(colour, f"var(--{variable})")
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)


def _short(source: str) -> str:
    """A source as a plot has room for it."""
    names = {"Metropolitan Police, January 2020": "2020 claim", "National Physical Laboratory, 2023": "NPL 2023",
             "London, September 2024 to September 2025": "London 2024/25"}  # fmt: skip
    return names.get(source, source)


def _seconds(value: float, _: object) -> str:
    if value >= 60:
        return f"{value / 60:,.0f} min"
    return f"{value:g} s"
