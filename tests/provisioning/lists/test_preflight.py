"""The pre-flight finds siblings, wolves, old images, and says how many false alerts to expect."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from appliance.deployment.site import Site
from appliance.errors import EnrolmentError
from appliance.formats import preflight as records
from appliance.formats.preflight import Preflight
from appliance.recognition.embed import unit
from appliance.records import Floats
from appliance.trust import envelope
from provisioning.cli import app
from provisioning.enrolment import references
from provisioning.lists import cohort, preflight, preflight_report
from provisioning.lists.cohort import Strangers
from provisioning.lists.preflight import Question
from tests.support import workbench

COUNT = 30


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> workbench.Workbench:
    return workbench.build(tmp_path_factory.mktemp("bench"), count=COUNT)


@pytest.fixture
def bench(shared: workbench.Workbench, tmp_path: Path) -> workbench.Workbench:
    return shared.copy(tmp_path)


def strangers(templates: Floats) -> Strangers:
    about = cohort.none(templates.shape[1]).about.model_copy(update={"size": len(templates), "name": "random"})
    return Strangers(about, templates)


def look(bench: workbench.Workbench, cohort_templates: Floats | None = None, **ask: object) -> Preflight:
    said: dict[str, object] = {"threshold": 0.75, "greatest_fpir": 0.001, "footfall": 20_000, **ask}
    who = cohort.none(workbench.LENGTH) if cohort_templates is None else strangers(cohort_templates)
    question = Question(**said)  # type: ignore[arg-type]
    return preflight.examine(bench.base, bench.selection(), bench.packs.detector, bench.packs.embedder, who, question)


def put(bench: workbench.Workbench, number: int, template: Floats, **changes: object) -> None:
    """One more reference, or another template of one."""
    with bench.base.store() as store:
        made = workbench.reference(number, **changes)
        references.put_reference(store, made)
        references.put_template(
            store, references.Template(made.reference_identifier, f"{number + 500:064x}", 80.0, template), bench.models
        )


def near(template: Floats, score: float, seed: int = 0) -> Floats:
    """A unit vector at exactly this cosine from another."""
    other = workbench.vectors(1, seed=seed + 77)[0]
    other = unit((other - (other @ template) * template)[None])[0]
    return np.asarray(score * template + np.sqrt(1 - score**2) * other, np.float32)


def test_look_alikes_are_listed_once_and_closest_first(bench: workbench.Workbench) -> None:
    """Pairs planted at 0.80, 0.76 and 0.70, threshold 0.75: the two that could raise each other's alert, in order."""
    base = workbench.vectors(COUNT)
    for number, (like, score) in enumerate(((0, 0.80), (1, 0.76), (2, 0.70)), 40):
        put(bench, number, near(base[like], score, number))
    found = look(bench).look_alikes
    assert [(p.first, p.second) for p in found] == [("R-00000", "R-00040"), ("R-00001", "R-00041")]
    assert found[0].score == pytest.approx(0.80, abs=1e-3)


def test_two_images_of_one_reference_are_no_look_alikes(bench: workbench.Workbench) -> None:
    put(bench, 0, near(workbench.vectors(COUNT)[0], 0.95))
    report = look(bench)
    assert (report.look_alikes, report.entries, report.references) == ((), COUNT + 1, COUNT)


def test_a_wolf_is_found_and_its_threshold_raised(bench: workbench.Workbench) -> None:
    """A reference that lies in the direction of the cohort's mean scores high against everybody: it alone gets a
    threshold of its own, at which its rate over the cohort is within the limit."""
    rng = np.random.default_rng(5)
    direction = workbench.vectors(1, seed=99)[0]
    crowd = unit(0.9 * direction + rng.normal(size=(4000, workbench.LENGTH)).astype(np.float32) / 12)
    put(bench, 50, unit((direction + 0.3 * workbench.vectors(1, seed=3)[0])[None])[0])
    report = look(bench, crowd)
    assert [w.reference_identifier for w in report.wolves] == ["R-00050"]
    wolf = report.wolves[0]
    assert wolf.rate > report.reference_limit
    assert wolf.threshold > 0.75
    assert wolf.highest <= wolf.threshold


def test_raised_thresholds_reach_the_unit(bench: workbench.Workbench) -> None:
    """Issued with the pre-flight's wolves, the entry carries its own threshold."""
    bench.issue("D-1", **{"R-00003": 0.91})
    from appliance.deployment import files as deployment

    site = Site(bench.unit, bench.root / "list.watchlist", bench.root / "none", bench.root / "state")
    content = deployment.open_list(site.watchlist, bench.folder, bench.models, bench.now)
    row = [e.reference_identifier for e in content.manifest.entries].index("R-00003")
    assert content.threshold(row) == 0.91
    assert content.threshold(row + 1) == 0.75


def test_false_alerts_are_projected_from_the_calibration(bench: workbench.Workbench) -> None:
    """Requirement 11: FPIR of this size and threshold, times footfall."""
    from appliance.recognition import calibration

    report = look(bench)
    rate = calibration.load(bench.packs.embedder).fpir_at(COUNT, 0.75)
    assert report.projection == "calibration"
    assert report.projected_fpir == rate
    assert report.projected_alerts == pytest.approx(rate * 20_000)


@pytest.mark.parametrize("footfall", ["-5", "0"])
def test_a_footfall_below_one_is_refused(footfall: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["preflight", str(tmp_path), "--footfall", footfall])
    assert result.exit_code == 2
    assert "--footfall" in result.output


def test_without_calibration_a_small_cohort_is_not_believed(bench: workbench.Workbench) -> None:
    """No false positive among 200 strangers proves no more than about 1 in 67."""
    (bench.packs.embedder.folder / "calibration.json").unlink()
    report = look(bench, workbench.vectors(200, seed=8))
    assert report.projection == "cohort"
    assert report.cohort_fpir == 0
    assert report.projected_fpir == pytest.approx(1 - 0.05 ** (1 / 200), rel=1e-6)
    assert any("the cohort alone speaks" in w for w in report.warnings)


def test_without_cohort_it_says_that_wolves_cannot_be_found(bench: workbench.Workbench) -> None:
    assert look(bench).warnings == ("no cohort was given: wolves cannot be found",)


def test_ages_categories_and_minors_are_counted(bench: workbench.Workbench) -> None:
    put(bench, 60, workbench.vectors(1, seed=60)[0], image_date="2001-01-01", category="missing-at-risk", under_18=True)
    report = look(bench)
    assert report.image_years["over 10"] == 1
    assert report.categories == {"wanted-on-warrant": COUNT, "missing-at-risk": 1}
    assert report.minors == 1


def test_the_page_names_nobody_and_shows_markup_as_text(bench: workbench.Workbench) -> None:
    put(bench, 40, near(workbench.vectors(COUNT)[0], 0.9), name="Hildegard Example")
    report = look(bench).model_copy(update={"warnings": ("<script>",)})
    page = preflight_report.page(report)
    assert "R-00040" in page
    assert "Hildegard" not in page
    assert "<script>" not in page


def test_the_signed_report_round_trips(bench: workbench.Workbench) -> None:
    report = look(bench, workbench.vectors(300, seed=2))
    blob = envelope.sign(report, records.KIND, bench.base.keys.signer)
    assert envelope.read(blob, records.KIND, Preflight, bench.folder.roster.authority_keys()) == report


def test_a_cohort_of_other_length_or_no_numbers_is_refused(bench: workbench.Workbench, tmp_path: Path) -> None:
    packs = bench.packs.detector, bench.packs.embedder
    np.save(tmp_path / "short.npy", workbench.vectors(5, length=32))
    with pytest.raises(EnrolmentError, match="32 numbers, the pack makes 64"):
        cohort.load(bench.base, tmp_path / "short.npy", *packs)
    (tmp_path / "junk.npy").write_bytes(b"junk")
    with pytest.raises(EnrolmentError, match="not a NumPy array"):
        cohort.load(bench.base, tmp_path / "junk.npy", *packs)
    np.save(tmp_path / "good.npy", workbench.vectors(5))
    assert cohort.load(bench.base, tmp_path / "good.npy", *packs).about.size == 5
