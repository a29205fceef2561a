"""The report as one page that needs nothing else: no script, no network, plots in it, light and dark, fit to print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from appliance.rates import Share
from control.report import plots as report_plots
from control.report.cells import LEAST
from control.report.records import Report

_TEMPLATE = Path(__file__).with_name("page.html")


def render(report: Report, seconds: Mapping[str, Sequence[float]]) -> str:
    """The page. `seconds` are the readings behind the report's times, for the plot (report_figures.waits)."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters.update(
        n=_number, percent=_percent, limits=_limits, odds=_odds, odds_limits=_odds_limits, one_in=_one_in,
        seconds=_seconds, utc=_utc, day=_day,
    )  # fmt: skip
    times = (
        ("From capture to the alert here", report.times.to_alert),
        ("From capture to the first look", report.times.to_shown),
        ("From capture to the decision", report.times.to_decision),
        ("One member's answer, from first look", report.times.judging),
    )
    plots = {
        "flow": report_plots.flow(report), "rates": report_plots.rates(report),
        "humans": report_plots.humans(report), "waiting": report_plots.waiting(report, seconds),
    }  # fmt: skip
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(r=report, m=report.machine, f=report.flow, h=report.humans, k=report.kept, times=times,
                           plots=plots, least=LEAST)  # fmt: skip


def _number(value: int) -> str:
    return f"{value:,}"


def _percent(found: Share) -> str:
    return f"{found.share:.0%}" if found.share in (0, 1) else f"{found.share:.1%}"


def _limits(found: Share) -> str:
    return f"[{found.low:.1%}, {found.high:.1%}]"


def _odds(found: Share) -> str:
    """A rate as one in so many; of nothing, a dash."""
    if not found.of:
        return "–"
    return _one_in(found.share) if found.count else "none"


def _odds_limits(found: Share) -> str:
    if not found.of:
        return "–"
    if not found.count:
        return f"at most {_one_in(found.high)}"
    return f"[{_one_in(found.low)}, {_one_in(found.high)}]"


def _one_in(rate: float) -> str:
    return f"1 in {1 / rate:,.0f}" if rate > 0 else "none"


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.2f} s" if value < 60 else f"{int(value // 60)} min {value % 60:.0f} s"


def _utc(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, timezone.utc):%Y-%m-%d %H:%M} UTC"


def _day(moment: float) -> str:
    day = datetime.fromtimestamp(moment, timezone.utc)
    return f"{day.day} {day:%B %Y}"
