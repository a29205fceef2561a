"""The deployment report, fit for publication: a page, the same as data, and the same as a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from appliance.rates import Share
from appliance.storage.files import write_public
from control.ledger import case_rows
from control.ledger.ledger_file import reading
from control.report import figures as report_figures
from control.report import page as report_page
from control.report.records import Report, Spread

Line = tuple[str, str, object, object, object, object]  # section, measure, value, low, high, of
_HEAD = ("section", "measure", "value", "low", "high", "of")


def write(store: Path, deployment: str, out: Path, now: float) -> Report:
    """Write report.html, report.json and report.csv into `out`. The service may run meanwhile.

    Raises LedgerError where there is no such ledger or deployment, OSError where `out` cannot be written.
    """
    with closing(reading(store)) as db:
        report = report_figures.figures(db, deployment, now)
        cases = case_rows.find(db, case_rows.nobody, "WHERE deployment = ? AND decoy = 0", (deployment,))
    seconds = report_figures.waits(report_figures.usable(cases))
    out.mkdir(parents=True, exist_ok=True)
    write_public(out / "report.json", (report.model_dump_json(indent=1) + "\n").encode())
    write_public(out / "report.csv", table(report).encode())
    write_public(out / "report.html", report_page.render(report, seconds).encode())
    return report


def table(report: Report) -> str:
    """The report as CSV: a measure a line, with its limits where it has any. Times in seconds."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEAD)
    writer.writerows(("" if cell is None else cell for cell in line) for line in _lines(report))
    return text.getvalue()


def _lines(report: Report) -> Iterator[Line]:
    setting, flow, machine, humans = report.setting, report.flow, report.machine, report.humans
    for name, value in setting.model_dump(exclude={"models"}).items():
        yield _line("order", name, _harmless(value))
    for name, value in flow.model_dump().items():
        yield _line("alerts", name, value)
    for name in ("faces", "compared", "raised", "volunteers_arrived", "volunteers_false"):
        yield _line("machine", name, getattr(machine, name))
    for name in ("tpir", "fpir", "fpir_at_worst", "right"):
        yield _share("machine", name, getattr(machine, name))
    yield from (_line("people", f"answers {verdict}", count) for verdict, count in humans.answers.items())
    for name in ("rulings", "disputed", "taken_back"):
        yield _line("people", name, getattr(humans, name))
    yield _share("people", "equal answers of two", humans.agreement.equal)
    yield ("people", "kappa", humans.agreement.kappa, humans.agreement.low, humans.agreement.high,
           humans.agreement.pairs)  # fmt: skip
    yield _line("decoys", "shown", humans.decoys.shown)
    yield _share("decoys", "answers that said same", humans.decoys.same)
    yield _share("decoys", "let through", humans.decoys.led_on)
    for name in ("to_alert", "to_shown", "to_decision", "judging"):
        yield from _spread(name, getattr(report.times, name))
    for group in report.groups:
        for cell in group.cells:
            yield _line("groups", f"{group.attribute}: {cell.group}", "withheld" if cell.count is None else cell.count)
    yield from _kept(report)


def _kept(report: Report) -> Iterator[Line]:
    kept = report.kept
    for name in ("alerts_erased", "alerts_kept", "erasures", "references_erased"):
        yield _line("retention", name, getattr(kept, name))
    for receipt in kept.receipts:
        yield _line("retention", f"receipt {receipt.unit or ''}".strip(), receipt.digest)


def _line(section: str, measure: str, value: object) -> Line:
    return section, measure, value, None, None, None


def _share(section: str, measure: str, found: Share) -> Line:
    if not found.of:
        return section, measure, None, None, None, 0
    return section, measure, found.share, found.low, found.high, found.of


def _spread(name: str, found: Spread) -> Iterator[Line]:
    for quantile in ("median", "p90", "p99"):
        yield "times", f"{name} {quantile}", getattr(found, quantile), None, None, found.readings


def _harmless(value: object) -> object:
    """Text that a spreadsheet must not take for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" else value
