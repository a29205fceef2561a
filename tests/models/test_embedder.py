"""The embedder's recipe: weights read as dlib means them, lessons that repeat, a run that resumes, files that agree."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.paths import ROOT

torch = pytest.importorskip("torch", reason="the training extra is not installed: pip install 'bluelamp[train]'")

from models.training import degrade  # noqa: E402
from models.training.chips import (  # noqa: E402
    CANVAS,
    CANVAS_LANDMARKS,
    DLIB_LANDMARKS,
    DLIB_WIDTH,
    Picture,
    chips_of_canvases,
    moved,
    similarity,
)
from models.training.curve import draw_curve  # noqa: E402
from models.training.dataset import Lessons, labelled_targets  # noqa: E402
from models.training.dlib_weights import WeightsError, read_weights  # noqa: E402
from models.training.embedder_net import Block, FaceNet, from_dlib, normalise, unit_halves  # noqa: E402
from models.training.embedder_train import Plan, Training, ridge  # noqa: E402
from models.training.faces import FaceSet  # noqa: E402
from models.training.golden import drawn_face  # noqa: E402
from models.training.groups import groups  # noqa: E402
from models.training.losses import (  # noqa: E402
    LossWeights,
    bank_disagreement,
    forgetting,
    score_error,
    student_loss,
)
from models.training.morphs import mixture  # noqa: E402
from models.training.sources import SourceError, dlib_weights_file, shared_folder  # noqa: E402


def canvas(seed: int) -> Picture:
    """A smooth picture of nobody, (152, 152, 3)."""
    rng = np.random.default_rng(seed)
    face = drawn_face(CANVAS, CANVAS, CANVAS_LANDMARKS)
    return np.asarray((face * rng.uniform(0.6, 1.0, 3)).clip(0, 255), dtype=np.uint8)


def unit_rows(seed: int, count: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, 128)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def lessons() -> Lessons:
    return Lessons(np.stack([canvas(i) for i in range(6)]), unit_rows(0, 6), (), (), unit_rows(9, 6))


def dlib_file() -> Path:
    try:
        return dlib_weights_file()
    except SourceError as error:
        pytest.skip(str(error))


def test_the_network_agrees_with_dlib_on_an_aligned_chip() -> None:
    dlib = pytest.importorskip("dlib", reason="dlib-bin is the oracle and is not installed")
    file = dlib_file()
    face = drawn_face(DLIB_WIDTH, DLIB_WIDTH, DLIB_LANDMARKS)
    expected = np.array(dlib.face_recognition_model_v1(str(file)).compute_face_descriptor(face[..., ::-1].copy()))
    with torch.no_grad():
        given = from_dlib(read_weights(file))(normalise(torch.from_numpy(face[None])))[0].numpy()
    assert np.abs(given - expected).max() < 2e-6


def test_another_file_of_dlibs_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.dat"
    file.write_bytes(b"\x01\x02" * 100 + b"\x05con_4" + b"\x01\x02" + b"\x09" * 30)
    with pytest.raises(WeightsError):
        read_weights(file)


def test_a_halving_block_pads_the_smaller_side_with_zeros() -> None:
    block = Block(2, 3, halve=True)
    with torch.no_grad():
        block.second.weight.zero_()
        assert block.second.bias is not None
        block.second.bias.zero_()
        given = block(torch.ones(1, 4, 4, 2))
    # The convolution gives 1 x 1, the pool 2 x 2: the sum has the larger side, and no third channel from the shortcut.
    assert given.shape == (1, 2, 2, 3)
    assert torch.equal(given[..., :2], torch.ones(1, 2, 2, 2))
    assert not given[..., 2].any()


@pytest.mark.parametrize(("spatial", "side", "features"), [(False, 150, 256), (False, 112, 256), (True, 150, 4352)])
def test_both_forms_of_the_network_give_128_numbers(spatial: bool, side: int, features: int) -> None:
    net = FaceNet(spatial).eval()
    with torch.no_grad():
        assert net.features(torch.zeros(1, 3, side, side)).shape == (1, features)
        assert net(torch.zeros(1, 3, side, side)).shape == (1, 128)


def test_a_twin_begins_with_dlibs_own_template_in_its_first_half() -> None:
    weights = read_weights(dlib_file())
    picture = normalise(torch.from_numpy(drawn_face(DLIB_WIDTH, DLIB_WIDTH, DLIB_LANDMARKS)[None]))
    with torch.no_grad():
        own, twin = from_dlib(weights)(picture), from_dlib(weights, twin=True)(picture)
    assert twin.shape == (1, 256)
    assert torch.allclose(twin[:, :128], own, atol=1e-6)


def test_a_twins_cosine_is_the_weighted_sum_of_its_halves() -> None:
    raw = torch.randn(2, 256, generator=torch.Generator().manual_seed(0))
    whole = unit_halves(raw, 0.8)
    halves = [torch.nn.functional.cosine_similarity(part[0], part[1], dim=0) for part in (raw[:, :128], raw[:, 128:])]
    assert float(whole[0] @ whole[1]) == pytest.approx(float(0.8 * halves[0] + 0.2 * halves[1]), abs=1e-5)
    assert torch.allclose(whole.norm(dim=1), torch.ones(2))


def test_forgetting_counts_only_chips_whose_own_template_is_known() -> None:
    given, origin = torch.zeros(2, 4), torch.tensor([[1.0, 0, 0, 0], [float("nan")] * 4])
    assert float(forgetting(given, origin)) == pytest.approx(1.0)
    assert float(forgetting(given, torch.full((2, 4), float("nan")))) == 0.0


@pytest.mark.parametrize("change", degrade.DEGRADATIONS)
def test_a_degradation_keeps_shape_and_type_and_repeats(change: degrade.Degradation) -> None:
    chip = chips_of_canvases(canvas(1)[None])[0]
    before = chip.copy()
    one, two = (change(chip, np.random.default_rng(3)) for _ in range(2))
    assert one.shape == chip.shape
    assert one.dtype == np.uint8
    assert np.array_equal(one, two)
    assert not np.array_equal(one, before)
    assert np.array_equal(chip, before), "the chip that was given must stay as it was"


def test_a_step_s_batch_depends_on_seed_and_step_alone() -> None:
    made = lessons()
    first, again, other = (made.batch(step, 5, 7, 0.0, 0.5) for step in (3, 3, 4))
    assert np.array_equal(first.chips, again.chips)
    assert not np.array_equal(first.chips, other.chips)


def test_a_mixture_is_aligned_and_repeats() -> None:
    points = CANVAS_LANDMARKS
    made = [mixture(canvas(1), points, canvas(2), points, np.random.default_rng(5)) for _ in range(2)]
    assert made[0][0].shape == (CANVAS, CANVAS, 3)
    assert np.array_equal(made[0][0], made[1][0])
    # Aligned: no rotation, scale or shift is left in the landmarks.
    assert np.allclose(similarity(made[0][1], points), [[1, 0, 0], [0, 1, 0]], atol=1e-6)


def test_a_similarity_takes_points_back_exactly() -> None:
    turn = np.array([[0.8, -0.6, 5.0], [0.6, 0.8, -3.0]])
    assert np.allclose(similarity(DLIB_LANDMARKS, moved(DLIB_LANDMARKS, turn)), turn)


def test_a_student_that_is_the_teacher_loses_nothing() -> None:
    rows = torch.from_numpy(unit_rows(1, 8))
    assert float(student_loss(rows, rows, torch.from_numpy(unit_rows(2, 20)), LossWeights())) == pytest.approx(
        0, abs=1e-5
    )


def test_an_error_in_a_high_score_costs_more_than_in_a_low_one() -> None:
    wanted = torch.eye(4)[:2]
    near = torch.nn.functional.normalize(torch.tensor([[1.0, 0.4, 0, 0], [0.0, 1, 0, 0]]))
    far = torch.nn.functional.normalize(torch.tensor([[1.0, -0.4, 0, 0], [0.0, 1, 0, 0]]))
    assert score_error(near, wanted, 8.0, 0.25) > 2 * score_error(far, wanted, 8.0, 0.25)


def test_disagreement_about_the_bank_is_never_negative() -> None:
    student, teacher, bank = (torch.from_numpy(unit_rows(seed, 9)) for seed in (1, 2, 3))
    assert float(bank_disagreement(student, teacher, bank, 24.0)) > 0


def test_labels_draw_templates_of_one_identity_together() -> None:
    rows = unit_rows(4, 3)
    moved_rows = labelled_targets(rows, np.array(["a", "a", "b"]), 0.5)
    assert moved_rows[0] @ moved_rows[1] > rows[0] @ rows[1]
    assert np.allclose(moved_rows[2], rows[2], atol=1e-6)


def test_least_squares_finds_a_linear_head() -> None:
    rng = np.random.default_rng(0)
    features, true = rng.normal(size=(200, 6)).astype(np.float32), rng.normal(size=(6, 3)).astype(np.float32)
    weight, bias = ridge(features, features @ true + 1, strength=1e-6)
    assert np.allclose(weight, true, atol=1e-3)
    assert np.allclose(bias, 1, atol=1e-3)


def _train(folder: Path, steps: int, made: Lessons, held: FaceSet) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    plan = Plan(chips=4 * 4, batch=4, warm_up=1, measure_every=100, save_every=1, threads=1)
    training = Training(FaceNet(twin=True), made, held, plan, folder)
    if steps < plan.steps:
        training.plan = replace(plan, minutes=0.0)
        training._share_done = lambda: 1.0 if training.step >= steps else training.step / plan.steps  # type: ignore[method-assign]
    return training.run().state_dict()


def test_a_run_that_was_stopped_ends_like_one_that_was_not(tmp_path: Path) -> None:
    made = lessons()
    names = np.array([f"face {i}" for i in range(6)])
    points = np.repeat(CANVAS_LANDMARKS[None], 6, axis=0).astype(np.float32)
    held = FaceSet(names, np.array(list("aabbcc")), np.ones(6, bool), made.real, points, made.real_templates)
    whole = _train(tmp_path / "whole", 4, made, held)
    _train(tmp_path / "parts", 2, made, held)
    parts = _train(tmp_path / "parts", 4, made, held)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert (tmp_path / "whole" / "curve.csv").read_text().startswith("step,chips,")


def test_a_drawn_face_shows_whether_red_and_blue_were_changed_over() -> None:
    face = drawn_face(DLIB_WIDTH, DLIB_WIDTH, DLIB_LANDMARKS).astype(float)
    assert np.abs(face - face[..., ::-1]).mean() > 40


def test_groups_come_from_the_labels_in_the_names() -> None:
    rows = groups(["25_1_2_20170101.jpg", "61_0_0_20170102.jpg", "no label"])
    assert rows["all"].tolist() == [0, 1]
    assert rows["female"].tolist() == rows["Asian"].tolist() == rows["age 18 to 39"].tolist() == [0]
    assert rows["age 60 to 130"].tolist() == [1]


def test_a_learning_curve_is_drawn(tmp_path: Path) -> None:
    table = tmp_path / "curve.csv"
    table.write_text("step,chips,tar_1e-3,tar_1e-4,tar_1e-5\n0,0,0.5,0.4,0.3\n10,640,0.9,0.8,0.7\n")
    draw_curve(table, tmp_path / "curve.svg")
    assert (tmp_path / "curve.svg").read_text().count("<polyline") == 3


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_recipe_runs_from_photographs_to_a_pack(tmp_path: Path) -> None:
    """Minutes: cut the faces, train on 640 chips, export; the pack opens and passes its golden check."""
    try:
        shared_folder()
    except SourceError as error:
        pytest.skip(str(error))
    dlib_file()
    environment = {**os.environ, "BLUELAMP_TRAINING_CACHE": str(tmp_path / "cache")}

    def step(*arguments: str) -> None:
        command = [sys.executable, "-m", "models.training", "embedder", *arguments]
        subprocess.run(command, cwd=ROOT, env=environment, check=True)

    step("train", "--run", "smoke", "--chips", "640", "--shards", "0")
    step("export", "--run", "smoke", "--pack", str(tmp_path / "pack"), "--samples", "50", "--small")

    from appliance.recognition.embed import Embedder
    from appliance.recognition.packs import load, verify

    pack = load(tmp_path / "pack")
    verify(pack)
    face, expected = pack.golden()
    assert float(Embedder(pack).embed(face[None])[0] @ expected) > 0.99
