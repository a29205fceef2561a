"""Decoys: seldom, unpredictable but repeatable, in nobody's way, and not to be told from alerts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.formats.dossier import Decoy, DecoyPair, Pictured
from appliance.records import CameraHealth, Health, StageTimes
from control.cases.adjudication import visible
from control.deployments.decoys import Decoys, Rate
from control.deployments.dossiers import Pool
from control.receive.fleet import Fleet
from tests.support.controlroom import ANN, JPEG, NOON, Desk
from tests.support.machines import DEPLOYMENT, UNIT, Machines

HOUR = 3600.0


@pytest.fixture
def desk(machines: Machines, tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path / "store", machines)
    made.ordered()
    yield made
    made.ledger.close()


def pair(number: int) -> Decoy:
    """A pair that is not the same human being."""
    reference = Pictured(reference_identifier=f"R-9{number}", category="wanted-on-warrant", image_date="2025-02-03",
                         quality=71.0, size=len(JPEG))  # fmt: skip
    probe = JPEG + bytes([number])
    return Decoy(DecoyPair(reference=reference, probe=len(probe), quality=0.62, interocular=31.0), JPEG, probe)


def pool(count: int = 3) -> Pool:
    return Pool(DEPLOYMENT, 1, NOON + 8 * HOUR, tuple(pair(n) for n in range(count)))


def heard(desk: Desk, *, state: str = "armed", camera: str = "running", age: float = 5.0) -> Fleet:
    """The fleet after a unit's health report."""
    fleet = Fleet(lambda: desk.now)
    cameras = (CameraHealth(name="north", state=camera, frames=100, dropped=0, fps=15.0),)  # type: ignore[arg-type]
    fleet.note_health(
        Health(
            unit=UNIT, deployment=DEPLOYMENT, time=desk.now - age, uptime=1.0, state=state, cameras=cameras, faces=0,  # type: ignore[arg-type]
            tracks=0, probes=0, alerts=0, queued=0, stages=StageTimes(), resident_bytes=1, watchlist_entries=1,
            watchlist_recall=1.0,
        )
    )  # fmt: skip
    return fleet


def maker(desk: Desk, fleet: Fleet, per_hour: float = 60.0, seed: int | None = 7, pairs: int = 3) -> Decoys:
    return Decoys(desk.ledger, fleet, lambda: [pool(pairs)], Rate(per_hour, seed), desk.ttl, lambda: desk.now)


def due(desk: Desk, decoys: Decoys) -> None:
    """The clock goes on until one is due."""
    desk.now = decoys.due + 0.5


def schedule(desk: Desk, seed: int | None, count: int = 40, per_hour: float = 6.0) -> list[float]:
    """When decoys would be due one after the other."""
    decoys, found = maker(desk, Fleet(), per_hour, seed), []
    for _ in range(count):
        found.append(decoys.due)
        decoys._due = decoys._next(decoys.due)
    return found


def test_a_seed_repeats_the_schedule_and_gaps_are_those_of_the_rate(desk: Desk) -> None:
    assert schedule(desk, 7) == schedule(desk, 7)
    assert schedule(desk, 7) != schedule(desk, 8)
    times = schedule(desk, 7, count=2000)
    gaps = [b - a for a, b in itertools.pairwise(times)]
    mean = sum(gaps) / len(gaps)
    assert mean == pytest.approx(HOUR / 6, rel=0.08)
    assert max(gaps) > 3 * mean  # nobody can say: one was just here, so none comes now
    assert min(gaps) < 0.02 * mean
    assert schedule(desk, 7, count=3, per_hour=0.0) == [float("inf")] * 3


def test_a_decoy_looks_like_an_alert_in_every_field(desk: Desk) -> None:
    """A member who is handed both views cannot say which is which: the fields are the same, the values in one range."""
    for score in (0.61, 0.66, 0.71):
        desk.alert(score=score, threshold=0.55, quality=0.7, interocular=38.0, camera="north")
    desk.ledger.tick()
    decoys = maker(desk, heard(desk))
    desk.now += 2 * desk.ttl
    desk.ledger.tick()
    decoys = maker(desk, heard(desk))
    due(desk, decoys)
    shown = decoys.step()
    assert shown is not None
    real = desk.ledger.case(desk.alert(camera="north"))
    assert (shown.unit, shown.camera, shown.deployment) == (UNIT, "north", DEPLOYMENT)
    assert 0.55 <= shown.score <= 0.75
    assert (shown.threshold, shown.quality, shown.interocular) == (0.55, 0.62, 31.0)
    assert len(shown.alert_id) == len(real.alert_id)
    assert shown.reference_identifier.startswith("R-9")
    assert shown.captured <= shown.observed <= shown.received
    seen, other = visible(shown, ANN, desk.now), visible(real, ANN, desk.now)
    assert seen.decoy is other.decoy is None
    assert seen.score is other.score is None
    assert (seen.state, seen.required, seen.has_probe, seen.may_judge) == (
        other.state, other.required, other.has_probe, other.may_judge,
    )  # fmt: skip
    picture = desk.ledger.reference_of(shown.alert_id)
    assert picture is not None
    assert (picture.image_date, picture.quality) == ("2025-02-03", 71.0)
    assert (desk.ledger.probe(shown.alert_id) or b"").startswith(JPEG)


def test_the_first_decoy_lies_a_little_above_the_orders_threshold(desk: Desk) -> None:
    decoys = maker(desk, heard(desk))
    due(desk, decoys)
    shown = decoys.step()
    assert shown is not None
    assert 0.5 < shown.score < 0.6


def test_every_pair_comes_once_before_any_comes_again(desk: Desk) -> None:
    decoys = maker(desk, heard(desk, age=-10 * HOUR), pairs=4)
    seen = []
    for _ in range(8):
        due(desk, decoys)
        desk.ledger.tick()
        shown = decoys.step()
        assert shown is not None
        seen.append(shown.reference_identifier)
    assert sorted(seen[:4]) == sorted(seen[4:]) == [f"R-9{n}" for n in range(4)]


def test_none_is_shown_while_real_alerts_keep_people_busy(desk: Desk) -> None:
    decoys = maker(desk, heard(desk, age=-10 * HOUR))
    due(desk, decoys)
    for _ in range(4):
        desk.alert()
    assert decoys.step() is None
    assert decoys.due > desk.now
    for case in desk.ledger.cases()[1:]:
        desk.see(case.alert_id, ANN)
        desk.ledger.judge(case.alert_id, ANN, "not-same")
    desk.now += 0.2 * desk.ttl
    assert decoys.step() is None  # one has waited for more than a tenth of its time
    last = desk.ledger.cases()[0].alert_id
    desk.see(last, ANN)
    desk.ledger.judge(last, ANN, "not-same")
    due(desk, decoys)
    assert decoys.step() is not None


@pytest.mark.parametrize(
    "why", [{"state": "disarmed"}, {"camera": "failed"}, {"age": 300.0}], ids=["disarmed", "no camera", "silent"]
)
def test_none_is_shown_where_no_alert_could_come_from(desk: Desk, why: dict[str, object]) -> None:
    decoys = maker(desk, heard(desk))
    due(desk, decoys)
    later = maker(desk, heard(desk, **why))  # type: ignore[arg-type]
    later._due = desk.now
    assert later.step() is None


def test_none_is_shown_outside_the_window_nor_without_pairs(desk: Desk) -> None:
    decoys = maker(desk, heard(desk), pairs=0)
    due(desk, decoys)
    assert decoys.step() is None
    desk.now = NOON + 9 * HOUR
    late = maker(desk, heard(desk, age=-10 * HOUR))
    due(desk, late)
    assert late.step() is None
    assert desk.ledger.cases() == []


def test_a_decoy_judged_the_same_is_never_dispatched(desk: Desk) -> None:
    decoys = maker(desk, heard(desk))
    due(desk, decoys)
    shown = decoys.step()
    assert shown is not None
    desk.see(shown.alert_id, ANN)
    assert desk.ledger.judge(shown.alert_id, ANN, "same").state == "closed"
