"""Who is searched among whom, read from folders and tables, and how references are fused and normalised."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import ConfigError
from appliance.recognition import normalise
from appliance.recognition.embed import unit
from models.training import split
from provisioning.evaluation import dataset, gains, population
from provisioning.evaluation.dataset import Dataset, Still
from provisioning.evaluation.embeddings import CONDITIONS, Templates


def stills(folder: Path, counts: dict[str, int], distractors: int = 0) -> Dataset:
    """A data set of tiny images that differ in one byte."""
    made = []
    for name, count in counts.items():
        made += [Still(folder / f"{name}_{i}.png", name) for i in range(count)]
    made += [Still(folder / f"d{i}.png", f"d{i}", age=10 + 20 * (i % 2), distractor=True) for i in range(distractors)]
    for i, still in enumerate(made):
        cv2.imwrite(str(still.image), np.full((2, 2, 3), i % 256, np.uint8))
    return Dataset("made up", "for a test", tuple(made))


def templates(data: Dataset, noise: float = 0.1, seed: int = 1) -> Templates:
    rng = np.random.default_rng(seed)
    centres = unit(rng.normal(size=(int(data.identities.max()) + 1, 64)).astype(np.float32))
    plain, mirrored = (
        unit(centres[data.identities] + noise * rng.normal(size=(len(data.stills), 64)).astype(np.float32))
        for _ in "ab"
    )
    conditions = np.ones((len(data.stills), len(CONDITIONS)), np.float32)
    return Templates(plain, np.ones(len(data.stills), bool), conditions, mirrored)


def test_one_still_of_each_identity_is_enrolled_and_the_others_are_mated_probes(tmp_path: Path) -> None:
    data = stills(tmp_path, {"a": 3, "b": 1, "c": 2}, distractors=4)
    chosen = population.choose(data, np.ones(10, bool))
    assert len(chosen.references) == 3 + 2  # two of four distractors are adults
    assert len(chosen.probes) == 6
    assert int((~chosen.enrolled).sum()) == 3


def test_a_still_without_a_face_is_never_enrolled_but_is_searched(tmp_path: Path) -> None:
    data = stills(tmp_path, {"a": 2})
    for missing in (0, 1):
        found = np.arange(2) != missing
        chosen = population.choose(data, found)
        assert chosen.references[0].tolist() == [1 - missing]
        assert chosen.probes[~chosen.enrolled].tolist() == [missing]


def test_populations_of_one_two_and_three_references_have_the_same_mated_probes(tmp_path: Path) -> None:
    data = stills(tmp_path, {"a": 6, "b": 3, "c": 4, "d": 5})
    mated = []
    for count in (1, 2, 3):
        chosen = population.choose(data, np.ones(18, bool), count, alike=3)
        mated.append(chosen.probes[~chosen.enrolled].tolist())
        assert max(len(r) for r in chosen.references) == count
        assert not set(np.concatenate(chosen.references)) & set(mated[-1])
    assert mated[0] == mated[1] == mated[2]
    assert len(mated[0]) == 3 + 0 + 1 + 2


def test_fused_references_are_the_unit_mean() -> None:
    rows = unit(np.random.default_rng(1).normal(size=(5, 8)).astype(np.float32))
    found = population.fused(rows, (np.array([0]), np.array([1, 2, 4])))
    assert found[0] == pytest.approx(rows[0])
    assert found[1] == pytest.approx(unit(rows[[1, 2, 4]].mean(axis=0, keepdims=True))[0], abs=1e-6)


def test_held_out_identities_are_those_training_never_sees(tmp_path: Path) -> None:
    data = stills(tmp_path, {f"n{i}": 1 for i in range(200)})
    kept = dataset.held_out(data)
    assert {s.identity for s in kept.stills} == {s.identity for s in data.stills if split.held_out(s.identity)}
    assert len({dataset.fold(s.identity) for s in kept.stills}) == 5
    assert 20 < len(kept.stills) < 60


def test_a_folder_and_a_table_are_read(tmp_path: Path) -> None:
    (tmp_path / "ann").mkdir()
    cv2.imwrite(str(tmp_path / "ann" / "1.png"), np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "ann" / "note.txt").write_text("not an image")
    assert [s.identity for s in dataset.load(tmp_path).stills] == ["ann"]
    table = tmp_path / "t.csv"
    table.write_text("image,identity,sex,age,ethnicity\nann/1.png,ann,female,44,White\n", encoding="utf-8")
    still = dataset.load(table).stills[0]
    assert (still.sex, still.band, still.ethnicity) == ("female", "30-44", "White")


@pytest.mark.parametrize(
    "row,word", [("ann/9.png,ann,,,", "not there"), (",ann,,,", "needs"), ("ann/1.png,ann,,old,", "whole number")]
)
def test_a_bad_row_is_named(tmp_path: Path, row: str, word: str) -> None:
    (tmp_path / "ann").mkdir()
    cv2.imwrite(str(tmp_path / "ann" / "1.png"), np.zeros((4, 4, 3), np.uint8))
    table = tmp_path / "t.csv"
    table.write_text(f"image,identity,sex,age,ethnicity\n{row}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=f"line 2.*{word}"):
        dataset.load(table)


def test_a_digest_of_the_data_changes_with_any_byte_and_any_name(tmp_path: Path) -> None:
    before = stills(tmp_path, {"a": 2}).digest
    assert before == stills(tmp_path, {"a": 2}).digest
    renamed = Dataset("x", "", tuple(Still(s.image, "b") for s in stills(tmp_path, {"a": 2}).stills))
    assert renamed.digest != before
    data = stills(tmp_path, {"a": 2})
    cv2.imwrite(str(data.stills[0].image), np.full((2, 2, 3), 9, np.uint8))
    assert data.digest != before


@given(st.integers(2, 40), st.integers(2, 60), st.floats(0, 1), st.floats(-0.5, 0.5))
def test_moving_scores_and_moving_thresholds_decide_alike(m: int, n: int, weight: float, threshold: float) -> None:
    rng = np.random.default_rng(m * 100 + n)
    references, cohort = (unit(rng.normal(size=(k, 16)).astype(np.float32)) for k in (m, n))
    probes = unit(rng.normal(size=(20, 16)).astype(np.float32))
    levels = normalise.level(references, cohort, 10)
    usual = float(levels.mean())
    scores = probes @ references.T
    raised = normalise.raised(levels, usual, weight)
    moved = normalise.normalised(scores, np.maximum(levels, usual), usual, weight) >= threshold
    plain = scores >= threshold + raised
    assert np.mean(moved == plain) > 0.999
    assert (raised >= 0).all()


def test_the_level_is_the_mean_of_the_nearest() -> None:
    references = np.array([[1.0, 0.0]], np.float32)
    cohort = unit(np.array([[1, 0], [1, 1], [0, 1], [-1, 0]], np.float32))
    assert normalise.level(references, cohort, 2) == pytest.approx([(1 + 0.5**0.5) / 2], abs=1e-6)
    assert normalise.level(references, cohort, 99) == pytest.approx([0.5**0.5 / 4], abs=1e-6)
    assert normalise.raised(np.array([0.1, 0.3], np.float32), 0.2, 1.0).tolist() == pytest.approx([0, 0.1], abs=1e-6)


def test_fused_references_gain_on_scattered_templates_and_say_by_how_much(tmp_path: Path) -> None:
    data = stills(tmp_path, {f"n{i}": 6 for i in range(120)})
    found = {g.way: g for g in gains.measure(data, templates(data, 0.17), 15, 0.01)}
    three = found["3 references fused"]
    assert three.gain > 0.05
    assert three.low < three.gain < three.high
    assert three.low > 0
    assert found["mirror image averaged, both sides"].gain > 0
    assert found["5 stills pooled into one probe, plain mean"].low > 0


def test_nothing_is_claimed_where_lists_of_the_size_cannot_be_drawn(tmp_path: Path) -> None:
    data = stills(tmp_path, {"a": 2, "b": 2})
    assert gains.measure(data, templates(data), 1000, 1e-3) == []


def test_a_gain_that_only_tells_sources_apart_is_shown_up_by_a_list_of_one_source(tmp_path: Path) -> None:
    data = stills(tmp_path, {f"n{i}": 2 for i in range(150)}, distractors=400)
    drawn = templates(data, 0.13)
    # Distractors resemble each other, and everybody a little: a source of its own.
    raw = drawn.plain + np.where(data.distractors, 0.16, 0.04)[:, None].astype(np.float32)
    found = gains.measure(data, Templates(unit(raw), drawn.found, drawn.conditions), 50, 0.01)
    mixed, single = (next(g for g in found if g.way.startswith(words)) for words in ("cohort", "the same"))
    assert mixed.gain > 0.05, "it looks like a gain"
    assert single.gain < mixed.gain / 2, "and is hardly one"
    assert mixed.size == 50
    assert single.size == min(50, single.size)


def test_nobody_of_the_cohort_is_on_the_list_or_searched(tmp_path: Path) -> None:
    data = stills(tmp_path, {f"n{i}": 2 for i in range(60)}, distractors=40)
    drawn, parts = templates(data), np.array([dataset.fold(s.identity) for s in data.stills])
    for number in range(gains.FOLDS):
        part = gains._part(data, drawn, parts, number, 1, None)
        listed = drawn.plain[np.concatenate([*part.chosen.references, part.chosen.probes])]
        assert len(part.cohort) > 10
        assert (part.cohort @ listed.T).max() < 0.999
