"""Histograms, verification in blocks and fitted tails, against the plain way of computing them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import ConfigError
from appliance.recognition.embed import unit
from provisioning.evaluation import statistics, verification
from provisioning.evaluation.statistics import Histogram


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=200), st.floats(-1, 1))
def test_a_streamed_rate_is_the_plain_one_to_the_width_of_a_bin(scores: list[float], threshold: float) -> None:
    histogram, array = Histogram(), np.array(scores, np.float32)
    for part in np.array_split(array, 3):
        histogram.add(part)
    step = 2 / statistics.BINS
    assert histogram.total == len(scores)
    assert np.mean(array >= threshold + 2 * step) <= histogram.share_at(threshold) <= np.mean(array >= threshold - step)


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=200), st.floats(0, 1))
def test_a_threshold_keeps_its_rate(scores: list[float], rate: float) -> None:
    histogram = Histogram()
    histogram.add(np.array(scores, np.float32))
    threshold = histogram.threshold_at(rate)
    assert histogram.share_at(threshold) <= rate or threshold == histogram.high


def test_all_pairs_in_blocks_are_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "BLOCK", 37)
    rng = np.random.default_rng(1)
    templates = unit(rng.normal(size=(150, 16)).astype(np.float32))
    owners = rng.integers(0, 40, 150)
    distractors = rng.random(150) < 0.3
    found = verification.all_pairs(templates, owners, distractors)
    left, right = np.triu_indices(150, 1)
    counted = ~(distractors[left] & distractors[right])
    scores, same = np.einsum("ij,ij->i", templates[left], templates[right]), owners[left] == owners[right]
    for histogram, wanted in ((found.mated, same & counted), (found.non_mated, ~same & counted)):
        plain = Histogram()
        plain.add(scores[wanted])
        assert histogram.total == np.count_nonzero(wanted)
        assert abs(histogram.share_at(0.1) - np.mean(scores[wanted] >= 0.1)) < 0.005


def test_rates_come_with_exact_intervals() -> None:
    result = verification.Verification()
    result.mated.add(np.array([0.9] * 90 + [0.1] * 10, np.float32))
    result.non_mated.add(np.full(1000, -0.5, np.float32))
    assert result.fnmr(0.5).value == pytest.approx(0.1)
    assert (result.fnmr(0.5).low, result.fnmr(0.5).high) == pytest.approx((0.0490, 0.1762), abs=1e-4)
    assert result.fmr(0.5).value == 0
    assert result.fmr(0.5).high == pytest.approx(0.00368, abs=1e-5)


def test_a_pairs_file_is_read_and_a_bad_line_named(tmp_path: Path) -> None:
    images = [Path(f"{name}.jpg") for name in "abc"]
    file = tmp_path / "pairs.csv"
    file.write_text("left,right,mated\na.jpg,b.jpg,1\nb.jpg, c.jpg,0\n")
    left, right, mated = verification.read_pairs(file, images)
    assert (left.tolist(), right.tolist(), mated.tolist()) == ([0, 1], [1, 2], [True, False])
    templates = unit(np.array([[1, 0.1], [1, 0], [0, 1]], np.float32))
    found = verification.pairs(templates, left, right, mated)
    assert (found.mated.total, found.non_mated.total) == (1, 1)
    file.write_text("a.jpg,b.jpg,1\na.jpg,z.jpg,0\n")
    with pytest.raises(ConfigError, match="line 2"):
        verification.read_pairs(file, images)


def test_a_tail_fitted_to_exponential_scores_is_that_exponential() -> None:
    rng = np.random.default_rng(3)
    scores = np.sort(rng.exponential(0.05, 100_000))[::-1]
    tail = statistics.fit_tail(scores, np.full(len(scores), 1e-5), events=2000)
    assert tail.scale == pytest.approx(0.05, rel=0.07)
    assert tail.threshold_at(1e-6) == pytest.approx(0.05 * np.log(1e6), rel=0.07)
    assert tail.rate_at(tail.threshold_at(1e-7)) == pytest.approx(1e-7)


def test_a_det_curve_trades_one_error_for_the_other() -> None:
    rng = np.random.default_rng(4)
    mated, non_mated = Histogram(), Histogram()
    mated.add(rng.normal(0.6, 0.1, 5000))
    non_mated.add(rng.normal(0.0, 0.1, 50_000))
    curve = statistics.det(mated, non_mated)
    fmr, fnmr = np.array([c[1] for c in curve]), np.array([c[2] for c in curve])
    assert np.all(np.diff(fmr) <= 0)
    assert np.all(np.diff(fnmr) >= 0)
    # Two normal distributions six deviations apart err equally at three: 0.00135.
    equal = np.argmin(np.abs(fmr - fnmr))
    assert fmr[equal] == pytest.approx(0.00135, abs=0.001)
