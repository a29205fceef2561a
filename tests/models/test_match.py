"""Function matching: the student, the views it sees, and a run of two steps."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the recipe needs the train extra: pip install 'bluelamp[train]'")

import torch

from models.training.match_faces import MatchFaces
from models.training.match_net import MatchNet
from models.training.match_train import Matching, MatchPlan, load_student
from models.training.match_views import VIEW, Street, middle
from models.training.sources import TEACHER, SourceError, shared_folder


def _has_teacher() -> bool:
    try:
        return (shared_folder() / TEACHER).is_file() and importlib.util.find_spec("onnx") is not None
    except SourceError:
        return False


needs_teacher = pytest.mark.skipif(not _has_teacher(), reason="no teacher: set BLUELAMP_SHARED to the shared folder")


def _canvases(count: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (count, 9, 9, 3))
    return coarse.repeat(16, 1).repeat(16, 2).astype(np.uint8)


def test_the_student_gives_128_numbers_and_its_activations_are_bounded() -> None:
    """Every layer ends in ReLU6, so a picture of extremes cannot run away."""
    net = MatchNet().eval()
    with torch.inference_mode():
        assert net(torch.zeros(2, 3, 112, 112)).shape == (2, 128)
        assert float(net.body(torch.full((1, 3, 112, 112), 1e4)).max()) <= 6.0
    assert 5.0e6 < sum(p.numel() for p in net.parameters()) < 6.0e6


def test_views_and_what_a_street_does_to_them_stay_pictures() -> None:
    """Shapes, ranges, and that about half of the views are changed; equal seeds draw equal views."""

    def draw() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        torch.manual_seed(3)
        street = Street(torch.device("cpu"), 3)
        views = street.views(torch.from_numpy(_canvases(6)), 24)
        seen, bad = street.degraded(views)
        return views, seen, bad, street.chips(seen, bad)

    views, seen, bad, chips = draw()
    assert views.shape == seen.shape == (24, 3, VIEW, VIEW)
    assert chips.shape == (24, 3, 112, 112)
    assert float(seen.min()) >= 0
    assert float(seen.max()) <= 255
    assert 4 < int(bad.sum()) < 20
    same = (views == seen).flatten(1).all(1)
    assert bool(same[~bad].all())
    assert float(chips.abs().max()) <= 1.01
    assert middle(views).shape == (24, 3, 112, 112)
    assert all(torch.equal(a, b) for a, b in zip((views, seen, bad, chips), draw(), strict=True))


def test_the_rate_rises_stays_and_falls_to_nothing() -> None:
    plan = MatchPlan(rate=1e-3, fall=0.25, warm_up=10)
    assert plan.rate_at(0, 0.0) < plan.rate_at(20, 0.1)
    assert plan.rate_at(20, 0.1) == plan.rate_at(5000, 0.74)
    assert plan.rate_at(9000, 0.9) < plan.rate_at(5000, 0.74)
    assert plan.rate_at(9999, 1.0) < 1e-6


@needs_teacher
@pytest.mark.timeout(300)
def test_a_run_on_a_processor_writes_what_a_later_run_goes_on_from(tmp_path: Path) -> None:
    """Two steps, then one more from stable.pt: the curve has a line each, and the files load."""
    torch.set_num_threads(1)
    faces = MatchFaces(_canvases(8), _canvases(6), np.array(["a", "a", "b", "b", "c", "c"]))
    plan = MatchPlan(seconds=1e6, batch=8, steps=2)
    Matching(plan, tmp_path / "first", faces).run()
    again = MatchPlan(seconds=1e6, batch=8, steps=1, resume=tmp_path / "first" / "stable.pt")
    Matching(again, tmp_path / "second", faces).run()
    assert len((tmp_path / "first" / "curve.csv").read_text().splitlines()) == 1
    student = load_student(tmp_path / "second" / "student.pt")
    with torch.inference_mode():
        assert bool(torch.isfinite(student(torch.zeros(1, 3, 112, 112))).all())
    first, second = (torch.load(tmp_path / run / "stable.pt", weights_only=True) for run in ("first", "second"))
    assert not torch.equal(first["head.weight"], second["head.weight"])


@pytest.mark.skipif(not _has_teacher(), reason="no FairFace: set BLUELAMP_SHARED to the shared folder")
def test_fairface_is_unpacked_as_a_table_that_the_evaluation_reads(tmp_path: Path) -> None:
    """Pictures, labels and ages in whole years; every age band of the data set is known."""
    from models.training.fairface import MIDDLES, unpack
    from provisioning.evaluation import dataset

    found = dataset.load(unpack("val", tmp_path, 200))
    assert len(found.stills) == 13
    assert {still.sex for still in found.stills} == {"male", "female"}
    assert all(still.age in MIDDLES.values() and still.ethnicity for still in found.stills)
    with np.load(shared_folder() / "data" / "fairface" / "val.npz") as labels:
        assert set(map(str, labels["age"])) <= set(MIDDLES)
