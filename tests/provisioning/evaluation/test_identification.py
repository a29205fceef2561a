"""Open-set identification: rates over all lists of a size, against lists that were really drawn and enumerated."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.recognition.embed import unit
from appliance.records import Floats
from provisioning.evaluation import identification
from provisioning.evaluation.identification import Numbers, Trials


def population(identities: int, stills: int, noise: float, seed: int = 1) -> tuple[Floats, Numbers]:
    """Templates scattered around a direction for each identity: (n, 64) and the identity of each row."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.normal(size=(identities, 64)).astype(np.float32))
    owners = np.repeat(np.arange(identities), stills)
    return unit(centres[owners] + noise * rng.normal(size=(len(owners), 64)).astype(np.float32)), owners


def searched(identities: int = 9, seed: int = 1) -> tuple[Trials, Floats, Numbers, Floats, Numbers]:
    templates, owners = population(identities, 3, 0.12, seed)
    first = np.arange(0, len(owners), 3)
    probes = np.setdiff1d(np.arange(len(owners)), first)
    result = identification.search(templates[probes], owners[probes], templates[first], owners[first])
    return result, templates[probes], owners[probes], templates[first], owners[first]


@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize("threshold", [-0.1, 0.1, 0.25])
def test_the_rate_is_the_mean_over_every_list_of_that_size(size: int, threshold: float) -> None:
    trials, probes, owners, references, of = searched()
    outcomes: list[bool] = []
    for probe, owner in zip(probes, owners, strict=True):
        others = np.nonzero(of != owner)[0]
        scores = references[others] @ probe
        outcomes += [bool(max(scores[list(c)]) >= threshold) for c in itertools.combinations(range(len(others)), size)]
    assert trials.fpir(threshold, size).value == pytest.approx(np.mean(outcomes), abs=1e-9)


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("size", [2, 5, 8])
def test_the_own_reference_must_also_be_among_the_best(size: int, rank: int) -> None:
    trials, probes, owners, references, of = searched(seed=3)
    outcomes: list[bool] = []
    for probe, owner in zip(probes, owners, strict=True):
        others, own = np.nonzero(of != owner)[0], float((references[of == owner] @ probe)[0])
        scores = references[others] @ probe
        for chosen in itertools.combinations(range(len(others)), size - 1):
            outcomes.append(own >= 0.2 and int(np.count_nonzero(scores[list(chosen)] > own)) < rank)
    assert trials.tpir(0.2, size, rank).value == pytest.approx(np.mean(outcomes), abs=1e-9)


@settings(deadline=None, max_examples=30)
@given(fpir=st.floats(0.001, 0.5), size=st.sampled_from([50, 100, 199]))
def test_the_threshold_keeps_the_rate_and_no_lower_one_does(fpir: float, size: int) -> None:
    trials = TWO_HUNDRED
    threshold, extrapolated = trials.threshold(size, fpir)
    assert trials.fpir(threshold, size).value <= fpir + 1e-9
    if not extrapolated:
        assert trials.fpir(float(np.nextafter(np.float32(threshold), np.float32(-2))), size).value > fpir - 1e-9


@settings(deadline=None, max_examples=30)
@given(thresholds=st.tuples(st.floats(-1, 1), st.floats(-1, 1)), size=st.integers(1, 199))
def test_rates_fall_as_the_threshold_rises_and_rise_with_the_list(thresholds: tuple[float, float], size: int) -> None:
    low, high = sorted(thresholds)
    trials = TWO_HUNDRED
    assert trials.fpir(high, size).value <= trials.fpir(low, size).value + 1e-12
    assert trials.tpir(high, size).value <= trials.tpir(low, size).value + 1e-12
    assert trials.fpir(low, size).value <= trials.fpir(low, 199).value + 1e-12


def test_extrapolated_thresholds_of_normal_scores_are_too_high_rather_than_too_low() -> None:
    rng = np.random.default_rng(7)
    templates = unit(rng.normal(size=(5000, 32)).astype(np.float32))
    references, numbers = templates[4500:], np.arange(4500, 5000)
    every = identification.search(templates[:4500], np.arange(4500), references, numbers, keep=50)
    rates = []
    for part in np.array_split(np.arange(4500), 30):
        threshold, extrapolated = identification.search(templates[part], part, references, numbers, 50).threshold(
            500, 0.004
        )
        assert extrapolated
        rates.append(every.fpir(threshold, 500).value)
    assert np.median(rates) <= 0.004


def test_a_rate_without_events_still_has_an_upper_limit() -> None:
    share = TWO_HUNDRED.fpir(0.999, 100)
    assert share.value == 0
    assert 0 < share.high < 0.05


def test_a_probe_without_a_face_is_a_miss() -> None:
    templates, owners = population(20, 2, 0.05)
    probes = templates[1::2].copy()
    probes[:5] = 0
    trials = identification.search(probes, owners[1::2], templates[::2], owners[::2])
    assert trials.tpir(0.3, 10).value == pytest.approx(0.75)


def test_a_list_longer_than_the_pool_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be drawn"):
        TWO_HUNDRED.fpir(0.3, 1000)


def test_the_best_reference_is_that_of_one_great_product() -> None:
    rng = np.random.default_rng(2)
    probes = unit(rng.normal(size=(777, 32)).astype(np.float32))
    references = unit(rng.normal(size=(5000, 32)).astype(np.float32))
    scores, rows = identification.best(probes, references)
    full = probes @ references.T
    assert np.array_equal(rows, full.argmax(axis=1))
    assert scores == pytest.approx(full.max(axis=1), abs=1e-6)


def test_the_det_curve_falls_in_one_as_it_rises_in_the_other() -> None:
    curve = TWO_HUNDRED.det(100)
    assert len(curve) > 20
    assert all(a[0] >= b[0] and a[1] <= b[1] and a[2] >= b[2] - 1e-12 for a, b in itertools.pairwise(curve))


TWO_HUNDRED = searched(200)[0]
