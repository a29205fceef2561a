"""The composer makes the same deployment from the same plan, says truly where faces are, and enrols other stills."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.composer import Deployment, Plan, compose
from benchmarks.stills import data_folder
from provisioning.evaluation.dataset import load
from provisioning.truth import read_truth, write_truth

needs_stills = pytest.mark.skipif(
    not (data_folder() / "labels" / "lfw.npz").is_file(),
    reason="needs the photographs of ../shared/data (or $BLUELAMP_DATA)",
)
SMALL = Plan(passes=6, mated_share=0.5, references=8, width=640, height=360, largest_face=80, seed=5)


@pytest.fixture(scope="module")
def deployment() -> Deployment:
    return compose(SMALL)


@needs_stills
def test_the_same_plan_composes_the_same_deployment(deployment: Deployment) -> None:
    again = compose(SMALL)
    assert again == deployment
    pairs = zip(range(12), deployment.frames(), again.frames(), strict=False)
    assert all(np.array_equal(left, right) for _, left, right in pairs)


@needs_stills
def test_another_seed_composes_another_one(deployment: Deployment) -> None:
    other = compose(Plan(**{**SMALL.__dict__, "seed": 6}))
    assert [p.identity for p in other.passes] != [p.identity for p in deployment.passes]


@needs_stills
def test_a_mated_pass_walks_with_another_photograph_than_the_one_enrolled(deployment: Deployment) -> None:
    mated = [(w, p) for w, p in zip(deployment.walkers, deployment.passes, strict=True) if p.mated]
    assert len(mated) == 3
    for walker, entry in mated:
        assert entry.reference_identifier is not None
        enrolled = deployment.enrolled[entry.reference_identifier]
        assert enrolled != walker.still.path
        assert enrolled.is_file()


@needs_stills
def test_nobody_walks_twice_and_no_stranger_is_enrolled(deployment: Deployment) -> None:
    identities = [entry.identity for entry in deployment.passes]
    assert len(set(identities)) == len(identities)
    enrolled = {path.parent.name for path in deployment.enrolled.values()}
    assert not enrolled & {entry.identity for entry in deployment.passes if not entry.mated}


@needs_stills
def test_the_identities_are_held_out_from_training(deployment: Deployment) -> None:
    from models.training.split import held_out, overlap_aliases

    aliases = overlap_aliases(data_folder() / "labels" / "lfw_overlaps.csv")
    assert all(held_out(entry.identity, aliases) for entry in deployment.passes)


@needs_stills
def test_the_watchlist_is_filled_up_to_the_size_asked_for(deployment: Deployment) -> None:
    images = dict(deployment.reference_images())
    assert len(images) == 8
    assert all(image.dtype == np.uint8 and image.shape[2] == 3 for image in images.values())


@needs_stills
def test_the_picture_changes_where_truth_says_a_face_is(deployment: Deployment) -> None:
    entry = min(deployment.passes, key=lambda p: p.first_frame)
    box = entry.boxes[-1]
    frames = dict(zip(range(box.frame + 1), deployment.frames(), strict=False))
    empty = next(compose(SMALL).frames()) if entry.first_frame else None
    x, y = int(box.x + box.width / 2), int(box.y + box.height / 2)
    reach = int(box.width / 4)
    area = np.s_[y - reach : y + reach, x - reach : x + reach]
    if empty is not None:
        assert np.abs(frames[box.frame][area].astype(int) - empty[area]).mean() > 8


@needs_stills
def test_faces_grow_and_at_most_so_many_walk_at_once(deployment: Deployment) -> None:
    for entry in deployment.passes:
        widths = [box.width for box in entry.boxes]
        assert widths == sorted(widths)
    for frame in range(deployment.frame_count):
        assert sum(p.first_frame <= frame <= p.last_frame for p in deployment.passes) <= SMALL.at_once


@needs_stills
def test_truth_survives_being_written(deployment: Deployment, tmp_path: Path) -> None:
    write_truth(deployment.truth("clip.mp4"), tmp_path / "truth.json")
    read = read_truth(tmp_path / "truth.json")
    assert [p.pass_id for p in read.passes] == [p.pass_id for p in deployment.passes]
    assert [p.reference_identifier for p in read.passes] == [p.reference_identifier for p in deployment.passes]
    assert abs(read.passes[0].boxes[0].x - deployment.passes[0].boxes[0].x) <= 0.051


@needs_stills
def test_a_share_of_heads_is_tilted_and_nothing_else_changes(deployment: Deployment) -> None:
    """Up to 45 degrees to either side; the same people walk the same way without any."""
    level = compose(Plan(**{**SMALL.__dict__, "tilted_share": 0.0}))
    every = compose(Plan(**{**SMALL.__dict__, "tilted_share": 1.0}))
    assert max(abs(w.roll) for w in level.walkers) <= 5
    assert 10 < max(abs(w.roll) for w in every.walkers) <= 45
    for ours, theirs in zip(level.walkers, every.walkers, strict=True):
        assert replace(ours, roll=0.0) == replace(theirs, roll=0.0)
    assert level.passes == every.passes == deployment.passes


@needs_stills
def test_a_plan_the_stills_cannot_fill_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match="ask for fewer"):
        compose(Plan(passes=5000))


@needs_stills
def test_several_photographs_are_enrolled_without_changing_who_walks(deployment: Deployment, tmp_path: Path) -> None:
    several = compose(Plan(**{**SMALL.__dict__, "references_each": 3}))
    assert several.walkers == deployment.walkers
    assert several.enrolled == deployment.enrolled
    assert not any(deployment.further.values())
    walked = {w.still.path for w in several.walkers}
    for identifier, first in several.enrolled.items():
        photographs = several.photographs(identifier)
        assert photographs[0] == first
        assert 1 <= len(photographs) == len(set(photographs)) <= 3
        assert not walked & set(photographs)
    read = load(several.write_references(tmp_path))
    counts = Counter(still.identity for still in read.stills)
    assert {name: counts[name] for name in several.enrolled} == {
        name: len(several.photographs(name)) for name in several.enrolled
    }
