"""Intervals and tests of shares, against scipy and worked textbook cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from provisioning.evaluation import intervals

COUNTS = st.integers(1, 100_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(COUNTS)
def test_clopper_pearson_is_scipys_exact_interval(counts: tuple[int, int]) -> None:
    share = intervals.clopper_pearson(*counts)
    wanted = stats.binomtest(*counts).proportion_ci(0.95, method="exact")
    assert (share.low, share.high) == pytest.approx((wanted.low, wanted.high), abs=1e-9)


@given(COUNTS)
def test_wilson_is_scipys_score_interval(counts: tuple[int, int]) -> None:
    share = intervals.wilson(*counts)
    wanted = stats.binomtest(*counts).proportion_ci(0.95, method="wilson")
    assert (share.low, share.high) == pytest.approx((wanted.low, wanted.high), abs=1e-9)


@given(COUNTS)
def test_every_interval_holds_its_own_estimate(counts: tuple[int, int]) -> None:
    for share in (intervals.clopper_pearson(*counts), intervals.wilson(*counts)):
        assert 0 <= share.low <= share.value <= share.high <= 1


def test_the_8_of_42_of_the_independent_review_is_19_percent_between_9_and_34() -> None:
    share = intervals.clopper_pearson(8, 42)
    assert share.value == pytest.approx(0.1905, abs=1e-4)
    assert (share.low, share.high) == pytest.approx((0.0860, 0.3412), abs=1e-4)


def test_no_false_alert_in_18000_passes_proves_1_in_6000() -> None:
    assert intervals.rule_of_three(18_000) == pytest.approx(1 / 6000, rel=0.002)
    assert "1 in 6,009" in intervals.in_words(18_000)


@given(st.integers(1, 10**9))
def test_the_rule_of_three_is_one_sided_clopper_pearson_and_at_most_three_over_n(trials: int) -> None:
    upper = intervals.rule_of_three(trials)
    assert upper == pytest.approx(float(stats.beta.ppf(0.95, 1, trials)), rel=1e-6)
    assert upper <= 3 / trials


def test_holm_on_the_textbook_case() -> None:
    # Four hypotheses at 0.01, 0.04, 0.03, 0.005: times 3, 1, 2, 4 in order of size, never falling.
    assert intervals.holm(np.array([0.01, 0.04, 0.03, 0.005])).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_is_between_no_correction_and_bonferronis(values: list[float]) -> None:
    given_, corrected = np.array(values), intervals.holm(np.array(values))
    assert np.all(corrected >= given_ - 1e-15)
    assert np.all(corrected <= np.minimum(given_ * len(values), 1.0) + 1e-12)


def test_fisher_on_the_lady_tasting_tea() -> None:
    # Eight cups, four of each kind, all four found: 1 in 70 one-sided, 2 in 70 two-sided.
    assert intervals.differ((4, 0), (4, 4)) == pytest.approx(2 / 70)


def test_a_ratio_of_rates_on_the_physicians_aspirin_trial() -> None:
    # 189 of 11,034 on placebo and 104 of 11,037 on aspirin had an infarction: 1.82, from 1.43 to 2.31 (Agresti).
    low, high = intervals.ratio(intervals.wilson(189, 11034), intervals.wilson(104, 11037))
    assert (low, high) == pytest.approx((1.43, 2.31), abs=0.005)


def test_one_trial_for_each_identity_is_plain_wilson() -> None:
    values = np.array([1.0] * 30 + [0.0] * 70)
    share = intervals.clustered(values, np.arange(100))
    plain = intervals.wilson(30, 100)
    assert (share.low, share.high) == pytest.approx((plain.low, plain.high), abs=0.001)


def test_stills_that_always_agree_count_as_one_each_identity() -> None:
    values = np.repeat([1.0] * 30 + [0.0] * 70, 10)
    share = intervals.clustered(values, np.repeat(np.arange(100), 10))
    assert share.trials == pytest.approx(100, rel=0.02)
    assert share.value == pytest.approx(0.3)


def test_clustered_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(5)
    owners = np.repeat(np.arange(80), rng.integers(1, 12, 80))
    covered = 0
    for _ in range(400):
        chances = rng.beta(8, 2, 80)
        values = (rng.random(len(owners)) < chances[owners]).astype(float)
        share = intervals.clustered(values, owners)
        covered += share.low <= 0.8 <= share.high
    assert covered / 400 > 0.90


def test_where_every_trial_succeeds_identities_count_not_stills() -> None:
    share = intervals.clustered(np.ones(500), np.repeat(np.arange(50), 10))
    assert share.high == 1.0
    assert share.low == pytest.approx(intervals.wilson(50, 50).low)


@pytest.mark.parametrize("events,trials", [(1, 0), (-1, 5), (6, 5)])
def test_a_share_that_is_none_is_refused(events: int, trials: int) -> None:
    with pytest.raises(ValueError, match="no share"):
        intervals.wilson(events, trials)


def test_words_are_rounded_towards_caution() -> None:
    assert int(1 / intervals.rule_of_three(100)) == math.floor(100 / 2.9957 + 0.5)


def test_a_paired_gain_is_scipys_paired_bootstrap() -> None:
    rng = np.random.default_rng(2)
    before = rng.random(80) < 0.6
    after = before | (rng.random(80) < 0.4)
    gain, low, high = intervals.paired(before, after)
    assert gain == pytest.approx(after.mean() - before.mean())
    found = stats.bootstrap(
        (after.astype(float), before.astype(float)),
        lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis),
        paired=True,
        method="percentile",
        n_resamples=2000,
    ).confidence_interval
    assert (low, high) == pytest.approx((found.low, found.high), abs=0.02)
    assert intervals.paired(before, before) == (0.0, 0.0, 0.0)
