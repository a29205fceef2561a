"""Issuing a list: to whom, for when, how long, and what the policy forbids."""

from __future__ import annotations

import datetime
import hashlib
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.errors import BluelampError, ConfigError, EnrolmentError, KeyFileError, PackError, SealError
from appliance.formats import watchlist
from appliance.limits import LIMITS
from appliance.recognition import calibration
from appliance.recognition.calibration import Normalisation
from appliance.trust import keys, seal
from provisioning import policy
from provisioning.base import open_base
from provisioning.lists import issue
from provisioning.lists.issue import Thresholds, Window
from provisioning.lists.selection import select
from tests.support import workbench


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> workbench.Workbench:
    bench = workbench.build(tmp_path_factory.mktemp("bench"))
    bench.issue()
    return bench


@pytest.fixture
def bench(shared: workbench.Workbench, tmp_path: Path) -> workbench.Workbench:
    return shared.copy(tmp_path)


@pytest.fixture(scope="module")
def material(shared: workbench.Workbench) -> tuple[bytes, keys.KeyFolder]:
    """A sealed list and the unit's keys, read once."""
    return (shared.root / "list.watchlist").read_bytes(), shared.folder


def opened(bench: workbench.Workbench, path: Path) -> watchlist.Watchlist:
    """As the unit opens it."""
    return watchlist.open_watchlist(
        path.read_bytes(), unit="van-1", keys=bench.folder.sealing, authorities=bench.folder.roster.authority_keys(),
        models=bench.models, now=time.time(),
    )  # fmt: skip


def set_policy(bench: workbench.Workbench, **changes: object) -> None:
    """Other values in policy.toml."""
    path = bench.base.folder / "policy.toml"
    lines = [line for line in path.read_text().splitlines() if not line.startswith(tuple(changes))]
    path.write_text("\n".join([*lines, *(f"{k} = {v}" for k, v in changes.items())]))
    bench.base = open_base(bench.base.folder)


def test_the_unit_gets_identifiers_categories_and_templates_only(bench: workbench.Workbench) -> None:
    """No name, no image, no rationale is in the file, sealed or not."""
    blob = (bench.root / "list.watchlist").read_bytes()
    sealed = seal.take_apart(blob, LIMITS.watchlist_bytes)
    inside = seal.open_sealed(sealed, bench.folder.sealing)
    assert b"R-00003" in inside
    for secret in (b"Name 3", b"warrant is in force", b"Insp. A", b"custody image"):
        assert secret not in inside
    assert b"R-00003" not in blob


def test_another_unit_cannot_open_it(bench: workbench.Workbench) -> None:
    workbench.join(bench.reopen(), bench.root / "van-2", "unit", "van-2")
    other = keys.load(bench.root / "van-2")
    sealed = seal.take_apart((bench.root / "list.watchlist").read_bytes(), LIMITS.watchlist_bytes)
    with pytest.raises(SealError, match="for another machine"):
        seal.open_sealed(sealed, other.sealing)


def test_a_list_is_made_at_most_a_day_before_its_window(bench: workbench.Workbench) -> None:
    """Requirement 4: 25 hours before is refused, 23 is not; the policy may say otherwise, and then it is on record."""
    early = Window(bench.now + 25 * 3600, bench.now + 27 * 3600)
    with pytest.raises(EnrolmentError, match="at most 24 hours before its window; issue it after"):
        bench.issue("D-2", window=early)
    assert not list((bench.base.folder / "issued").glob("D-2*"))
    bench.issue("D-2", window=Window(bench.now + 23 * 3600, bench.now + 27 * 3600))
    before = bench.base.policy_digest
    set_policy(bench, hours_before=48)
    record = bench.issue("D-3", window=early)
    assert record.policy != before


@pytest.mark.parametrize(
    ("window", "said"),
    [((100, 100), "ends before it begins"), ((-7200, -60), "over already"), ((0, 25 * 3600), "allows 24")],
)
def test_windows_that_make_no_sense_are_refused(
    bench: workbench.Workbench, window: tuple[float, float], said: str
) -> None:
    with pytest.raises(EnrolmentError, match=said):
        bench.issue("D-2", window=Window(bench.now + window[0], bench.now + window[1]))


def test_the_ceiling_is_the_policys(bench: workbench.Workbench) -> None:
    """Requirement 12."""
    set_policy(bench, entries=11)
    with pytest.raises(EnrolmentError, match="12 entries, the policy allows 11"):
        bench.issue("D-2")


def test_catch_all_categories_cannot_be_configured(bench: workbench.Workbench) -> None:
    """Requirement 6: not even the authority may have 'intelligence only'."""
    path = bench.base.folder / "policy.toml"
    for bad in ("intelligence only", "persons-of-interest", "other", "misc"):
        path.write_text(f'categories = ["wanted-on-warrant", "{bad}"]')
        with pytest.raises(ConfigError, match="catch-all"):
            policy.read(path)


def test_versions_count_and_link(bench: workbench.Workbench) -> None:
    """A delta is the next version, sealed to the same key, naming the file before it."""
    first = opened(bench, bench.root / "list.watchlist")
    workbench.fill(bench.base, bench.models, workbench.vectors(14, seed=3))
    record = bench.issue("D-1", bench.root / "second.watchlist")
    second = opened(bench, bench.root / "second.watchlist")
    assert (second.manifest.version, second.manifest.previous) == (2, first.digest)
    assert (record.references, first.content != second.content) == (14, True)
    assert {issue.newest(bench.base, "van-1", "D-1")} == {record}


def test_a_deployment_has_one_window(bench: workbench.Workbench) -> None:
    """Requirement 3: the identifier cannot be used for another occasion."""
    with pytest.raises(EnrolmentError, match="a new window is a new deployment"):
        bench.issue("D-1", window=Window(bench.now, bench.now + 3600))


def test_expired_references_are_left_out(bench: workbench.Workbench) -> None:
    """Requirement 24. One that expires within the window must be reviewed first."""
    yesterday = (datetime.date.today() - datetime.timedelta(days=1)).isoformat()
    workbench.fill(bench.base, bench.models, workbench.vectors(2), expiry=yesterday)
    chosen = bench.selection()
    assert len(chosen.rows) == 10
    assert chosen.left_out == {"R-00000": f"expired on {yesterday}", "R-00001": f"expired on {yesterday}"}


def test_selection_by_category_and_identifier(bench: workbench.Workbench) -> None:
    today = datetime.date.today()
    packs = bench.packs.detector, bench.packs.embedder
    assert len(select(bench.base, *packs, on=today, identifiers=["R-00001"]).rows) == 1
    with pytest.raises(EnrolmentError, match="not enrolled: R-9"):
        select(bench.base, *packs, on=today, identifiers=["R-9"])
    with pytest.raises(EnrolmentError, match="category missing-at-risk"):
        select(bench.base, *packs, on=today, categories=["missing-at-risk"])


def test_membership_is_provable_after_the_images_are_gone(bench: workbench.Workbench) -> None:
    """Requirement 16: by identifier and category only."""
    from provisioning.enrolment import references

    with bench.base.store() as store:
        references.erase(store, "R-00004")
    record = issue.records(bench.base)[0]
    assert ("R-00004", "wanted-on-warrant") in issue.members(bench.base, record)


def test_an_altered_record_is_refused(bench: workbench.Workbench) -> None:
    path = next((bench.base.folder / "issued").glob("*.json"))
    path.write_bytes(path.read_bytes().replace(b"payload", b"payloae", 1))
    with pytest.raises(SealError):
        issue.records(bench.base)


def test_the_calibrated_threshold_follows_the_lists_size(bench: workbench.Workbench) -> None:
    detector, embedder = bench.packs.detector, bench.packs.embedder
    short = issue.thresholds(embedder, detector, 100, fpir=1 / 6000).threshold
    long = issue.thresholds(embedder, detector, 10_000, fpir=1 / 6000).threshold
    assert workbench.FLOOR <= short < long


def test_references_that_resemble_many_get_thresholds_of_their_own(bench: workbench.Workbench) -> None:
    """The calibration's cohort raises them, by what their level is above the usual; a wolf's own stays if higher."""
    detector, embedder, chosen = bench.packs.detector, bench.packs.embedder, bench.selection()
    cohort = np.stack([chosen.templates[0] + 0.2 * chosen.templates[5], chosen.templates[1]]).astype(np.float16)
    np.save(embedder.folder / "cohort.npy", cohort)
    record = calibration.load(embedder)
    rule = Normalisation(
        kind="cohort", reference_weight=1, nearest=1, usual=0.9, cohort="cohort.npy",
        cohort_sha256=hashlib.sha256((embedder.folder / "cohort.npy").read_bytes()).hexdigest(),
    )  # fmt: skip
    changed = record.model_copy(update={"normalisation": rule}).model_dump_json()
    (embedder.folder / "calibration.json").write_text(changed)
    first, second, third = (chosen.rows[i].reference_identifier for i in range(3))
    with pytest.raises(EnrolmentError, match="must be given with the list"):
        issue.thresholds(embedder, detector, 12, threshold=0.75)
    found = issue.thresholds(embedder, detector, 12, threshold=0.75, by_reference={first: 0.99}, selection=chosen)
    assert found.by_reference[first] == 0.99
    assert found.by_reference[second] == pytest.approx(0.85, abs=2e-3)
    assert third not in found.by_reference
    assert found.threshold == 0.75


def test_no_threshold_goes_under_the_floor(bench: workbench.Workbench) -> None:
    """Requirement 10: neither the list's, nor a category's, nor a reference's."""
    detector, embedder = bench.packs.detector, bench.packs.embedder
    for more in ({"threshold": 0.5}, {"threshold": 0.7, "by_category": {"wanted-on-warrant": 0.5}}):
        with pytest.raises(EnrolmentError, match="under the calibration's floor"):
            issue.thresholds(embedder, detector, 100, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [9.0, -1.5, float("nan")])
def test_a_threshold_that_no_score_can_reach_is_refused(bench: workbench.Workbench, value: float) -> None:
    """The list's and a category's: a category at 9 could never alert."""
    detector, embedder = bench.packs.detector, bench.packs.embedder
    for more in ({"threshold": value}, {"threshold": 0.75, "by_category": {"wanted-on-warrant": value}}):
        with pytest.raises(EnrolmentError, match="outside -1 to 1"):
            issue.thresholds(embedder, detector, 100, **more)  # type: ignore[arg-type]


def test_without_calibration_a_rate_gives_no_threshold(bench: workbench.Workbench) -> None:
    """The error says what to do; an explicit threshold is issued with a warning that nothing will arm it."""
    (bench.packs.embedder.folder / "calibration.json").unlink()
    detector, embedder = bench.packs.detector, bench.packs.embedder
    with pytest.raises(PackError, match="evaluate calibrate"):
        issue.thresholds(embedder, detector, 100, fpir=0.001)
    with pytest.raises(EnrolmentError, match="give --threshold, or --fpir"):
        issue.thresholds(embedder, detector, 100)
    assert "no order will arm it" in issue.thresholds(embedder, detector, 100, threshold=0.7).note


def test_only_units_on_the_roster_get_lists(bench: workbench.Workbench) -> None:
    with pytest.raises(KeyFileError, match="van-9: no such unit"):
        issue.issue(bench.base, bench.selection(), unit="van-9", deployment="D-1", window=bench.window(),
                    limits=Thresholds(0.75, {}, {}), out=bench.root / "x", now=bench.now)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_byte_of_a_watchlist_is_refused(
    shared: workbench.Workbench, material: tuple[bytes, keys.KeyFolder], data: st.DataObject
) -> None:
    blob, folder = material
    changed = bytearray(blob)
    changed[data.draw(st.integers(0, len(blob) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BluelampError):
        watchlist.open_watchlist(
            bytes(changed), unit="van-1", keys=folder.sealing, authorities=folder.roster.authority_keys(),
            models=shared.models, now=time.time(),
        )  # fmt: skip


@pytest.mark.slow
def test_a_hundred_thousand_entries_are_issued_and_opened(bench: workbench.Workbench) -> None:
    """The format's ceiling, with the policy raised to it."""
    set_policy(bench, entries=100_000)
    chosen = bench.selection()
    many = np.concatenate([workbench.vectors(25_000, seed=s) for s in range(4)])
    rows = tuple(workbench.reference(i) for i in range(100_000))
    big = type(chosen)(rows, (80.0,) * 100_000, many, chosen.models, {})
    out = bench.root / "big.watchlist"
    issue.issue(bench.base, big, unit="van-1", deployment="D-9", window=bench.window(),
                limits=Thresholds(0.75, {}, {}), out=out, now=bench.now)  # fmt: skip
    assert len(opened(bench, out).manifest.entries) == 100_000
