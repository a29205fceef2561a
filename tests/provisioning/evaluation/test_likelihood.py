"""Log-likelihood ratios: costs of worked cases, PAV against scipy, a line that finds the truth it was drawn from."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression
from scipy.stats import norm

from appliance.recognition.calibration import Likelihood
from provisioning.evaluation import likelihood
from provisioning.evaluation.likelihood import Evidence
from provisioning.evaluation.verification import Verification


def evidence(mated: list[float], non_mated: list[float]) -> Evidence:
    values = np.array([*mated, *non_mated])
    own = np.array([1 / len(mated)] * len(mated) + [0.0] * len(non_mated))
    other = np.array([0.0] * len(mated) + [1 / len(non_mated)] * len(non_mated))
    return Evidence(values, own, other)


def counted(mated: np.ndarray, non_mated: np.ndarray) -> Verification:  # type: ignore[type-arg]
    result = Verification()
    result.mated.add(mated)
    result.non_mated.add(non_mated)
    return result


def test_a_ratio_of_one_for_everything_costs_one_bit() -> None:
    assert evidence([0.0, 0.0], [0.0]).cllr() == pytest.approx(1.0)


def test_cllr_of_a_worked_case() -> None:
    # LR 3 for the mated pair, 1/3 for the non-mated: each costs log2(4/3); one of each wrongly costs log2(4).
    three = float(np.log10(3))
    assert evidence([three], [-three]).cllr() == pytest.approx(np.log2(4 / 3))
    assert evidence([-three], [three]).cllr() == pytest.approx(np.log2(4))
    assert evidence([three, -three], [-three]).cllr() == pytest.approx(
        (np.log2(4 / 3) + np.log2(4)) / 4 + 0.5 * np.log2(4 / 3)
    )


def test_cross_entropy_at_even_odds_is_cllr_and_vanishes_where_the_prior_leaves_no_doubt() -> None:
    given_ = evidence([1.0, 0.4, -0.1], [-1.2, 0.2])
    assert given_.ece(0.0) == pytest.approx(given_.cllr())
    assert given_.ece(-9.0) < 1e-6
    assert evidence([0.0], [0.0]).ece(0.0) == pytest.approx(1.0)  # ignorance at even odds is one bit


def test_the_line_finds_the_ratio_of_two_normal_distributions() -> None:
    rng = np.random.default_rng(3)
    mated, non_mated = rng.normal(0.5, 0.1, 200_000), rng.normal(0.1, 0.1, 400_000)
    line = likelihood.fit(counted(mated, non_mated))
    for score in (0.1, 0.2, 0.3, 0.4, 0.5):
        truth = (norm.logpdf(score, 0.5, 0.1) - norm.logpdf(score, 0.1, 0.1)) / np.log(10)
        assert line.log_ratio(score) == pytest.approx(truth, abs=0.05)
    shown = likelihood.answers(line, counted(mated, non_mated))
    assert shown.cllr() == pytest.approx(likelihood.best(counted(mated, non_mated)).cllr(), abs=0.002)


@given(st.lists(st.floats(-0.9, 0.9), min_size=1, max_size=40), st.lists(st.floats(-0.9, 0.9), min_size=1, max_size=40))
def test_pav_is_scipys_and_no_rising_function_beats_it(mated: list[float], non_mated: list[float]) -> None:
    scores = counted(np.array(mated), np.array(non_mated))
    best = likelihood.best(scores)
    order = np.argsort(np.array([*mated, *non_mated]), kind="stable")
    bins = np.floor((np.array([*mated, *non_mated])[order].astype(np.float32) + 1) * 4096)
    _, place = np.unique(bins, return_inverse=True)
    own = np.bincount(place, np.array([1 / len(mated)] * len(mated) + [0.0] * len(non_mated))[order])
    other = np.bincount(place, np.array([0.0] * len(mated) + [1 / len(non_mated)] * len(non_mated))[order])
    share = isotonic_regression(own / (own + other), weights=own + other).x
    with np.errstate(divide="ignore"):
        cost = -0.5 * (
            sum(w * np.log2(p) for w, p in zip(own, share, strict=True) if w)
            + sum(w * np.log2(1 - p) for w, p in zip(other, share, strict=True) if w)
        )
    assert best.cllr() == pytest.approx(cost, abs=1e-9)
    for slope, offset in ((1.0, 0.0), (5.0, -1.0), (20.0, -6.0)):
        line = Likelihood(slope=slope, offset=offset, least=-99, greatest=99)
        assert likelihood.answers(line, scores).cllr() >= best.cllr() - 1e-9


def test_scores_that_separate_cost_nothing_at_best_but_a_line_claims_no_more_than_its_data_carry() -> None:
    scores = counted(np.full(300, 0.8), np.full(1000, 0.1))
    assert likelihood.best(scores).cllr() == pytest.approx(0.0, abs=1e-12)
    line = likelihood.fit(scores)
    # None of 1,000 non-mated comparisons proves 1 in 334 at 95 %: no ratio above that.
    assert line.log_ratio(1.0) == pytest.approx(np.log10(334), abs=0.01)
    assert line.log_ratio(-1.0) == pytest.approx(-np.log10(100), abs=0.01)


def test_tippett_curves_fall_from_all_to_none_and_count_misleading_evidence() -> None:
    curve = evidence([2.0, 1.0, -0.5], [-3.0, 0.5]).tippett(8)
    assert curve[0][1:] == (1.0, 1.0)
    assert all(a[1] >= b[1] and a[2] >= b[2] for a, b in pairwise(curve))
    at_zero = min(curve, key=lambda row: abs(row[0] - 0.0))
    assert at_zero[1] == pytest.approx(2 / 3)
    assert at_zero[2] == pytest.approx(1 / 2)


def test_no_identity_is_both_fitted_on_and_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    identities = np.repeat(np.arange(100), 4)
    centres = rng.normal(size=(100, 32))
    raw = (centres[identities] + 0.8 * rng.normal(size=(400, 32))).astype(np.float32)
    templates = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    parts = identities % likelihood.FOLDS
    seen: list[int] = []
    whole = likelihood.fit

    def watched(scores: Verification) -> Likelihood:
        seen.append(scores.mated.total)
        return whole(scores)

    monkeypatch.setattr(likelihood, "fit", watched)
    shown = likelihood.crossed(templates, identities, np.zeros(400, bool), parts)
    assert shown is not None
    assert seen == [80 * 6] * likelihood.FOLDS  # pairs of the 80 identities of the other parts
    assert (shown.mated, shown.non_mated) == (100 * 6, likelihood.FOLDS * (20 * 19 // 2) * 16)
    assert shown.best.cllr() <= shown.calibrated.cllr() < 1.0
    assert shown.calibrated.mated.sum() == pytest.approx(1.0)


def test_too_few_comparisons_give_no_ratio() -> None:
    assert (
        likelihood.crossed(np.eye(20, dtype=np.float32), np.arange(20), np.zeros(20, bool), np.arange(20) % 5) is None
    )
