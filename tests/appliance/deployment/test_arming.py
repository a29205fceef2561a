"""The unit obeys: every step of arming refuses what it is there to refuse, and the permit stops what is over."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Callable
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.deployment import arming, clock, place
from appliance.deployment import files as deployment
from appliance.deployment.arming import Permit
from appliance.deployment.clock import ClockPoint, SteadyClock
from appliance.deployment.next_list import ListWatch
from appliance.deployment.place import FilePosition, Position
from appliance.deployment.site import Site, read_armed
from appliance.errors import BluelampError, ConfigError, WatchlistError
from appliance.formats import recall
from appliance.formats.order import OrderError
from appliance.formats.recall import Recall
from appliance.keeper.finish import finish
from appliance.trust import admission, keys
from provisioning.authority import authority
from provisioning.moments import moment
from provisioning.orders.ordering import recall_of
from tests.support import workbench


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> workbench.Workbench:
    bench = workbench.build(tmp_path_factory.mktemp("bench"))
    bench.ordered()
    return bench


@pytest.fixture
def bench(shared: workbench.Workbench, tmp_path: Path) -> workbench.Workbench:
    return shared.copy(tmp_path)


@pytest.fixture
def site(bench: workbench.Workbench) -> Site:
    """The unit with order, list, pre-flight and report brought to it, nothing armed."""
    return bench.site(bench.root / "van-D-1")


def arm(bench: workbench.Workbench, site: Site, now: float | None = None) -> arming.Armed:
    return deployment.arm(site, bench.folder, bench.packs, workbench.confirmed(), "PC 1234", now)


def permit(bench: workbench.Workbench, site: Site) -> Permit:
    """The permit of an armed unit."""
    content = deployment.open_list(site.watchlist, bench.folder, bench.models, time.time())
    return deployment.open_permit(site, bench.folder, bench.packs, content)


def test_a_unit_with_everything_in_order_arms_and_scans(bench: workbench.Workbench, site: Site) -> None:
    record = arm(bench, site)
    assert record.deployment == "D-1"
    assert len(record.signage) == 5
    assert permit(bench, site)(time.time(), time.monotonic()) is None


def test_without_arming_there_is_no_permit(bench: workbench.Workbench, site: Site) -> None:
    with pytest.raises(OrderError, match="not armed; run: bluelamp-unit arm"):
        permit(bench, site)


def _exchange(path: str, change: Callable[[bytes], bytes]) -> Callable[[workbench.Workbench, Site], None]:
    def act(bench: workbench.Workbench, site: Site) -> None:
        file = site.order.parent / path
        file.write_bytes(change(file.read_bytes()))

    return act


def _remove(path: str) -> Callable[[workbench.Workbench, Site], None]:
    return lambda bench, site: (site.order.parent / path).unlink()


def _another_list(bench: workbench.Workbench, site: Site) -> None:
    """The same version, well signed and sealed, with other bytes."""
    for record in (bench.base.folder / "issued").iterdir():
        record.unlink()
    bench.issue("D-1", site.watchlist)


def _higher_floor(bench: workbench.Workbench, site: Site) -> None:
    workbench.write_calibration(bench.packs.detector, bench.packs.embedder, 0.9)


def _no_calibration(bench: workbench.Workbench, site: Site) -> None:
    (bench.packs.embedder.folder / "calibration.json").unlink()


@pytest.mark.parametrize(
    ("damage", "step", "said"),
    [
        (_another_list, 7, "not the file the order names"),
        (_no_calibration, 11, "no calibration"),
        (_higher_floor, 11, "under the calibration's floor"),
        (_remove("preflight.json"), 12, "is missing"),
        (_exchange("preflight.json", lambda b: b.replace(b"sig", b"gis", 1)), 12, "not the one the order names"),
        (_remove("report.json"), 13, "is missing"),
        (_exchange("report.json", lambda b: b + b" "), 13, "not the one the order names"),
    ],
)
def test_each_step_refuses_what_it_is_there_for(
    bench: workbench.Workbench,
    site: Site,
    damage: Callable[[workbench.Workbench, Site], None],
    step: int,
    said: str,
) -> None:
    """Requirements 8, 10, 11, 21: exactly the one step fails, and says why; the unit does not arm."""
    damage(bench, site)
    _, steps = deployment.examine(site, bench.folder, bench.packs, workbench.confirmed())
    failed = [s for s in steps if s.refusal]
    assert [s.number for s in failed] == [step]
    assert said in str(failed[0].refusal)
    with pytest.raises(OrderError, match=f"step {step}"):
        arm(bench, site)


def test_a_later_version_arms_only_as_far_as_the_order_allows(bench: workbench.Workbench) -> None:
    """The order names version 1 and allows none later: version 2 does not arm."""
    strict = bench.ordered(deployment="D-2", later_versions=0)
    bench.issue("D-2", strict.watchlist)
    with pytest.raises(OrderError, match="version 2 of the list, the order allows up to 1"):
        arm(bench, strict)


def test_an_old_report_by_group_blocks_arming(bench: workbench.Workbench) -> None:
    """Requirement 21: current, for these models, by group."""
    from appliance.formats import performance

    now = time.time()
    models = bench.models
    assert performance.refusal(bench.performance(), models, now) is None
    old = bench.performance(made=now - 400 * 86400)
    assert "older than 366 days" in str(performance.refusal(old, models, now))
    assert "no figures by group" in str(performance.refusal(bench.performance(groups=[]), models, now))
    assert "another detector" in str(performance.refusal(bench.performance(detector="0" * 64), models, now))
    for junk in (b"", b"[]", b"\xff", b"[" * 100_000, b'{"models": 3}'):
        assert performance.refusal(junk, models, now)


def test_a_refused_attempt_to_arm_is_on_record(bench: workbench.Workbench, site: Site) -> None:
    """Requirement 10: refused and logged."""
    from appliance.trust import audit

    _higher_floor(bench, site)
    with pytest.raises(OrderError):
        arm(bench, site)
    entries = audit.verify(site.state / "audit.log", [bench.folder.signer.public_key])
    assert "under the calibration's floor" in entries[-1].detail
    assert entries[-1].act == "arming"


def test_an_unconfirmed_sign_blocks_arming(bench: workbench.Workbench, site: Site) -> None:
    """Requirement 17."""
    partly = dict(list(workbench.confirmed().items())[:-1])
    with pytest.raises(OrderError, match="step 14, signage confirmed: not confirmed: Cameras see the place"):
        deployment.arm(site, bench.folder, bench.packs, partly, "PC 1234")


def test_an_order_for_another_unit_is_refused(bench: workbench.Workbench, site: Site) -> None:
    """A list of another unit does not even open; an order of another unit fails its step."""
    workbench.join(bench.reopen(), bench.root / "van-2", "unit", "van-2")
    other = Site(bench.root / "van-2", site.watchlist, site.order, site.state)
    with pytest.raises(WatchlistError, match="issued to unit van-1, this is van-2"):
        deployment.open_list(other.watchlist, keys.load(bench.root / "van-2"), bench.models, time.time())
    content = deployment.open_list(site.watchlist, bench.folder, bench.models, time.time())
    evidence = deployment.gather(other, keys.load(bench.root / "van-2"), bench.packs, content, {}, time.time())
    _, steps = arming.check(evidence)
    assert "the order is for van-1, this is van-2" in str(steps[1].refusal)


def test_the_clock_a_day_back_is_not_believed(bench: workbench.Workbench, site: Site) -> None:
    """K1: something was signed later than the clock says."""
    content = deployment.open_list(site.watchlist, bench.folder, bench.models, time.time())
    evidence = deployment.gather(site, bench.folder, bench.packs, content, workbench.confirmed(), bench.now - 86400)
    _, steps = arming.check(evidence)
    refused = {s.number: s.refusal for s in steps if s.refusal}
    assert "something was already signed" in str(refused[4])
    assert 5 in refused


def test_the_clock_a_day_ahead_ends_the_window(bench: workbench.Workbench, site: Site) -> None:
    content = deployment.open_list(site.watchlist, bench.folder, bench.models, time.time())
    evidence = deployment.gather(site, bench.folder, bench.packs, content, workbench.confirmed(), bench.now + 86400)
    refused = {s.number: s.refusal for s in arming.check(evidence)[1] if s.refusal}
    assert "the window ended" in str(refused[5])


def test_a_used_deployment_is_refused_a_second_time(bench: workbench.Workbench, site: Site) -> None:
    """Requirement 3: with the list and all keys put back from a backup, the unit's own log still knows."""
    import shutil

    kept, listed = bench.root / "backup", site.watchlist.read_bytes()
    shutil.copytree(bench.unit, kept)
    arm(bench, site)
    finish(site, bench.folder, "disarmed")
    shutil.copytree(kept, bench.unit, dirs_exist_ok=True)
    site.watchlist.write_bytes(listed)
    with pytest.raises(OrderError, match="step 3, deployment not used before: D-1 was used and ended here"):
        arm(bench, site)


def test_an_order_exchanged_after_arming_is_noticed(bench: workbench.Workbench, site: Site) -> None:
    arm(bench, site)
    other = bench.ordered(deployment="D-2")
    site.order.write_bytes(other.order.read_bytes())
    with pytest.raises(OrderError, match="exchanged after arming"):
        permit(bench, site)


def test_a_forged_arming_is_refused(bench: workbench.Workbench, site: Site) -> None:
    """armed.json is signed by the unit; one of the base's making is not."""
    arm(bench, site)
    from appliance.trust import envelope

    record = read_armed(site, bench.folder)
    site.armed.write_bytes(envelope.sign(record, arming.KIND, bench.base.keys.signer))
    with pytest.raises(BluelampError, match="not trusted here"):
        permit(bench, site)


def test_disarming_stops_at_the_next_look(bench: workbench.Workbench, site: Site) -> None:
    """Anybody on the van: a file is enough."""
    arm(bench, site)
    running = permit(bench, site)
    site.disarm.touch()
    assert running(time.time(), time.monotonic()) == "disarmed by the field team"
    assert running.ending == "disarmed"


def test_a_signed_recall_stops_and_nothing_else_does(bench: workbench.Workbench, site: Site) -> None:
    """A recall of another unit, of another deployment, by no authority, or junk changes nothing."""
    arm(bench, site)
    running = permit(bench, site)
    officer = keys.signer_of(bench.officer)
    for blob in (
        b"junk",
        recall.sign(Recall(unit="van-2", deployment="D-1", made=time.time(), reason="stop"), officer),
        recall.sign(Recall(unit="van-1", deployment="D-7", made=time.time(), reason="stop"), officer),
        recall.sign(Recall(unit="van-1", deployment="D-1", made=time.time(), reason="stop"), bench.folder.signer),
    ):
        site.recall.write_bytes(blob)
        assert running(time.time(), time.monotonic()) is None
    site.recall.write_bytes(recall_of(bench.base, "van-1", "D-1", "new information"))
    assert running(time.time(), time.monotonic()) == "recalled by an authority: new information"
    assert running.ending == "recalled"


def steady(start: float = 1000.0) -> SteadyClock:
    return SteadyClock(start, 50.0)


def test_clock_rules_while_scanning() -> None:
    """K2 and K3: steady time counts; back by more than the slack disarms for good; ahead only shortens."""
    assert steady().refusal(1010, 60, 900, 2000) is None
    assert steady().refusal(1006, 60, 900, 2000) is None
    back = steady()
    assert "set back" in str(back.refusal(1004, 60, 900, 2000))
    assert "set back" in str(back.refusal(1070, 120, 900, 2000))
    assert "window ended" in str(steady().refusal(2000, 60, 900, 2000))
    assert "window ended" in str(SteadyClock(1000, 50).refusal(1996, 1050, 900, 2000))
    assert "window begins" in str(steady().refusal(1500, 60, 1200, 2000))


def test_clock_rules_over_a_restart() -> None:
    """K4: in the same boot the steady clock counts; after a new boot the time of arming was certainly reached."""
    then = ClockPoint(wall=1000, boottime=50, boot="a")
    assert clock.since_point(ClockPoint(wall=1100, boottime=150, boot="a"), then) is None
    assert "set back by 60 s" in str(clock.since_point(ClockPoint(wall=1040, boottime=150, boot="a"), then))
    assert clock.since_point(ClockPoint(wall=1040, boottime=5, boot="b"), then) is None
    assert "already signed" in str(clock.since_point(ClockPoint(wall=500, boottime=5, boot="b"), then))


@given(
    wall=st.floats(0, 4e9), elapsed=st.floats(0, 1e6), drift=st.floats(-1e6, 1e6), begin=st.floats(0, 4e9),
    length=st.floats(1, 1e6),
)  # fmt: skip
def test_no_reading_outside_the_window_is_allowed(
    wall: float, elapsed: float, drift: float, begin: float, length: float
) -> None:
    """Whatever the wall clock does, scanning needs wall and steady time both inside, and the clock never back."""
    allowed = SteadyClock(wall, 0).refusal(wall + elapsed + drift, elapsed, begin, begin + length) is None
    both = all(begin <= t < begin + length for t in (wall + elapsed, wall + elapsed + drift))
    assert allowed == (both and wall + elapsed + drift >= wall + elapsed - clock.SLACK)


ZONES = ("Europe/London", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Kiritimati", "UTC")


@given(
    at=st.datetimes(datetime.datetime(1990, 1, 1), datetime.datetime(2037, 12, 31)), zone=st.sampled_from(ZONES)
)  # fmt: skip
def test_a_written_moment_is_the_moment_meant_or_refused(at: datetime.datetime, zone: str) -> None:
    """Any time zone, leap days included: what is taken reads the same on that zone's clocks; what clocks skip or show
    twice is refused."""
    at = at.replace(microsecond=0)
    local = ZoneInfo(zone)
    first, second = at.replace(tzinfo=local), at.replace(tzinfo=local, fold=1)
    if first.utcoffset() != second.utcoffset():
        with pytest.raises(ConfigError, match="clocks of"):
            moment(at.isoformat(), zone, 0)
        return
    seconds = moment(at.isoformat(), zone, 0)
    assert datetime.datetime.fromtimestamp(seconds, local).replace(tzinfo=None) == at
    assert moment(first.isoformat(), None, 0) == seconds


def test_leap_days_and_offsets() -> None:
    assert moment("2028-02-29T12:00Z", None, 0) == moment("2028-02-29T13:00+01:00", None, 0)
    assert moment("2028-03-01T00:00Z", None, 0) - moment("2028-02-28T00:00Z", None, 0) == 2 * 86400
    assert moment("+2h", None, 100.0) == 7300.0
    for text in ("2027-02-29T12:00Z", "tomorrow", "", "2028-01-01T12:00"):
        with pytest.raises(ConfigError):
            moment(text, None, 0)


SQUARE = ((51.0, 0.0), (51.0, 0.01), (51.01, 0.01), (51.01, 0.0))


def test_place_inside_and_outside() -> None:
    assert place.inside(SQUARE, 51.005, 0.005)
    assert place.inside(SQUARE, 51.0, 0.005)
    assert not place.inside(SQUARE, 51.02, 0.005)
    assert place.outside_by(SQUARE, 51.011, 0.005) == pytest.approx(111, abs=2)
    assert place.outside_by(SQUARE, 51.005, 0.005) == 0


@given(st.floats(51.0, 51.01), st.floats(0, 0.01), st.floats(50.9, 51.1), st.floats(-0.1, 0.11))
def test_place_agrees_with_a_rectangle(lat: float, lon: float, other_lat: float, other_lon: float) -> None:
    assert place.inside(SQUARE, lat, lon)
    outside = not (51.0 <= other_lat <= 51.01 and 0 <= other_lon <= 0.01)
    assert place.inside(SQUARE, other_lat, other_lon) != outside


def test_leaving_the_place_stops_and_returning_goes_on(bench: workbench.Workbench, site: Site) -> None:
    """Requirement 9. A position from a file; outside only pauses: nothing is erased."""
    path = bench.root / "position.json"
    path.write_text(json.dumps({"latitude": 51.5002, "longitude": -0.141}))
    there = bench.site(site.order.parent, FilePosition(path))
    arm(bench, there)
    running = permit(bench, there)
    assert running(time.time(), time.monotonic()) is None
    path.write_text(json.dumps({"latitude": 51.52, "longitude": -0.141}))
    assert "m outside High Street" in str(running(time.time(), time.monotonic()))
    assert running.ending is None
    path.write_text(json.dumps({"latitude": 51.5002, "longitude": -0.141}))
    assert running(time.time(), time.monotonic()) is None


def test_a_configured_position_source_that_says_nothing_stops(bench: workbench.Workbench, site: Site) -> None:
    """No source is no rule; a source that fell silent is not being inside."""
    silent = bench.site(site.order.parent, FilePosition(bench.root / "nothing.json"))
    with pytest.raises(OrderError, match="step 6, inside the place: no position yet"):
        arm(bench, silent)
    arm(bench, site)
    running = permit(bench, site)
    old = Position(51.5002, -0.141, time.monotonic() - 90)
    assert "90 s old" in str(running.refusal(time.time(), time.monotonic(), old))


def test_gpsd_is_understood() -> None:
    """Reports without a fix, of other classes, or of junk give no position."""
    fix = place.parse_tpv(b'{"class":"TPV","mode":3,"lat":51.5,"lon":-0.1,"eph":4.2}', 7.0)
    assert fix == Position(51.5, -0.1, 7.0, 4.2)
    for line in (
        b'{"class":"TPV","mode":1}',
        b'{"class":"SKY"}',
        b"junk",
        b'{"class":"TPV","mode":3,"lat":"x"}',
        b"[]",
    ):
        assert place.parse_tpv(line, 7.0) is None


def test_gpsd_is_listened_to() -> None:
    """A real socket that speaks gpsd's protocol."""
    import socket
    import threading

    with socket.create_server(("127.0.0.1", 0)) as server:

        def speak() -> None:
            stream, _ = server.accept()
            with stream:
                assert b"WATCH" in stream.recv(200)
                stream.sendall(b'{"class":"VERSION"}\n{"class":"TPV","mode":2,"lat":51.5,"lo')
                stream.sendall(b'n":-0.1}\n')

        threading.Thread(target=speak, daemon=True).start()
        source = place.GpsdPosition("127.0.0.1", server.getsockname()[1], retry=0.05)
        deadline = time.monotonic() + 5
        while source.latest() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        source.close()
        found = source.latest()
    assert found is not None
    assert (found.latitude, found.longitude) == (51.5, -0.1)


def test_a_newer_list_is_taken_without_a_restart(bench: workbench.Workbench, site: Site) -> None:
    """Additions as version 2: opened with every check; junk in its place leaves the present list in use."""
    from appliance.formats import order

    content = deployment.open_list(site.watchlist, bench.folder, bench.models, time.time())
    current = order.read(site.order.read_bytes(), bench.folder.roster.authority_keys(), 2)
    said: list[str] = []
    watch = ListWatch(
        site.watchlist, current, "van-1",
        lambda least: deployment.open_list(site.watchlist, bench.folder, bench.models, time.time(), least), said.append,
    )  # fmt: skip
    assert watch.poll(content) is None
    keep = site.watchlist.read_bytes()
    site.watchlist.write_bytes(b"junk")
    assert watch.poll(content) is None
    assert "was not taken" in said[0]
    site.watchlist.write_bytes(keep)
    assert watch.poll(content) is None  # the same version again is not newer
    workbench.fill(bench.base, bench.models, workbench.vectors(15, seed=9))
    bench.issue("D-1", site.watchlist)
    newer = watch.poll(content)
    assert newer is not None
    assert (newer.manifest.version, len(newer.manifest.entries)) == (2, 15)
    assert newer.manifest.previous == content.digest


def test_a_newer_list_below_the_ordered_threshold_is_not_taken(bench: workbench.Workbench, site: Site) -> None:
    from appliance.formats import order
    from provisioning.lists import issue

    content = deployment.open_list(site.watchlist, bench.folder, bench.models, time.time())
    current = order.read(site.order.read_bytes(), bench.folder.roster.authority_keys(), 2)
    said: list[str] = []
    watch = ListWatch(
        site.watchlist, current, "van-1",
        lambda least: deployment.open_list(site.watchlist, bench.folder, bench.models, time.time(), least), said.append,
    )  # fmt: skip
    issue.issue(
        bench.base, bench.selection(), unit="van-1", deployment="D-1", window=bench.window(),
        limits=issue.Thresholds(0.61, {}, {}), out=site.watchlist, now=bench.now,
    )  # fmt: skip
    assert watch.poll(content) is None
    assert "under the order's" in said[0]


def test_the_units_roster_may_be_renewed_while_armed(bench: workbench.Workbench, site: Site) -> None:
    """A newer roster does not disturb; one that revokes a signer of the order voids it."""
    arm(bench, site)
    workbench.join(bench.reopen(), bench.root / "van-3", "unit", "van-3")
    admission.update_roster(bench.unit, (bench.base.folder / "roster.json").read_bytes())
    assert permit(bench, site)(time.time(), time.monotonic()) is None
    authority.revoke(bench.reopen(), "officer")
    admission.update_roster(bench.unit, (bench.base.folder / "roster.json").read_bytes())
    with pytest.raises(OrderError, match="revoked"):
        permit(bench, site)
