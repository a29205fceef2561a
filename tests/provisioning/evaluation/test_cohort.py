"""The fixed cohort: made of many people, used where it makes groups more alike, and what the record then says."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest

from appliance.errors import PackError
from appliance.recognition import packs
from appliance.recognition.embed import unit
from appliance.recognition.packs import Pack
from models.training.cohort import LEAST, means
from provisioning.evaluation import cohort
from provisioning.evaluation.dataset import Dataset, Still
from provisioning.evaluation.embeddings import CONDITIONS, Templates
from provisioning.evaluation.evaluate import Evaluation

LENGTH = 128


def crowd(count: int, seed: int, middle: np.ndarray) -> np.ndarray:
    """Templates of different people that lie about a middle."""
    noise = unit(np.random.default_rng(seed).normal(size=(count, LENGTH)).astype(np.float32))
    return unit(middle + 0.9 * noise)


DENSE = unit(np.ones((1, LENGTH), np.float32))
SPREAD = np.zeros((1, LENGTH), np.float32)


class Made(Evaluation):
    """An evaluation whose templates are given."""

    rows: np.ndarray

    @cached_property
    def templates(self) -> Templates:
        count = len(self.rows)
        return Templates(self.rows, np.ones(count, bool), np.zeros((count, len(CONDITIONS)), np.float32))

    def _embedded(self, dataset: Dataset, mirror: bool = False) -> Templates:
        places = {still.identity: row for row, still in enumerate(self.dataset.stills)}
        rows = np.stack([self.rows[places[still.identity]] for still in dataset.stills])
        return replace(self.templates, plain=rows)


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    """An embedder pack of this length in a folder of its own."""
    built_in = packs.load("open-embedder")
    return Pack(tmp_path, built_in.manifest, built_in.digest)


def evaluation(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> Made:
    """Two groups of labelled adults, one of which resembles itself, and named people with two stills each."""
    monkeypatch.setattr("provisioning.evaluation.rerender.second_looks", lambda dataset, cache: dataset)
    people = unit(np.random.default_rng(5).normal(size=(300, LENGTH)).astype(np.float32))
    named = unit(people.repeat(2, axis=0) + 0.03 * np.random.default_rng(6).normal(size=(600, LENGTH)))
    rows = np.concatenate([named, crowd(700, 1, SPREAD), crowd(700, 2, 0.35 * DENSE)]).astype(np.float32)
    stills = [Still(Path("x"), f"n{i // 2}") for i in range(600)]
    stills += [Still(Path("x"), f"u{i}", ("male", "female")[i >= 700], 30, None, distractor=True) for i in range(1400)]
    made = Made(Dataset("made up", "", tuple(stills)), packs.load("lamp-detector"), pack)
    made.dataset.__dict__["digests"] = tuple(f"{i:064x}" for i in range(len(stills)))
    made.rows = rows
    return made


def test_a_row_of_a_cohort_is_a_mean_of_ten_people_or_more_and_nobodys_template() -> None:
    templates = np.concatenate([crowd(200, 3, DENSE), crowd(200, 4, -DENSE), crowd(3, 5, SPREAD)])
    rows = means(templates, 6, 1)
    assert 1 <= len(rows) <= 6
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(len(rows)), abs=1e-5)
    assert float((rows @ templates.T).max()) < 0.97
    assert LEAST == 10


def test_a_cohort_that_makes_groups_alike_is_used_and_thresholds_are_of_its_scores(
    pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(pack.folder / cohort.FILE, np.concatenate([DENSE, crowd(20, 9, SPREAD)]).astype(np.float16))
    test = evaluation(pack, monkeypatch)
    shown = test.levelled
    assert shown is not None
    assert shown.narrower
    rule = test.normalisation
    assert (rule.kind, rule.cohort, rule.nearest) == ("cohort", cohort.FILE, 1)
    assert test.trials is test.moved_trials
    assert test.calibration().normalisation == rule


def test_without_a_cohort_scores_are_plain_cosines(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    test = evaluation(pack, monkeypatch)
    assert test.cohort is None
    assert test.normalisation.kind == "none"
    assert test.trials is test.plain_trials


def test_a_cohort_that_helps_nobody_is_not_used(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that points away from the group that resembles itself makes it no rarer among false matches."""
    np.save(pack.folder / cohort.FILE, -DENSE.astype(np.float16))
    assert evaluation(pack, monkeypatch).normalisation.kind == "none"


def test_a_cohort_of_another_length_is_refused(pack: Pack) -> None:
    np.save(pack.folder / cohort.FILE, np.ones((4, 64), np.float16))
    with pytest.raises(PackError, match="not templates of 128"):
        cohort.found(pack)


def test_groups_can_be_measured_at_the_threshold_of_a_record(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its normalisation is taken too, whatever this data set would have chosen."""
    np.save(pack.folder / cohort.FILE, np.concatenate([DENSE, crowd(20, 9, SPREAD)]).astype(np.float16))
    test = evaluation(pack, monkeypatch)
    record = test.calibration()
    again = evaluation(pack, monkeypatch)
    again.record = record.model_copy(update={"floor": 0.99})
    assert again.threshold == 0.99
    assert again.normalisation == record.normalisation
    assert all(group.fmr.events == 0 for group in again.groups)
    assert all(group.fta is not None and group.fta.value == 0 for group in again.groups)
