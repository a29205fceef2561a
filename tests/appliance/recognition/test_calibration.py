"""The calibration record: thresholds by list size, read back, interpolated, and refused when not this pack's."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from appliance.errors import PackError
from appliance.limits import LIMITS
from appliance.recognition import calibration, packs
from appliance.recognition.calibration import Calibration, FalseMatch, Normalisation, Operating
from appliance.recognition.packs import Manifest, Pack

EMBEDDER, DETECTOR, DATA = "a" * 64, "b" * 64, "c" * 64
RATES = (0.1, 1e-2, 1e-3, 1e-4)
SIZES = (100, 1000, 10_000)


def threshold(size: int, fpir: float) -> float:
    """A population in which each decade, of size or of rate, costs 0.05 of score."""
    return 0.3 + 0.05 * (math.log10(size) - math.log10(fpir))


def record(**changes: Any) -> Calibration:
    rows = [
        Operating(
            size=size,
            fpir=fpir,
            threshold=threshold(size, fpir),
            tpir=0.9,
            low=0.85,
            high=0.95,
            extrapolated=fpir < 1e-3,
        )
        for size in SIZES
        for fpir in RATES
    ]
    fields: dict[str, Any] = {
        "format": 1,
        "embedder": EMBEDDER,
        "detector": DETECTOR,
        "made": 0.0,
        "data": "made up",
        "data_sha256": DATA,
        "floor": 0.35,
        "false_matches": (
            FalseMatch(score=0.3, fmr=1e-2, upper=2e-2, extrapolated=False),
            FalseMatch(score=0.5, fmr=1e-6, upper=2e-6, extrapolated=True),
        ),
        "thresholds": tuple(rows),
    }
    return Calibration(**(fields | changes))


def pack(folder: Path, name: str | None = "calibration.json") -> Pack:
    manifest = Manifest.model_validate(
        {
            "format": 1,
            "name": "made-up",
            "role": "embedder",
            "version": "1",
            "runtime": "litert",
            "licence": "none",
            "origin": "a test",
            "terms": "none",
            "calibration": name,
            "input": {"layout": "nhwc", "colour": "rgb", "mean": (0, 0, 0), "scale": (1, 1, 1)},
            "embedder": {"width": 16, "height": 16, "length": 8, "landmarks": ((0, 0),) * 5},
            "files": ({"path": "x.tflite", "sha256": "d" * 64, "width": 16, "height": 16},),
            "golden": {"path": "golden.npz", "sha256": "d" * 64, "tolerance": 0.9},
        }
    )
    return Pack(folder, manifest, EMBEDDER)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fpir", RATES)
def test_a_measured_point_is_given_back_as_it_was_measured(size: int, fpir: float) -> None:
    assert record().threshold_for(size, fpir) == pytest.approx(threshold(size, fpir))
    assert record().fpir_at(size, threshold(size, fpir)) == pytest.approx(fpir)


@given(size=st.integers(1, 10_000_000), fpir=st.floats(1e-3, 0.1))
def test_rate_and_threshold_are_each_others_inverse_wherever_both_are_known(size: int, fpir: float) -> None:
    made = record(floor=0.0)
    if size > 10_000 and fpir * 10_000 / size < RATES[-1]:
        with pytest.raises(PackError, match="knows no rate below"):
            made.threshold_for(size, fpir)
        return
    assert made.fpir_at(size, made.threshold_for(size, fpir)) == pytest.approx(fpir, rel=1e-6)


@given(sizes=st.tuples(st.integers(1, 100_000), st.integers(1, 100_000)), fpir=st.floats(2e-3, 0.1))
def test_a_longer_list_never_gets_a_lower_threshold(sizes: tuple[int, int], fpir: float) -> None:
    small, large = sorted(sizes)
    assert record().threshold_for(small, fpir) <= record().threshold_for(large, fpir) + 1e-12


@given(thresholds=st.tuples(st.floats(-1, 1), st.floats(-1, 1)), size=st.integers(1, 1_000_000))
def test_a_higher_threshold_never_lets_more_through(thresholds: tuple[float, float], size: int) -> None:
    low, high = sorted(thresholds)
    assert record().fpir_at(size, high) <= record().fpir_at(size, low) + 1e-12


def test_between_two_sizes_the_threshold_lies_between_theirs_on_a_logarithmic_axis() -> None:
    assert record().threshold_for(316, 1e-2) == pytest.approx(threshold(316, 1e-2), abs=1e-9)
    assert record().fpir_at(316, threshold(316, 1e-2)) == pytest.approx(1e-2, rel=1e-6)


def test_beyond_the_longest_list_the_union_bound_is_taken_and_marked() -> None:
    point = record().operating(20_000, 2e-3)
    assert point.threshold == pytest.approx(threshold(10_000, 1e-3))
    assert point.extrapolated
    assert record().fpir_at(20_000, threshold(10_000, 1e-3)) == pytest.approx(2e-3)


def test_the_threshold_is_never_below_the_floor() -> None:
    assert record(floor=0.9).threshold_for(100, 0.1) == 0.9


def test_a_threshold_above_all_that_was_measured_gives_the_least_rate_known_and_no_less() -> None:
    assert record().fpir_at(1000, 0.999) == pytest.approx(1e-4)


def test_a_threshold_below_all_that_was_measured_lets_everything_through() -> None:
    assert record().fpir_at(1000, -1.0) == 1.0


def test_the_false_match_rate_is_read_on_a_logarithmic_axis() -> None:
    assert record().fmr_at(0.4) == pytest.approx(1e-4)
    assert record().fmr_at(0.0) == 1e-2
    assert record().fmr_at(0.9) == 1e-6


@pytest.mark.parametrize("size,fpir", [(0, 0.1), (10, 0.0), (10, 1.5), (10, 1e-9)])
def test_an_impossible_wish_is_refused_in_words(size: int, fpir: float) -> None:
    with pytest.raises(PackError):
        record().threshold_for(size, fpir)


def test_a_record_whose_rates_do_not_fall_with_the_score_is_refused() -> None:
    rising = (
        FalseMatch(score=0.3, fmr=1e-6, upper=1e-5, extrapolated=False),
        FalseMatch(score=0.5, fmr=1e-2, upper=1e-1, extrapolated=False),
    )
    with pytest.raises(ValueError, match="never rise"):
        record(false_matches=rising)


def test_a_record_survives_being_written_and_read(tmp_path: Path) -> None:
    (tmp_path / "calibration.json").write_text(record().model_dump_json())
    assert calibration.load(pack(tmp_path)) == record()


def test_a_record_of_another_pack_is_refused(tmp_path: Path) -> None:
    (tmp_path / "calibration.json").write_text(record(embedder="e" * 64).model_dump_json())
    with pytest.raises(PackError, match="another pack"):
        calibration.load(pack(tmp_path))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        json.dumps({"format": 1}),
        record().model_dump_json().replace('"format":1', '"format":2'),
        record().model_dump_json().replace('"floor":0.35', '"floor":NaN'),
        record().model_dump_json().replace('"floor"', '"flour"'),
    ],
)
def test_a_malformed_record_says_in_one_line_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / "calibration.json").write_text(text)
    with pytest.raises(PackError, match="bluelamp-provision evaluate calibrate") as caught:
        calibration.load(pack(tmp_path))
    assert "\n" not in str(caught.value)


def test_an_oversized_record_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    (tmp_path / "calibration.json").write_bytes(b" " * (LIMITS.calibration_bytes + 1))
    with pytest.raises(PackError, match="larger than"):
        calibration.load(pack(tmp_path))


def test_a_pack_without_a_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="names no calibration"):
        calibration.load(pack(tmp_path, None))
    with pytest.raises(PackError, match="no calibration for this pack"):
        calibration.load(pack(tmp_path))


def test_a_cohort_is_the_one_that_the_record_was_measured_with_or_refused(tmp_path: Path) -> None:
    """Its rows come back at unit length; another file, another length, or none is refused."""
    pack = packs.load("open-embedder")
    pack = Pack(tmp_path, pack.manifest, pack.digest)
    rows = np.random.default_rng(1).normal(size=(20, 128)).astype(np.float16)
    np.save(tmp_path / "cohort.npy", rows)
    sha256 = hashlib.sha256((tmp_path / "cohort.npy").read_bytes()).hexdigest()
    rule = Normalisation(
        kind="cohort", reference_weight=1, nearest=1, usual=0.2, cohort="cohort.npy", cohort_sha256=sha256
    )
    found = calibration.load_cohort(pack, record(normalisation=rule))
    assert found is not None
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(20), abs=1e-5)
    assert calibration.load_cohort(pack, record()) is None
    np.save(tmp_path / "cohort.npy", rows[:10])
    with pytest.raises(PackError, match="not the cohort"):
        calibration.load_cohort(pack, record(normalisation=rule))
    with pytest.raises(PackError, match="not templates of 128"):
        calibration.cohort_templates(_saved(tmp_path, rows[:, :64]), pack, "cohort.npy")
    (tmp_path / "cohort.npy").unlink()
    with pytest.raises(PackError, match="cohort is missing"):
        calibration.load_cohort(pack, record(normalisation=rule))


def _saved(folder: Path, rows: np.ndarray) -> bytes:
    np.save(folder / "other.npy", rows)
    return (folder / "other.npy").read_bytes()


def test_cohort_normalisation_without_its_cohort_is_no_rule() -> None:
    with pytest.raises(ValidationError, match="names its cohort"):
        Normalisation(kind="cohort", reference_weight=1.0, nearest=1)
