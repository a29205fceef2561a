"""The split holds a fifth of the identities out, always the same, and figures are what their definitions say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.training.figures import identification, threshold_at, verification
from models.training.split import held_out, held_out_mask, lfw_identity, overlap_aliases, utk_identity


def test_the_split_never_moves() -> None:
    names = ["Ann_Lee", "Bob_Ray", "Cyd_Fox", "Dee_Roe", "Eve_Poe", "Flo_Day", "Gus_Orr", "Hal_Kay"]
    assert held_out_mask(names) == [False, True, False, False, False, False, False, True]


def test_about_a_fifth_is_held_out() -> None:
    share = np.mean(held_out_mask(f"name {i}" for i in range(5000)))
    assert 0.18 < share < 0.22


def test_two_names_of_one_face_stay_together(tmp_path: Path) -> None:
    file = tmp_path / "overlaps.csv"
    rows = "\n".join(f"A{i},B{i},0.8,same" for i in range(40))
    file.write_text(f"identity_a,identity_b,teacher_cosine,verdict\n{rows}\n")
    aliases = overlap_aliases(file)
    assert all(held_out(f"A{i}", aliases) == held_out(f"B{i}", aliases) for i in range(40))


def test_photographs_name_their_identity() -> None:
    assert lfw_identity("Ann_Lee_0003") == "Ann_Lee"
    assert utk_identity("25_1_0_20170112213500903.jpg.chip.jpg") == "utk:25_1_0_20170112213500903"


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=60), st.floats(0, 0.99))
@settings(deadline=None)
def test_a_threshold_lets_no_more_than_its_rate_pass(scores: list[float], rate: float) -> None:
    values = np.array(scores, np.float32)
    assert (values > threshold_at(values, rate)).mean() <= rate + 1e-9


def test_verification_counts_each_pair_once() -> None:
    rows = np.eye(4, dtype=np.float32)[[0, 0, 1, 2]]
    found = verification(rows, np.array(list("aabc")), (0.5,))
    assert (found.mated, found.non_mated) == (1, 5)
    assert found.accept[0.5] == 1.0


def test_a_probe_counts_only_when_its_own_reference_comes_first_and_passes() -> None:
    eye = np.eye(4, dtype=np.float32)
    names = np.array(["a", "b"])
    # The first probe is its own reference; the second is called a but looks like b; the third is on no list.
    probes, probe_names = eye[[0, 1, 2]], np.array(["a", "a", "c"])
    found = identification(eye[:2], names, probes, probe_names, np.array([0, 1]), 0.4)
    assert found.identified == pytest.approx(0.5)
    assert (found.references, found.mated, found.non_mated) == (2, 2, 3)
