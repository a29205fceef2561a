"""The deployment report: every figure against a count by hand or against scipy, and nothing that identifies anyone."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Iterator
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from typer.testing import CliRunner

from appliance.formats.receipt import Receipt
from appliance.identifiers import uuid7
from appliance.records import Health, StageTimes
from appliance.trust.audit import Anchor
from control.cases.adjudication import LedgerError
from control.ledger.ledger_file import reading
from control.records import Member
from control.report import cells
from control.report import figures as report_figures
from control.report import make as report
from control.report import page as report_page
from control.report import plots as report_plots
from control.report.agreement import cohen
from control.report.records import Report
from control.service import ledger_cli
from tests.support.controlroom import ANN, BOB, JPEG, Desk, reference
from tests.support.machines import DEPLOYMENT, UNIT, Machines

SECRETS = ("REFERENCE-0815-SECRET", "R-9-DECOY-SECRET", "the note names Jane Roe", "arrested at Test Street 1",
           "Superintendent Test")  # fmt: skip
ZOE, YAN, XIA = Member(name="zoe.quill", role="adjudicator"), Member(name="yan.quorum", role="adjudicator"), Member(
    name="xia.quay", role="supervisor")  # fmt: skip


@pytest.fixture
def desk(machines: Machines, tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path / "store", machines)
    yield made
    made.ledger.close()


def told(desk: Desk) -> Report:
    """The figures alone."""
    with closing(reading(desk.store)) as db:
        return report_figures.figures(db, DEPLOYMENT, desk.now)


def written(desk: Desk) -> Report:
    """The figures, and the three files in the folder `out`."""
    return report.write(desk.store, DEPLOYMENT, desk.store.parent / "out", desk.now)


def answered(desk: Desk, alert: str, *answers: str) -> None:
    """Members answer one after another, four seconds after they first saw the pair; a third answer is a ruling."""
    for member, answer in zip((ZOE, YAN, XIA), answers, strict=False):
        desk.see(alert, member)
        desk.now += 4
        act = desk.ledger.rule if member is XIA else desk.ledger.judge
        act(alert, member, answer, SECRETS[2])  # type: ignore[arg-type]


def decoy(desk: Desk) -> str:
    like = desk.ledger.cases(limit=1)[0]
    made = like.model_copy(update={"alert_id": uuid7(desk.now), "captured": desk.now, "observed": desk.now})
    return desk.ledger.store_decoy(made, JPEG, reference(SECRETS[1])).alert_id


def health(desk: Desk, **counts: float) -> None:
    fields = {"time": desk.now, "uptime": 100.0, "faces": 9, "tracks": 1000, "probes": 9, "alerts": 3, **counts}
    desk.ledger.health(
        Health(unit=UNIT, deployment=DEPLOYMENT, state="armed", cameras=(), queued=0, stages=StageTimes(),
               resident_bytes=1, watchlist_entries=1, watchlist_recall=1, **fields)  # type: ignore[arg-type]
    )  # fmt: skip


def busy(desk: Desk) -> None:
    """A deployment of which every figure is known."""
    desk.ordered(adjudicators=2)
    outcomes = ["confirmed", "confirmed", "mistaken", "not-found", None]
    for outcome in outcomes:
        alert = desk.alert(reference_identifier=SECRETS[0])
        answered(desk, alert, "same", "same")
        if outcome:
            groups = {"sex": "male"} if outcome == "mistaken" else {}
            desk.ledger.engage(alert, ZOE, outcome, SECRETS[3], groups)  # type: ignore[arg-type]
    answered(desk, desk.alert(), "not-same", "not-same")
    answered(desk, desk.alert(), "same", "not-same", "not-same")
    desk.alert()
    desk.now += 601
    desk.ledger.tick()
    for _ in range(3):
        answered(desk, desk.alert(category="blue-list"), "same", "same")
    answered(desk, desk.alert(category="blue-list"), "not-same", "not-same")
    for answers in (("not-same", "not-same"), ("same", "same"), ("same", "not-same", "not-same")):
        answered(desk, decoy(desk), *answers)
    health(desk, tracks=1500, alerts=8, blue_passes=3, blue_found=2, uptime=900)
    desk.now += 10
    health(desk, tracks=500, alerts=3, blue_passes=4, blue_found=1, uptime=5)


def test_every_alert_is_counted_once(desk: Desk) -> None:
    """True, false, confirmed true, confirmed false, engaged or not (requirement 14)."""
    busy(desk)
    made = told(desk)
    assert made.flow.model_dump() == {
        "arrived": 8, "same": 5, "not_same": 2, "withdrawn": 1, "undecided": 0, "confirmed": 2, "mistaken": 1,
        "not_found": 1, "awaited": 1, "unrecorded": 0, "true": 4, "false": 3, "engaged": 3,
    }  # fmt: skip
    assert sum(count for _, count in report_plots.flow_parts(made)) == made.flow.arrived
    assert not made.final


def test_tpir_and_fpir_are_of_all_runs_of_a_unit(desk: Desk) -> None:
    """Requirement 20. A restart begins the counts anew, while presses are read anew: faces add up, passes do not."""
    busy(desk)
    machine = told(desk).machine
    assert (machine.faces, machine.raised) == (2000, 11)
    assert (machine.volunteers_arrived, machine.volunteers_false) == (4, 1)
    assert (machine.tpir.count, machine.tpir.of) == (3, 4)
    assert (machine.fpir.count, machine.fpir.of) == (3 + 1, 2000 - 4 - 2)
    exact = stats.binomtest(4, 1994).proportion_ci(0.95, method="exact")
    assert machine.fpir.low == pytest.approx(exact.low)
    assert machine.fpir.high == pytest.approx(exact.high)
    assert machine.fpir_at_worst.count == 4 + 1 + 1 + 1
    assert (machine.right.count, machine.right.of) == (4, 7)


def test_only_faces_that_were_compared_count_for_the_fpir(desk: Desk) -> None:
    """A face too small to be compared cannot raise a false alert, so it must not make the rate look better."""
    busy(desk)
    desk.now += 10
    health(desk, tracks=700, compared=300, alerts=3, blue_passes=4, blue_found=1, uptime=15)
    machine = told(desk).machine
    assert (machine.faces, machine.compared) == (1500 + 700, 1500 + 300)
    assert machine.fpir.of == 1800 - 4 - 2


def test_what_people_answered_is_counted_decoys_apart(desk: Desk) -> None:
    busy(desk)
    humans = told(desk).humans
    assert humans.answers == {"same": 10 + 1 + 6, "possibly": 0, "not-same": 2 + 2 + 2}
    assert (humans.rulings, humans.disputed, humans.taken_back) == (1, 1, 0)
    assert (humans.decoys.shown, humans.decoys.answered) == (3, 7)
    assert (humans.decoys.same.count, humans.decoys.same.of) == (3, 7)
    assert (humans.decoys.led_on.count, humans.decoys.led_on.of) == (1, 3)
    assert (humans.agreement.pairs, humans.agreement.equal.count) == (14, 12)
    exact = stats.binomtest(3, 7).proportion_ci(0.95, method="exact")
    assert (humans.decoys.same.low, humans.decoys.same.high) == pytest.approx((exact.low, exact.high))


def test_times_run_from_the_capture(desk: Desk) -> None:
    busy(desk)
    times = told(desk).times
    assert times.to_alert.readings == 12
    assert times.to_alert.median == pytest.approx(0.4, abs=1e-3)
    assert times.to_decision.readings == 11
    assert times.to_decision.median == pytest.approx(8.4, abs=1e-3)
    assert times.judging.median == pytest.approx(4.0, abs=1e-3)
    assert times.left_out == 0


@given(values=st.lists(st.floats(0, 1e4), min_size=1, max_size=50))
def test_quantiles_are_numpys(values: list[float]) -> None:
    found = report_figures.spread(values)
    assert [found.median, found.p90, found.p99] == pytest.approx(list(np.quantile(values, [0.5, 0.9, 0.99])), abs=1e-4)


def test_times_of_a_clock_that_runs_ahead_are_left_out(desk: Desk) -> None:
    desk.ordered()
    desk.alert(captured=desk.now + 3600, observed=desk.now + 3600)
    desk.alert()
    assert (told(desk).times.left_out, told(desk).times.to_alert.readings) == (1, 1)


def table(counts: list[list[int]]) -> list[tuple[str, str]]:
    names = ("not-same", "possibly", "same")
    return [(names[i], names[j]) for i, row in enumerate(counts) for j, n in enumerate(row) for _ in range(n)]


@pytest.mark.parametrize(
    ("counts", "kappa", "low", "high"),
    [
        ([[88, 14, 18], [10, 40, 10], [2, 6, 12]], 0.491525, 0.391564, 0.591487),  # Fleiss, Cohen and Everitt's own
        ([[44, 5, 1], [7, 20, 3], [9, 5, 6]], 0.491525, 0.350158, 0.632893),
        ([[20, 5], [10, 15]], 0.4, 0.151092, 0.648908),
    ],
)  # fmt: skip
def test_kappa_and_its_limits_are_those_of_statsmodels(
    counts: list[list[int]], kappa: float, low: float, high: float
) -> None:
    """statsmodels 0.14, stats.inter_rater.cohens_kappa."""
    found = cohen(table(counts))
    assert (found.kappa, found.low, found.high) == pytest.approx((kappa, low, high), abs=1e-6)


def test_kappa_without_a_value_or_without_a_difference() -> None:
    assert cohen([]).kappa is None
    assert cohen([("same", "same")] * 9).kappa is None
    few, many = cohen([("same", "same"), ("possibly", "possibly")]), cohen(table([[50, 0, 0], [0, 50, 0], [0, 0, 50]]))
    assert few.kappa == many.kappa == 1.0
    assert few.low is not None
    assert many.low is not None
    assert few.low < 0 < 0.9 < many.low < 1, "two pairs prove nothing, a hundred and fifty do"


@given(pairs=st.lists(st.tuples(*[st.sampled_from(["same", "possibly", "not-same"])] * 2), max_size=40))
def test_kappa_stays_between_its_limits(pairs: list[tuple[str, str]]) -> None:
    found = cohen(pairs)
    if found.kappa is not None and found.low is not None and found.high is not None:
        assert -1 <= found.low <= found.kappa + 1e-9
        assert found.kappa - 1e-9 <= found.high <= 1


@pytest.mark.parametrize(
    ("counts", "shown"),
    [
        ({"a": 9, "b": 7, "c": 0}, {"a": 9, "b": 7, "c": None}),  # nothing hidden, though none is not told from few
        ({"a": 9, "b": 4, "c": 2}, {"a": 9, "b": None, "c": None}),
        ({"a": 9, "b": 7, "c": 3}, {"a": 9, "b": None, "c": None}),  # 3 could be subtracted from the total
        ({"a": 4, "b": 0, "c": 0}, {"a": None, "b": None, "c": None}),
        ({"a": 5, "b": 1, "c": 0}, {"a": None, "b": None, "c": None}),
    ],
)
def test_small_counts_are_withheld_and_cannot_be_subtracted(
    counts: dict[str, int], shown: dict[str, int | None]
) -> None:
    assert {cell.group: cell.count for cell in cells.suppressed(counts)} == shown


@given(counts=st.dictionaries(st.sampled_from("abcdefg"), st.integers(0, 20)))
def test_no_withheld_count_adds_up_to_a_few(counts: dict[str, int]) -> None:
    shown = {cell.group: cell.count for cell in cells.suppressed(counts)}
    hidden = sum(counts[name] for name, count in shown.items() if count is None)
    assert hidden == 0 or hidden >= cells.LEAST or not any(shown.values())
    assert all(count is None or count >= cells.LEAST for count in shown.values())
    assert all(count in (None, counts[name]) for name, count in shown.items())


class Page(HTMLParser):
    """Tags that are open, and what a page would fetch."""

    VOID = ("meta", "br", "link", "img", "input", "hr", "path", "use")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.fetched += [v or "" for name, v in attrs if name in ("src", "href", "xlink:href", "data", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_needs_nothing_but_itself_and_shows_every_plot(desk: Desk) -> None:
    busy(desk)
    written(desk)
    text = (desk.store.parent / "out" / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert page.open == []
    assert all(link.startswith("#") for link in page.fetched)
    assert not page.tags & {"script", "img", "link", "iframe", "object"}
    assert "url(http" not in text
    assert text.count("<svg") == 4
    assert not re.search(r"#0102[0-9a-f]{2}", text), "every stand-in colour was replaced"
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_nothing_in_the_three_files_identifies_anyone(desk: Desk) -> None:
    """Identifiers, members, notes, the officer who authorised, alerts and pictures: none is in any of them."""
    busy(desk)
    desk.ledger.put_references(DEPLOYMENT, [reference(SECRETS[0])])
    written(desk)
    planted = [*SECRETS, *(m.name for m in (ZOE, YAN, XIA)), *(c.alert_id for c in desk.ledger.cases(limit=1000))]
    planted += [base64.b64encode(JPEG).decode()[:40]]
    for name in ("report.html", "report.json", "report.csv"):
        text = (desk.store.parent / "out" / name).read_text()
        assert [secret for secret in planted if secret in text] == [], name
        assert "data:image" not in text


def test_an_order_that_holds_markup_or_a_formula_stays_text(desk: Desk) -> None:
    made = desk.ordered()
    place = made.place.model_copy(update={"name": "<script>alert(1)</script>"})
    worse = made.model_copy(update={"deployment": "d-9", "place": place, "purpose": "=HYPERLINK(1) and more words"})
    desk.ledger.add_deployment(worse, "9" * 64)
    report.write(desk.store, "d-9", desk.store.parent / "out", desk.now)
    assert "<script" not in (desk.store.parent / "out" / "report.html").read_text()
    rows = list(csv.reader(io.StringIO((desk.store.parent / "out" / "report.csv").read_text())))
    assert ["order", "purpose", "'=HYPERLINK(1) and more words", "", "", ""] in rows


def test_data_and_table_say_the_same(desk: Desk) -> None:
    busy(desk)
    made = written(desk)
    out = desk.store.parent / "out"
    assert Report.model_validate_json((out / "report.json").read_text()) == made
    rows = {(row[0], row[1]): row[2:] for row in csv.reader((out / "report.csv").open())}
    assert rows["alerts", "false"][0] == "3"
    assert [float(cell) for cell in rows["machine", "fpir"]] == pytest.approx(
        [made.machine.fpir.share, made.machine.fpir.low, made.machine.fpir.high, made.machine.fpir.of]
    )
    assert rows["groups", "sex: male"][0] == "withheld"
    assert json.loads((out / "report.json").read_text())["flow"]["false"] == 3


def test_a_report_of_an_empty_deployment_says_that_nothing_was_measured(desk: Desk) -> None:
    desk.ordered()
    made = written(desk)
    assert (made.machine.tpir.of, made.machine.fpir.of, made.times.to_alert.median) == (0, 0, None)
    text = (desk.store.parent / "out" / "report.html").read_text()
    assert "none walked past" in text
    assert text.count("<svg") == 1


def test_after_the_erasure_the_figures_stand_and_the_receipts_are_quoted(desk: Desk) -> None:
    """What counted before the pictures went counts after: outcomes stay, faces do not."""
    busy(desk)
    before = told(desk)
    order = desk.ledger.deployments()[0].order
    receipt = Receipt(unit=UNIT, deployment=DEPLOYMENT, reason="window-ended", ended=order.not_after, keys=("k",),
                      files=(), watchlist="0" * 64, order="0" * 64, entries=100, anchor=Anchor())  # fmt: skip
    desk.ledger.receipt(DEPLOYMENT, "e" * 64, receipt)
    desk.now = order.not_after + 40 * 86400
    desk.ledger.erase_now(*desk.ledger.due(desk.now))
    after = told(desk)
    assert (after.machine, after.humans, after.times) == (before.machine, before.humans, before.times)
    assert after.flow == before.flow.model_copy(update={"awaited": 0, "unrecorded": 1})
    assert after.final, "what was not recorded in time will not be"
    assert (after.kept.alerts_kept, after.kept.alerts_erased, after.kept.erasures) == (0, 15, 1)
    assert after.kept.references_erased == desk.now
    assert [(d.unit, d.reason, d.keys, d.entries) for d in after.kept.receipts] == [(UNIT, "window-ended", 1, 100)]


def test_an_answer_that_was_taken_back_is_counted_as_that_alone(desk: Desk) -> None:
    desk.ordered()
    alert = desk.alert()
    desk.see(alert, ANN)
    desk.ledger.judge(alert, ANN, "same")
    desk.ledger.undo(alert, ANN)
    humans = told(desk).humans
    assert (humans.taken_back, sum(humans.answers.values())) == (1, 0)


def test_a_report_is_final_when_the_window_is_over_and_nothing_is_open(desk: Desk) -> None:
    order = desk.ordered()
    alert = desk.alert()
    desk.see(alert, BOB)
    desk.now = order.not_after + 1
    assert not told(desk).final
    desk.ledger.tick()
    assert told(desk).final


def test_the_command_writes_the_report_and_names_what_is_there(desk: Desk, tmp_path: Path) -> None:
    app = typer.Typer()
    ledger_cli.mount(app)
    busy(desk)
    run = CliRunner()
    done = run.invoke(app, ["report", DEPLOYMENT, "--store", str(desk.store), "--out", str(tmp_path / "r")])
    assert done.exit_code == 0, done.output
    assert "2,000 faces, 8 alerts, 2 confirmed, 3 false" in done.output
    assert sorted(p.name for p in (tmp_path / "r").iterdir()) == ["report.csv", "report.html", "report.json"]
    missed = run.invoke(app, ["report", "d-8", "--store", str(desk.store), "--out", str(tmp_path / "r")])
    assert isinstance(missed.exception, LedgerError)
    assert "there are: d-1" in str(missed.exception)


@pytest.mark.parametrize(
    ("seconds", "words"), [(None, "–"), (0.25, "0.25 s"), (59.99, "59.99 s"), (61, "1 min 1 s"), (7200, "120 min 0 s")]
)
def test_seconds_are_said_so_that_people_read_them(seconds: float | None, words: str) -> None:
    assert report_page._seconds(seconds) == words
