"""Rates by group, calibration and passes: against counting by hand, and against what the unit reads back."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from appliance.errors import ConfigError
from appliance.formats import performance, published
from appliance.recognition import normalise
from appliance.recognition.calibration import Calibration
from appliance.recognition.embed import unit
from appliance.records import Floats, Models
from provisioning.evaluation import (
    calibrate,
    figures,
    gains,
    groups,
    identification,
    intervals,
    page,
    plots,
    sections,
    table,
)
from provisioning.evaluation.dataset import Dataset, Still
from provisioning.evaluation.embeddings import Templates
from provisioning.evaluation.groups import Labelled
from provisioning.evaluation.identification import Numbers, Trials
from provisioning.evaluation.passes import Passes, References, Seen, _box_at, lists
from provisioning.evaluation.statistics import Histogram
from provisioning.evaluation.verification import Verification, all_pairs
from provisioning.truth import Box, Pass, Truth


def scattered(identities: int, stills: int, noise: float, seed: int) -> tuple[Floats, Numbers]:
    rng = np.random.default_rng(seed)
    centres = unit(rng.normal(size=(identities, 48)).astype(np.float32))
    owners = np.repeat(np.arange(identities), stills)
    return unit(centres[owners] + noise * rng.normal(size=(len(owners), 48)).astype(np.float32)), owners


def labelled(crowding: float = 0.0) -> tuple[Labelled, np.ndarray[tuple[int, ...], np.dtype[np.str_]]]:
    """Two groups of 400; templates of the second are pulled together by `crowding`, so they match more often."""
    rng = np.random.default_rng(3)
    raw = rng.normal(size=(800, 32)).astype(np.float32)
    raw[400:] += crowding * np.ones(32, np.float32)
    templates = unit(raw)
    labels = np.array(["first"] * 400 + ["second"] * 400, np.str_)
    mated = np.full(800, 0.8, np.float32)
    mated[400:440] = 0.1
    return Labelled(templates, templates, np.arange(800), mated, np.full(800, 0.3, np.float32)), labels


def test_false_matches_are_counted_within_the_group_pair_by_pair() -> None:
    templates, owners = scattered(60, 3, 0.3, 1)
    share = groups.within(templates, templates, owners, 0.2)
    left, right = np.triu_indices(len(templates), 1)
    other = owners[left] != owners[right]
    scores = np.einsum("ij,ij->i", templates[left], templates[right])[other]
    assert share.trials == len(scores)
    assert abs(share.events - np.count_nonzero(scores >= 0.2)) <= 1


def test_the_rate_over_all_groups_is_that_of_every_pair_counted_once() -> None:
    stills, _ = labelled(0.3)
    scores = (stills.templates @ stills.references.T)[np.triu_indices(800, 1)]
    found = groups.comparisons(stills)
    assert found.total == 800 * 799 // 2
    assert found.share_at(0.25) == pytest.approx(float(np.mean(scores >= 0.25)), abs=1e-3)


def test_a_group_that_resembles_itself_shows_as_a_ratio_that_is_significant() -> None:
    stills, labels = labelled(crowding=0.8)
    first, second = groups.by_attribute(stills, "made up", labels, 0.5)
    assert first.fmr_ratio[0] == pytest.approx(1.0)
    assert first.fmr_p == 1.0
    assert second.fmr_ratio[1] > 3
    assert second.fmr_p < 1e-6
    assert groups.greatest_ratio([first, second]) is second
    assert second.tpir is not None
    assert second.tpir.value == pytest.approx(0.9)
    assert second.tpir_p is not None
    assert second.tpir_p < 1e-6


def test_cohort_normalisation_evens_out_a_group_that_resembles_itself() -> None:
    stills, labels = labelled(crowding=0.8)
    plain = groups.greatest_ratio(groups.by_attribute(stills, "made up", labels, 0.5))
    cohort = labelled(crowding=0.8)[0].templates[::2]
    shift = -normalise.level(stills.templates[1::2], cohort, 20)
    probes, references = groups.moved(stills.templates[1::2], stills.templates[1::2], shift)
    outcome = stills.mated[1::2] - 0.4
    moved = Labelled(probes, references, stills.identities[1::2], outcome, stills.alone[1::2] - 0.4)
    evened = groups.greatest_ratio(groups.by_attribute(moved, "made up", labels[1::2], 0.02))
    assert plain is not None and evened is not None
    assert evened.fmr.events > 20
    assert evened.fmr_ratio[0] < plain.fmr_ratio[0] / 3


def test_the_gain_of_evening_out_is_measured_at_the_same_rate_on_the_same_stills() -> None:
    rng = np.random.default_rng(2)
    stills = labelled()[0]
    mated = rng.normal(0.6, 0.1, 800).astype(np.float32)
    before = replace(stills, mated=mated, alone=rng.normal(0.45, 0.1, 800).astype(np.float32))
    after = replace(stills, mated=mated, alone=rng.normal(0.2, 0.1, 800).astype(np.float32))
    gain = gains.evened(before, after, 100, 0.01)
    threshold = np.quantile(before.alone, 0.99)
    assert gain.plain == pytest.approx(np.mean((mated >= threshold) & (mated > before.alone)), abs=0.02)
    assert gain.low > 0.3
    same = gains.evened(before, before, 100, 0.01)
    assert (same.gain, same.low, same.high) == (0, 0, 0)


def test_groups_alike_show_no_difference() -> None:
    first, second = groups.by_attribute(*labelled()[:1], "made up", labelled()[1], 0.3)
    assert max(first.fmr_p, second.fmr_p) == 1.0
    assert min(first.fmr_p, second.fmr_p) > 0.01


def test_groups_too_small_to_say_anything_and_unlabelled_stills_are_left_out() -> None:
    stills, labels = labelled()
    labels[:350] = ""
    assert [g.label for g in groups.by_attribute(stills, "made up", labels, 0.3)] == ["second"]


def test_image_conditions_are_quarters_that_hold_every_mated_probe() -> None:
    rng = np.random.default_rng(1)
    values, owners = rng.random(400).astype(np.float32), np.arange(400)
    scores = np.where(values > 0.5, 0.9, 0.1).astype(np.float32)
    scores[:40] = np.nan
    rows = groups.by_condition(values, scores, owners, 0.5)
    assert sum(share.trials for *_, share in rows) == pytest.approx(360, abs=3)
    assert [share.value for *_, share in rows] == pytest.approx([0, 0, 1, 1], abs=0.2)


def trials() -> tuple[Trials, Verification]:
    templates, owners = scattered(1500, 2, 0.11, 2)
    found = identification.search(templates[1::2], owners[1::2], templates[::2], owners[::2])
    return found, all_pairs(templates, owners)


@pytest.fixture(scope="module")
def measured() -> Calibration:
    found, pairs = trials()
    return calibrate.record(
        found, pairs, embedder="a" * 64, detector="b" * 64, made=1.0, data="made up", data_sha256="c" * 64
    )


def test_a_calibration_is_one_the_unit_accepts_and_its_thresholds_keep_their_rates(measured: Calibration) -> None:
    assert Calibration.model_validate_json(measured.model_dump_json()) == measured
    found, _ = trials()
    for row in measured.thresholds:
        if not row.extrapolated:
            assert found.fpir(row.threshold, row.size).value <= row.fpir * (1 + 1e-6)
    assert measured.threshold_for(1000, 1e-2) > measured.threshold_for(100, 1e-2)


def test_what_few_events_support_and_lists_longer_than_the_pool_are_marked(measured: Calibration) -> None:
    marks = {(r.size, r.fpir): r.extrapolated for r in measured.thresholds}
    assert not marks[100, 0.01]
    assert marks[1000, 1e-5]
    assert all(mark for (size, _), mark in marks.items() if size == 10_000)
    assert measured.false_matches[-1].extrapolated
    assert all(row.upper >= row.fmr for row in measured.false_matches)


def test_the_floor_is_where_the_shortest_list_would_alert_for_one_in_a_thousand(measured: Calibration) -> None:
    assert measured.fpir_at(100, measured.floor) == pytest.approx(1e-3, rel=0.01)


def test_a_calibration_says_what_a_score_is_worth_as_evidence_and_old_ones_that_do_not_still_load(
    measured: Calibration,
) -> None:
    assert measured.likelihood is not None
    ratios = [measured.likelihood.log_ratio(score) for score in (-0.5, 0.0, 0.3, 0.6, 1.0)]
    assert ratios == sorted(ratios)
    assert ratios[0] == measured.likelihood.least < 0 < measured.likelihood.greatest == ratios[-1]
    old = json.loads(measured.model_dump_json())
    del old["likelihood"]
    assert Calibration.model_validate(old).likelihood is None


def test_too_few_identities_are_refused() -> None:
    with pytest.raises(ConfigError, match="too few"):
        calibrate.false_matches(Histogram())


def reached(*scores: float) -> Floats:
    return np.array(scores, np.float32)


SEEN = (
    Seen("a", "Ann", "REF-1", usable=6, reached=reached(0.7, 0.2)),
    Seen("b", "Bo", "REF-2", usable=2, reached=reached(0.1, 0.3)),
    Seen("c", "Cy", None, usable=5, reached=reached(0.55, 0.1)),
    Seen("d", "Di", None),
)


def test_passes_are_counted_once_whatever_their_frames() -> None:
    found = Passes(SEEN, strays=(reached(0.1, 0.0),), identifiers=("REF-1", "REF-2"))
    tpir, well, fpir = found.tpir(0.5), found.tpir(0.5, 5), found.fpir(0.5)
    assert tpir is not None and well is not None and fpir is not None
    assert (tpir.value, well.value, fpir.value) == pytest.approx((0.5, 1.0, 1 / 3))
    listed = References(np.eye(2, 32, dtype=np.float32), ("REF-1", "REF-2"))
    part = figures.by_pass([(listed, found)], {"given": 0.9})
    assert part["lists"][0]["rows"][0]["words"].startswith("none in 3 trials")
    assert part["lists"][0]["of_most"] is None
    assert part["mated"] == 2
    fused = References(listed.templates, listed.identifiers, 3, frozenset({"REF-1"}))
    (row,) = figures.by_pass([(listed, found), (fused, found)], {"given": 0.5})["gains"]
    assert (row["passes"], row["gain"], row["stills"]) == (1, 0.0, 3)


def test_a_pass_that_raises_an_alert_for_somebody_else_first_is_not_found() -> None:
    seen = Seen("a", "Ann", "REF-1", usable=6, reached=reached(0.7, 0.8))
    found = Passes((seen,), (), ("REF-1", "REF-2")).tpir(0.5)
    assert found is not None
    assert found.value == 0


def test_passes_are_probes_of_the_same_open_set_test_as_stills() -> None:
    found = Passes(SEEN, (), ("REF-1", "REF-2")).trials()
    assert found.pool == 1
    assert found.tail[:, 0] == pytest.approx([0.2, 0.1, 0.55, -1.0]), "without each one's own reference"
    assert found.mated[:2] == pytest.approx([0.7, 0.3])
    assert np.isnan(found.mated[2:]).all()
    assert found.above.tolist() == [0, 0, 0, 0]
    assert len(Passes(SEEN, (), ("REF-1", "REF-2")).trials(usable=5).mated) == 2


def test_a_pass_stands_between_its_known_boxes() -> None:
    entry = Pass("a", "x", None, 0, 10, (Box(0, 0, 0, 10, 20), Box(10, 100, 50, 30, 40)))
    box = _box_at(entry, 5)
    assert box is not None
    assert (box.x, box.y, box.width, box.height) == (50, 25, 20, 30)
    assert Truth("clip", 640, 480, 15.0, 11, (entry,)).passes[0].mated is False


def test_published_figures_carry_their_intervals() -> None:
    rows = published.figures()
    assert any("8 of 42" in r.note and "[9%, 34%]" in r.note for r in rows)
    assert [r.tpir for r in rows if r.references == 10_000] == [0.89]


def test_the_form_that_arming_checks_is_the_form_that_is_written() -> None:
    found = groups.by_attribute(*labelled()[:1], "made up", labelled()[1], 0.3)
    report = {"made": 100.0, "models": {"detector": "b" * 64, "embedder": "a" * 64}, "groups": figures.by_group(found)}
    models = Models(detector="b" * 64, embedder="a" * 64)
    assert performance.refusal(json.dumps(report).encode(), models, 200.0) is None


def test_plots_escape_names_and_keep_every_curve() -> None:
    drawn = plots.curves("t", "x", "y", [plots.Line("<b>", [(1e-4, 0.1), (1e-2, 0.01)]), plots.Line("2", [(0, 1)])])
    assert "&lt;b&gt;" in drawn
    assert "<b>" not in drawn
    assert drawn.count("<polyline") == 2
    assert plots.curves("t", "x", "y", []) == ""
    assert plots.bars("t", "x", [plots.Bar("a", 1e-5, 0.0, 1e-4)], log=True).startswith("<svg")


def test_a_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    found, _ = trials()
    share = figures.share(intervals.wilson(1, 10))
    report = {
        "made": 0.0,
        "models": {"detector": "b" * 64, "embedder": "a" * 64},
        "packs": {"detector": "d 1", "embedder": "<e> 1"},
        "data": {"name": "n", "note": "", "sha256": "c" * 64, "stills": 1, "identities": 1, "distractors": 0,
                 "failure_to_acquire": share},
        "verification": figures.verification(all_pairs(*scattered(100, 3, 0.1, 5))),
        "evidence": None,
        "identification": {"rows": [], "det": {}, "ranks": {}},
        "operating_point": {"size": 1000, "fpir": 1e-3, "threshold": 0.5},
        "groups": [], "greatest_fmr_ratio": None, "levelled": None, "conditions": {}, "gains": [],
        "passes": None,
        "published": [], "limits": list(figures.LIMITS),
    }  # fmt: skip
    html = page.render(report)
    assert "&lt;e&gt; 1" in html
    assert "http" not in html.replace("http-equiv", "")
    assert "<script" not in html
    assert "prefers-color-scheme:dark" in html
    assert "Photographs are not a street" in html
    assert found.pool == 1499


def test_lists_hold_each_identifier_once_with_its_first_photograph_and_with_all() -> None:
    stills = tuple(Still(Path(f"{n}.png"), name) for n, name in enumerate(("A", "A", "B", "A", "C")))
    rows = np.eye(5, dtype=np.float32)
    found = np.array([True, True, True, True, False])
    first, several = lists(Dataset("d", "", stills), Templates(rows, found, np.zeros((5, 7), np.float32)))
    assert first.identifiers == several.identifiers == ("A", "B"), "no face was found in C's photograph"
    assert first.templates == pytest.approx(rows[[0, 2]])
    assert several.templates[0] == pytest.approx((rows[0] + rows[1] + rows[3]) / np.sqrt(3))
    assert (first.stills, several.stills, several.fused) == (1, 3, frozenset({"A"}))


def test_a_gain_below_zero_is_drawn_below_zero() -> None:
    drawn = plots.bars("t", "x", [plots.Bar("worse", -4.0, -6.0, -2.0), plots.Bar("better", 3.0, 1.0, 5.0)])
    places = [float(part.split('"')[1]) for part in drawn.split(" cx=")[1:]]
    assert places[0] < places[1]
    assert ">-6<" in drawn and 'class="z"' in drawn


def test_one_figure_of_each_section_reaches_the_page() -> None:
    share = figures.share(intervals.wilson(3, 10))
    row = {"operating_point": "1 in 9", "threshold": 0.5, "tpir": share, "tpir_seen_well": share, "fpir": share,
           "words": ""}  # fmt: skip
    own = {"size": 10, "wanted_fpir": 0.1, "threshold": 0.4, "extrapolated": True, "tpir_seen_well": share}
    part = {"stills": 3, "rows": [row], "own": [own], "of_most": {"stills": 3, "rows": [row]}}
    gained = {"operating_point": "1 in 9", "stills": 3, "passes": 4, "gain": 0.25, "low": 0.0, "high": 0.5}
    counted = {"passes": 9, "mated": 3, "stray_tracks": 0, "references": 10, "note": "<b>", "lists": [part],
               "gains": [gained]}  # fmt: skip
    assert "Up to 3 photographs fused" in sections.passes(counted)
    assert "&lt;b&gt;" in sections.passes(counted)
    assert "those with 3 photographs" in table.of_passes(counted)
    assert "+25.0 points" in table.of_passes(counted)
    assert "+25.0 points" in sections.passes(counted)
    gain = gains.Gain("a <way>", 9, 3, 0.5, 0.4, 0.1, -0.1, 0.2, 1000, 1e-3)
    assert "+10.0 <small>[-10.0, +20.0]</small>" in sections.gains([asdict(gain)])
    assert "a <way> (9)" in table.of_gains([asdict(gain)])
    rows = figures.by_group(groups.by_attribute(*labelled()[:1], "made up", labelled()[1], 0.3))
    level = {"threshold": 0.3, "groups": rows, "greatest_fmr_ratio": rows[0]}
    report = {"groups": rows, "operating_point": {"size": 1000, "fpir": 1e-3, "threshold": 0.3},
              "greatest_fmr_ratio": rows[0], "levelled": {"fmr": 1e-3, "plain": level, "moved": level}}  # fmt: skip
    assert sections.groups(report).count("made up: second") == 4


def test_the_worst_group_is_held_against_the_geometric_mean_of_all() -> None:
    """Two groups, one four times worse: twice their mean. A group without events counts half a one."""

    def group(label: str, events: int) -> groups.Group:
        share = intervals.clopper_pearson(events, 1000)
        return groups.Group("made up", label, 100, share, share, None, None, (1, 1, 1), 1.0, None)

    assert groups.over_mean([group("a", 10), group("b", 40)]) == {"made up": pytest.approx(2.0)}
    assert groups.over_mean([group("a", 0), group("b", 8)]) == {"made up": pytest.approx(17**0.5, rel=1e-3)}
