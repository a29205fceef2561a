"""What the console's pages say: figures of units, the map, the log, words; and what they say when something fails."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.records import CameraHealth, CourierState, Health, StageTimes
from appliance.trust.audit import Happening
from control.web import words
from control.web.polygon import draw
from tests.support.consoleroom import Console
from tests.support.machines import DEPLOYMENT, UNIT, Machines

NOON = 1_795_435_200.0  # 2026-11-23 12:00 UTC


@pytest.fixture
def console(machines: Machines, tmp_path: Path) -> Iterator[Console]:
    made = Console(tmp_path / "store", machines)
    made.ordered()
    yield made
    made.close()


def health(**changes: object) -> Health:
    """A report of the first unit."""
    fields: dict[str, object] = {
        "unit": UNIT, "deployment": DEPLOYMENT, "time": time.time(), "uptime": 60.0, "state": "armed", "cameras": (),
        "faces": 2000, "tracks": 1, "probes": 1, "alerts": 1, "queued": 0, "stages": StageTimes(), "resident_bytes": 1,
        "watchlist_entries": 100, "watchlist_recall": 1.0,
    }  # fmt: skip
    return Health.model_validate({**fields, **changes})


def test_a_unit_shows_what_it_reported_beside_what_was_projected(console: Console) -> None:
    fleet, ann = console.room.fleet, console.visitor("ann")
    assert "No unit was heard of yet" in ann.get("/fleet").text
    cameras = (
        CameraHealth(name="front", state="running", frames=9, dropped=0, fps=14.9),
        CameraHealth(name="rear", state="failed", frames=0, dropped=0, fps=0.0, message="no such device"),
    )
    fleet.note_health(health(cameras=cameras, blue_passes=10, blue_found=9, false_alerts=4, temperature=84.0))
    fleet.note_state(CourierState(unit=UNIT, state="online", time=1.0, software="0.1.0"))
    fleet.note_heard(UNIT, 3)
    fleet.note_quarantine({"van-x": 7})
    figures = ann.get("/api/fleet").json()
    assert figures[f"{UNIT}.state"] == ["Armed, 1 fault", True, "faulty"]
    assert figures[f"{UNIT}.False alerts"] == [
        "4 judged false; 0.20 projected by now, 1.00 in all",
        True,
        "False alerts",
    ]
    assert figures[f"{UNIT}.Blue list found"][0] == "9 of 10 passes, 90% (55% to 100% with 95 % certainty)"
    assert figures[f"{UNIT}.Time left"][0] in ("7 h", "6 h 59 min")
    assert figures[f"{UNIT}.Temperature"] == ["84 °C", True, "Temperature"]
    assert figures[f"{UNIT}.Alerts missing"] == ["3", True, "Alerts missing"]
    assert figures[f"{UNIT}.camera.rear"] == ["0.0 frames/s · failed: no such device", True, "rear"]
    assert figures["van-x.state"] == ["On no roster", True, "unknown"]
    page = ann.get("/fleet").text
    assert page.count("<polygon") == 1 and "Test Square" in page
    fleet.note_state(CourierState(unit=UNIT, state="offline", time=2.0, software="0.1.0"))
    assert ann.get("/api/fleet").json()[f"{UNIT}.state"] == ["Out of reach, was armed", True, "offline"]


def test_a_broker_that_is_away_is_said_with_the_time(console: Console) -> None:
    ann = console.visitor("ann")
    assert ann.get("/api/queue").json()["broker"]["connected"]
    console.room.fleet.note_broker(False, "connection refused")
    told = ann.get("/api/queue").json()["broker"]
    assert not told["connected"]
    assert "connection refused" in told["words"] and "Alerts wait there" in told["words"]


def test_retention_is_shown_as_ordered(console: Console) -> None:
    console.desk.ordered(deployment="short", alert_hours=2.5, confirmed_days=7)  # type: ignore[arg-type]
    page = console.visitor("vic").get("/about").text
    for text in ("2.5 hours", "7 days", "24 hours", "30 days", "10 min", "IA-1", "not yet: it comes when"):
        assert text in page


def test_a_long_log_is_leafed_through_and_sorted_by_act(console: Console) -> None:
    acts = [Happening("consultation" if n % 2 else "erasure", f"s-{n}") for n in range(240)]
    console.room.audit("ann").extend(acts)
    eye = console.visitor("eye")
    first = eye.get("/log").text
    assert "240 entries" in first and "s-239<" in first and "s-139<" not in first
    second = eye.get("/log?before=141").text
    assert "s-139<" in second and "s-39<" not in second
    only = eye.get("/log?act=erasure").text
    assert "s-238<" in only and "s-239<" not in only
    for odd in ("/log?before=x", "/log?before=-1", "/log?act=<b>", f"/log?before={'9' * 30}"):
        assert eye.get(odd).status_code == 200
        assert "<b>" not in eye.get(odd).text


def test_where_a_view_cannot_be_logged_no_face_is_shown(machines: Machines, small_disk: Path) -> None:
    console = Console(small_disk / "store", machines)
    console.ordered()
    alert = console.alert()
    ann = console.visitor("ann")
    ann.client._transport.raise_server_exceptions = False  # type: ignore[attr-defined]
    (small_disk / "full").write_bytes(b"")
    with (small_disk / "full").open("ab", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    answer = ann.get(f"/api/cases/{alert}/probe")
    assert answer.status_code in (409, 500)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["error"]
    console.close()


@given(st.lists(st.tuples(st.floats(-80, 80), st.floats(-170, 170)), min_size=3, max_size=12))
def test_any_polygon_is_drawn_within_the_map(polygon: list[tuple[float, float]]) -> None:
    drawing = draw(polygon)
    for point in drawing.points.split():
        x, y = (float(part) for part in point.split(","))
        assert 0 <= x <= drawing.width and 0 <= y <= drawing.height


def test_the_map_is_in_metres_and_north_is_up() -> None:
    """A square of 100 m a side at 52 degrees north is drawn as a square, its grid every 20 m or more."""
    side = 100 / 111_320
    wide = side / math.cos(math.radians(52))
    drawing = draw([(52.0, 0.0), (52.0 + side, 0.0), (52.0 + side, wide), (52.0, wide)])
    corners = [tuple(float(part) for part in point.split(",")) for point in drawing.points.split()]
    (west, south), (_, north), (east, _), _ = corners
    assert north < south and west < east
    assert abs((east - west) - (south - north)) < 0.5
    assert drawing.across == "100 m by 100 m"
    metres = float(drawing.step.split()[0])
    assert abs(drawing.step_units / metres - (east - west) / 100) < 0.01


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min"), (125, "2 min 5 s"), (3600, "1 h"), (90_000, "1 d 1 h")],
)
def test_durations_are_in_their_two_largest_units(seconds: float, text: str) -> None:
    assert words.span(seconds) == text


def test_warnings_name_what_should_make_one_careful() -> None:
    said = words.warnings(0.2, 15, ("arrived late",), None, NOON)
    assert said[0] == "Very small face: 15 pixels between the eyes"
    assert "Poor picture" in said[1] and "reference picture is not here" in said[2] and said[3] == "Arrived late"
    assert words.image_age("2019-01-01", NOON) == "7.9 years old"
    assert words.image_age("2026-11-20", NOON) == "3 days old"
    assert words.image_age("", NOON) == "date not known"
    assert words.plain("wanted-on-warrant") == "Wanted on warrant"
