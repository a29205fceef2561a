"""Searching a watchlist gives what brute force gives, and a decision is made once, by agreement."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.formats.watchlist import Entry, Manifest, Watchlist
from appliance.recognition.decide import Decider, DecideRules, supported
from appliance.recognition.extract import pooled
from appliance.recognition.identify import Identifier
from appliance.records import Candidate, Floats, Image, Models, Probe, Quality, Sighting

LENGTH = 64


def unit(vectors: Floats) -> Floats:
    return cast(Floats, (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32))


def listed(templates: Floats, threshold: float = 0.5) -> Watchlist:
    entries = tuple(Entry(reference_identifier=f"REF-{i}", category="warrant") for i in range(len(templates)))
    manifest = Manifest(
        unit="van-07", deployment="D-1", version=1, created=0, not_before=0, not_after=1, length=templates.shape[1],
        models=Models(detector="d" * 64, embedder="e" * 64), threshold=threshold, entries=entries,
    )  # fmt: skip
    return Watchlist(manifest, templates, "0" * 64)


def probe(template: Floats, agreeing: Floats | None = None, track: int = 1) -> Probe:
    blank = cast(Image, np.zeros((8, 8, 3), np.uint8))
    sighting = Sighting(track, 0, 0.0, 0.0, blank, blank, Quality(40, 1, 0, 1, 1))
    singles = np.stack([template] * 3) if agreeing is None else agreeing
    return Probe("gate", track, template, singles, sighting, 0.0, 0, 5, 1.0)


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 400), seed=st.integers(0, 1000))
def test_the_best_candidate_is_the_one_brute_force_finds(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    templates = unit(rng.normal(size=(count, LENGTH)).astype(np.float32))
    searched = unit(templates[rng.integers(count)] + rng.normal(0, 0.1, LENGTH).astype(np.float32))
    found = Identifier(listed(templates)).identify(probe(searched))
    scores = templates @ searched
    assert found[0].reference == int(np.argmax(scores))
    assert found[0].score == pytest.approx(float(scores.max()), abs=1e-5)
    assert [c.score for c in found] == sorted((c.score for c in found), reverse=True)


def test_recall_is_measured_when_the_list_is_opened() -> None:
    templates = unit(np.random.default_rng(3).normal(size=(3000, LENGTH)).astype(np.float32))
    recall = Identifier(listed(templates)).recall
    assert recall.checked > 100
    assert recall.share >= 0.95
    assert recall.exact == (recall.share < 1.0), "a graph that misses is not used"


def test_equal_templates_do_not_count_as_misses() -> None:
    templates = unit(np.repeat(np.random.default_rng(4).normal(size=(5, LENGTH)), 20, axis=0).astype(np.float32))
    assert Identifier(listed(templates)).recall.share == 1.0


def test_one_alert_for_a_track_and_reference_however_the_score_improves() -> None:
    template = unit(np.ones(LENGTH, np.float32))
    templates, decider = template[None], Decider()
    said = [
        decider.decide(probe(template), [Candidate(0, "REF-0", "warrant", score, 0.5)], templates, now)
        for score, now in ((0.45, 0.0), (0.6, 1.0), (0.9, 2.0), (0.99, 100.0))
    ]
    assert [s is not None for s in said] == [False, True, False, False]


def test_a_broken_track_does_not_alert_twice_but_a_later_pass_does() -> None:
    template = unit(np.ones(LENGTH, np.float32))
    decider = Decider(DecideRules(repeat_seconds=30))
    candidates = [Candidate(0, "REF-0", "warrant", 0.8, 0.5)]
    first, broken, later = (
        decider.decide(probe(template, track=track), candidates, template[None], now)
        for track, now in ((1, 0.0), (2, 3.0), (3, 40.0))
    )
    assert first is not None
    assert broken is None
    assert later is not None


def test_faces_that_do_not_agree_make_no_alert() -> None:
    rng = np.random.default_rng(5)
    reference = unit(rng.normal(size=LENGTH).astype(np.float32))
    stranger = unit(rng.normal(size=LENGTH).astype(np.float32))
    singles = np.stack([reference, stranger, stranger])
    candidates = [Candidate(0, "REF-0", "warrant", 0.7, 0.5)]
    assert Decider().decide(probe(reference, singles), candidates, reference[None], 0.0) is None
    assert Decider().decide(probe(reference, singles[:1]), candidates, reference[None], 0.0) is None, "one face alone"


@given(
    scores=st.lists(st.floats(-1, 1, width=16), min_size=1, max_size=9),
    agreement=st.sampled_from([0.0, 0.2, 0.5, 0.6, 1.0]),
    threshold=st.floats(-1, 1, width=16),
)
def test_the_greatest_threshold_that_faces_support_is_the_rule_at_every_threshold(
    scores: list[float], agreement: float, threshold: float
) -> None:
    rules = DecideRules(least_templates=2, agreement=agreement, support=0.5)
    share = float(np.mean(np.array(scores) >= rules.support * threshold))
    agreed = len(scores) >= 2 and share >= agreement and share > 0
    found = supported(np.array(scores, np.float32)[:, None], rules)[0]
    assert (found >= threshold) == agreed


def test_better_faces_weigh_more_in_a_tracks_template() -> None:
    first, second = np.eye(2, LENGTH, dtype=np.float32)
    template = pooled(np.stack([first, second]), np.array([3.0, 1.0], np.float32))
    assert template @ first == pytest.approx(3 / np.sqrt(10), abs=1e-5)
    assert np.linalg.norm(template) == pytest.approx(1.0, abs=1e-5)
