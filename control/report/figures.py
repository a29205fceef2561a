"""From the ledger's rows to the report's figures. Opens no key: what is sealed is not read.

Rates follow requirement 20: TPIR over volunteers' logged passes, FPIR over faces seen, both with Clopper-Pearson's 95 %
limits. A false alert is one that people judged not the same, or that officers found to be a mistake.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from appliance.formats import published
from appliance.formats.order import Order
from appliance.formats.receipt import Receipt
from appliance.rates import share
from appliance.records import Health
from control.cases.adjudication import GROUPS, LedgerError
from control.ledger import case_rows, deployment_rows
from control.records import Case
from control.report.agreement import cohen
from control.report.cells import LEAST, suppressed
from control.report.records import Decoys, Deletion, Flow, Group, Humans, Kept, Machine, Report, Setting, Spread, Times

_CLOCK = 5.0  # seconds a face may seem to be captured after its alert arrived before its times are left out
REMARKS = (
    "A face is a track: one walk of one human past one camera. Whoever walks past twice is two faces; a face that two "
    "cameras see is two.",
    "TPIR is of volunteers who walked past on purpose. People on the list who walk otherwise, turn away or cover their "
    "face are found less often, and nobody can count them.",
    "FPIR has all faces seen below it, also those too small or turned to be compared; without them it would be higher.",
    "Whether an alert was false is what people judged. How far they may be trusted with it, decoys and agreement tell.",
    "Limits are Clopper-Pearson's at 95 %; those of kappa are Fleiss, Cohen and Everitt's (1969) from 30 pairs on.",
    f"Groups are those that officers wrote down on mistaken alerts. Counts below {LEAST} are withheld. "
    "None is inferred from a face.",
)


def figures(db: sqlite3.Connection, deployment: str, now: float) -> Report:
    """The report of a deployment. Raises LedgerError where its order is not here."""
    found = deployment_rows.deployments(db, deployment)
    if not found:
        names = ", ".join(d.order.deployment for d in deployment_rows.deployments(db)) or "none"
        raise LedgerError(f"{deployment[:64]}: no such deployment here; there are: {names}", "unknown")
    order, cases = found[0].order, case_rows.find(db, case_rows.nobody, "WHERE deployment = ?", (deployment,))
    listed = [c for c in cases if not c.decoy and c.category != order.blue_list]
    blue = [c for c in cases if not c.decoy and c.category == order.blue_list]
    flow = _flow(listed)
    return Report(
        made=now, final=now > order.not_after and not flow.undecided and not flow.awaited,
        setting=_setting(order, found[0].digest), flow=flow,
        machine=_machine(deployment_rows.healths(db, deployment), flow, _flow(blue)),
        humans=_humans(db, deployment, cases), times=_times([*listed, *blue]), groups=_groups(listed),
        kept=_kept(db, deployment, cases), published=published.figures(), remarks=REMARKS,
    )  # fmt: skip


def _setting(order: Order, digest: str) -> Setting:
    return Setting(
        deployment=order.deployment, order=digest, purpose=order.purpose, place=order.place.name,
        not_before=order.not_before, not_after=order.not_after, units=len(order.lists),
        references=max(u.entries for u in order.lists), threshold=order.threshold, models=order.models,
        adjudicators=order.adjudicators, projected_fpir=order.projected_fpir, greatest_fpir=order.greatest_fpir,
        alert_hours=order.retention.alert_hours, confirmed_days=order.retention.confirmed_days,
    )  # fmt: skip


def _flow(cases: Sequence[Case]) -> Flow:
    states = Counter(c.state for c in cases)
    outcomes = Counter(c.engagement.outcome for c in cases if c.engagement is not None)
    unrecorded = sum(c.state == "engage" and c.erased is not None for c in cases)
    same, not_same, mistaken = states["engage"] + states["closed"], states["dismissed"], outcomes["mistaken"]
    return Flow(
        arrived=len(cases), same=same, not_same=not_same, withdrawn=states["withdrawn"],
        undecided=states["waiting"] + states["disputed"], confirmed=outcomes["confirmed"], mistaken=mistaken,
        not_found=outcomes["not-found"], awaited=states["engage"] - unrecorded, unrecorded=unrecorded,
        true=same - mistaken, false=not_same + mistaken, engaged=outcomes["confirmed"] + mistaken,
    )  # fmt: skip


def _machine(healths: Sequence[Health], flow: Flow, blue: Flow) -> Machine:
    """Counts of all runs. A unit reads its file of presses anew at each start, so its last run has all of them."""
    last = {h.unit: h for h in healths}
    passes = sum(h.blue_passes for h in last.values())
    recognised = min(passes, sum(h.blue_found for h in healths))
    faces = sum(h.tracks for h in healths)
    compared = sum(h.searches for h in healths)
    strangers = max(0, compared - passes - flow.confirmed)
    false = flow.false + blue.false
    unsure = false + flow.withdrawn + flow.undecided + flow.awaited + flow.unrecorded + flow.not_found
    return Machine(
        faces=faces, compared=compared, raised=sum(h.alerts for h in healths), volunteers_arrived=blue.arrived,
        volunteers_false=blue.false, tpir=share(recognised, passes), fpir=share(min(false, strangers), strangers),
        fpir_at_worst=share(min(unsure, strangers), strangers), right=share(flow.true, flow.true + flow.false),
    )  # fmt: skip


def _humans(db: sqlite3.Connection, deployment: str, cases: Sequence[Case]) -> Humans:
    real, decoys = [c for c in cases if not c.decoy], [c for c in cases if c.decoy]
    blind = [[j.verdict for j in c.judgements if not j.ruling] for c in cases]
    answers = Counter(j.verdict for c in real for j in c.judgements)
    query = ("SELECT count(*) FROM judgements j JOIN cases c ON c.alert_id = j.alert_id "
             "WHERE c.deployment = ? AND j.undone IS NOT NULL")  # fmt: skip
    return Humans(
        answers={"same": answers["same"], "possibly": answers["possibly"], "not-same": answers["not-same"]},
        rulings=sum(j.ruling for c in real for j in c.judgements), disputed=sum(_disputed(c) for c in real),
        taken_back=int(db.execute(query, (deployment,)).fetchone()[0]),
        agreement=cohen([(v[0], v[1]) for v in blind if len(v) >= 2]), decoys=_decoys(decoys),
    )  # fmt: skip


def _disputed(case: Case) -> bool:
    verdicts = {j.verdict for j in case.judgements if not j.ruling}
    return len(verdicts) > 1 or "possibly" in verdicts


def _decoys(cases: Sequence[Case]) -> Decoys:
    verdicts = Counter(j.verdict for c in cases for j in c.judgements)
    decided = [c for c in cases if c.decided is not None]
    answered = sum(verdicts.values())
    return Decoys(
        shown=len(cases), answered=answered, same=share(verdicts["same"], answered), possibly=verdicts["possibly"],
        led_on=share(sum(c.state == "closed" for c in decided), len(decided)),
    )  # fmt: skip


def usable(cases: Iterable[Case]) -> list[Case]:
    """Cases whose times from capture may be believed: those that do not come from the future."""
    return [c for c in cases if c.received - c.captured >= -_CLOCK]


def waits(cases: Iterable[Case]) -> dict[str, list[float]]:
    """Seconds from capture to the alert's arrival, to the first look, and to the decision."""
    kept = list(cases)
    moments = {
        "to_alert": [c.received - c.captured for c in kept],
        "to_shown": [c.shown - c.captured for c in kept if c.shown is not None],
        "to_decision": [c.decided - c.captured for c in kept if c.decided is not None],
    }
    return {name: [max(0.0, seconds) for seconds in values] for name, values in moments.items()}


def spread(values: Sequence[float]) -> Spread:
    """Median, 90th and 99th percentile."""
    if not values:
        return Spread(readings=0, median=None, p90=None, p99=None)
    median, p90, p99 = (round(float(q), 4) for q in np.quantile(values, [0.5, 0.9, 0.99]))
    return Spread(readings=len(values), median=median, p90=p90, p99=p99)


def _times(cases: Sequence[Case]) -> Times:
    kept = usable(cases)
    found = {name: spread(values) for name, values in waits(kept).items()}
    judging = spread([j.seconds for c in cases for j in c.judgements])
    return Times(**found, judging=judging, left_out=len(cases) - len(kept))


def _groups(cases: Sequence[Case]) -> tuple[Group, ...]:
    recorded = [c.engagement.recorded for c in cases if c.engagement and c.engagement.outcome == "mistaken"]
    found = []
    for attribute, values in GROUPS.items():
        counts = Counter(r.get(attribute, "not recorded") for r in recorded)
        names = (*values, "not recorded")
        found.append(Group(attribute=attribute, cells=suppressed({name: counts[name] for name in names})))
    return tuple(found)


def _kept(db: sqlite3.Connection, deployment: str, cases: Sequence[Case]) -> Kept:
    query = "SELECT erased FROM deployments WHERE name = ?"
    (references_erased,) = db.execute(query, (deployment,)).fetchone()
    query = "SELECT count(DISTINCT erasure) FROM cases WHERE deployment = ? AND erased IS NOT NULL"
    return Kept(
        alerts_erased=sum(c.erased is not None for c in cases), alerts_kept=sum(c.erased is None for c in cases),
        erasures=int(db.execute(query, (deployment,)).fetchone()[0]), references_erased=references_erased,
        receipts=tuple(_deletion(*row) for row in deployment_rows.receipts(db, deployment)),
    )  # fmt: skip


def _deletion(digest: str, arrived: float, receipt: Receipt | None) -> Deletion:
    if receipt is None:
        return Deletion(digest=digest, arrived=arrived, unit=None, reason=None, ended=None, keys=None, files=None,
                        entries=None)  # fmt: skip
    return Deletion(digest=digest, arrived=arrived, unit=receipt.unit, reason=receipt.reason, ended=receipt.ended,
                    keys=len(receipt.keys), files=len(receipt.files), entries=receipt.entries)  # fmt: skip
