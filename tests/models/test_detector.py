"""The detector's recipe: scenes, labels, geometry, export, and a smoke run of the training."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from tests.support.paths import ROOT

pytest.importorskip("torch", reason="the recipe needs the train extra: pip install 'bluelamp[train]'")
pytest.importorskip("onnxruntime", reason="the recipe needs the train extra: pip install 'bluelamp[train]'")

import torch
from typer.testing import CliRunner

from models.training.detector_labels import YuNet, load_shard, make_shard, save_shard
from models.training.detector_measure import Tally, finder, landmark_error, yunet_faces
from models.training.detector_net import (
    STRIDES,
    DetectorNet,
    ExportNet,
    agree,
    decode,
    encode,
    folded,
    grid_shape,
    overlaps,
    run,
)
from models.training.detector_train import Plan, batches, step_losses
from models.training.drawn_face import drawn_face
from models.training.scenes import Composer, degraded, load_album
from models.training.sources import SourceError, shared_folder
from models.training.split import held_out, lfw_identity, overlap_aliases

PACK = ROOT / "models" / "lamp-detector"


def _has_data() -> bool:
    try:
        return shared_folder().is_dir()
    except SourceError:
        return False


needs_data = pytest.mark.skipif(not _has_data(), reason="no photographs: set BLUELAMP_SHARED to the shared folder")


def test_a_face_survives_encoding_in_a_cell_and_decoding_again() -> None:
    """Cell geometry is exact at every stride: what `encode` writes, `decode` reads back to a thousandth of a pixel."""
    face = np.array([41, 33, 30, 42, 47, 50, 61, 49, 55, 57, 49, 66, 60, 65, 0.9], np.float32)
    for level, stride in enumerate(STRIDES):
        grids = []
        for other in STRIDES:
            rows, columns = grid_shape(160, 120, other)
            grids.append(
                (
                    np.zeros((rows, columns), "f4"),
                    np.zeros((rows, columns, 4), "f4"),
                    np.zeros((rows, columns, 10), "f4"),
                )
            )
        score, box, points = grids[level]
        row, column = int(54 // stride), int(56 // stride)
        score[row, column] = 0.9
        box[row, column], points[row, column] = encode(face, column, row, stride)
        np.testing.assert_allclose(decode(grids, 0.5), face[None], atol=1e-3)


def test_all_cells_of_a_face_teach_the_same_box_and_landmarks() -> None:
    """Two cells that differ by two pixels agree on their weighted mean; a face elsewhere keeps its own answer."""
    face = np.array([41, 33, 30, 42, 47, 50, 61, 49, 55, 57, 49, 66, 60, 65, 0.9], np.float32)
    other, shifted = face + np.eye(15, dtype="f4")[0] * 80, face + np.eye(15, dtype="f4")[0] * 2
    rows, columns = grid_shape(160, 120, 8)
    grids = [(np.zeros((rows, columns), "f4"), np.zeros((rows, columns, 4), "f4"), np.zeros((rows, columns, 10), "f4"))]
    for row, column, taught in ((6, 7, face), (6, 8, shifted), (3, 15, other)):
        grids[0][0][row, column] = 0.8
        grids[0][1][row, column], grids[0][2][row, column] = encode(taught, column, row, 8)
    agree(grids, 0.25, strides=(8,))
    for row, column, wanted in ((6, 7, 42.0), (6, 8, 42.0), (3, 15, 121.0)):
        score = np.zeros((rows, columns), "f4")
        score[row, column] = 0.8
        alone = [(score, *grids[0][1:])]
        assert decode(alone, 0.5, strides=(8,))[0, 0] == pytest.approx(wanted, abs=1e-3)


def test_grids_are_rounded_up_as_in_the_pack_contract() -> None:
    """360 rows give 45, 23 and 12 cells, and the network agrees with the rule at sizes that do not divide."""
    net = DetectorNet().eval()
    for width, height in ((640, 360), (100, 52)):
        grids = run(net, np.zeros((height, width, 3), np.uint8))
        assert [grid[0].shape for grid in grids] == [grid_shape(width, height, s) for s in STRIDES]
    assert [grid_shape(640, 360, s)[0] for s in STRIDES] == [45, 23, 12]


def test_folding_batch_normalisation_changes_nothing() -> None:
    """The folded copy answers as the trained net does, also where running means are not those of a new net."""
    torch.manual_seed(0)
    net = DetectorNet()
    for _ in range(3):
        net(torch.rand(2, 3, 64, 64))
    net.eval()
    picture = drawn_face(96, 72, 40, (48, 36))
    for ours, theirs in zip(run(net, picture), run(folded(net), picture), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)


def test_the_drawn_face_is_the_same_everywhere() -> None:
    """The golden input can be drawn again from its parameters."""
    assert np.array_equal(drawn_face(160, 96, 40, (80, 48)), drawn_face(160, 96, 40, (80, 48)))


def test_false_faces_and_recall_are_counted_as_the_protocol_says() -> None:
    """One face found, one missed, one detection where YuNet has nothing: recall one half, one false face."""
    face = np.zeros((1, 15), np.float32)
    face[0, :4], face[0, 14] = (10, 10, 40, 40), 0.9
    face[0, 4:14] = (20, 20, 40, 20, 30, 30, 22, 40, 38, 40)
    other = face.copy()
    other[0, 0] += 200
    tally = Tally()
    tally.add(np.vstack([face, other]), np.vstack([face, other]), np.vstack([face, face + np.eye(15)[1] * 300]))
    assert tally.recall(0.5) == 0.5
    assert len(tally.false_faces) == 1
    assert tally.threshold(rate=1.0) == pytest.approx(0.05)
    assert tally.threshold(rate=0.0) > 0.9
    assert landmark_error(face[0], face[0]) == 0
    assert overlaps(face, other)[0, 0] == 0


def test_the_run_visits_every_shard_and_repeats_by_lot() -> None:
    """Each shard is new once, in order; between, only shards that exist already are seen again."""
    plan = Plan(shards=7, replay=3)
    seen = [plan.shard_of(visit) for visit in range(plan.visits)]
    assert seen[:: plan.replay] == list(range(7))
    assert all(shard <= visit // plan.replay for visit, shard in enumerate(seen))
    assert plan.rate_at(0) < plan.rate_at(plan.steps // 2) > plan.rate_at(plan.steps - 1)


@needs_data
def test_a_scene_depends_on_seed_and_number_alone() -> None:
    """Made alone or after others, scene 5 of seed 3 is the same; another seed gives another."""
    album = load_album(held=True)
    alone, busy = Composer(album, 3), Composer(album, 3)
    busy.scene(4, 160, 96)
    assert np.array_equal(alone.scene(5, 160, 96), busy.scene(5, 160, 96))
    assert not np.array_equal(alone.scene(5, 160, 96), Composer(album, 4).scene(5, 160, 96))
    first, second = (degraded(np.random.default_rng(1), alone.scene(5, 160, 96)) for _ in range(2))
    assert np.array_equal(first, second)


@needs_data
def test_no_held_out_identity_is_in_a_training_scene() -> None:
    """The two albums share no photograph and no LFW identity."""
    aliases = overlap_aliases(shared_folder() / "data" / "labels" / "lfw_overlaps.csv")
    training, held = load_album(held=False), load_album(held=True)
    assert not {p.file for p in training.portraits} & {p.file for p in held.portraits}
    lfw = {lfw_identity(p.file.stem) for p in training.portraits if p.file.parent.parent.name == "lfw"}
    assert lfw
    assert not any(held_out(name, aliases) for name in lfw)


@needs_data
def test_a_shard_comes_back_as_it_was_saved_and_gives_a_finite_loss(tmp_path: Path) -> None:
    """Labels are YuNet's grids; batches and loss take them as they come."""
    shard = make_shard(Composer(load_album(held=True), 1), YuNet(), 1, count=4)
    save_shard(shard, tmp_path / "shard.npz")
    again = load_shard(tmp_path / "shard.npz")
    assert np.array_equal(shard.scenes, again.scenes)
    assert all(
        np.array_equal(a, b) for x, y in zip(shard.labels, again.labels, strict=True) for a, b in zip(x, y, strict=True)
    )
    net = DetectorNet()
    for pictures, labels in batches(again, Plan(batch=2), visit=0):
        assert all(torch.isfinite(loss) for loss in step_losses(net, pictures, labels).values())


@needs_data
def test_yunet_sees_the_drawn_face_at_every_size() -> None:
    """The teacher's geometry is decoded rightly: one face, about where it was drawn, right eye on the left."""
    yunet = YuNet()
    for face in (24, 60, 120):
        found = yunet_faces(yunet, drawn_face(330, 250, face, (150, 120)))
        assert len(found) == 1
        assert abs(found[0, 0] + found[0, 2] / 2 - 150) < 0.15 * face
        assert found[0, 4] < found[0, 6]


@pytest.mark.skipif(not (PACK / "pack.toml").is_file(), reason="the pack lamp-detector is not built")
def test_the_pack_finds_the_drawn_face_with_its_landmarks() -> None:
    """The shipped files, run as the unit runs them, find one drawn face and put its eyes where they were drawn."""
    find = finder(PACK)
    for face, (width, height) in ((30, (320, 192)), (80, (480, 272)), (120, (640, 360))):
        found = find(drawn_face(width, height, face, (width * 0.4, height * 0.5)))
        found = found[found[:, 14] >= 0.5]
        assert len(found) == 1
        eyes = found[0, 4:8].reshape(2, 2)
        wanted = np.array(
            [
                [width * 0.4 - 0.21 * face, height * 0.5 - 0.055 * face],
                [width * 0.4 + 0.21 * face, height * 0.5 - 0.055 * face],
            ]
        )
        assert np.abs(eyes - wanted).max() < 0.12 * face


@pytest.mark.skipif(not (PACK / "pack.toml").is_file(), reason="the pack lamp-detector is not built")
def test_every_file_of_the_pack_is_pinned_and_holds_only_operations_of_the_edge_tpu() -> None:
    """Digests match; the graphs hold nothing that the Edge TPU compiler's list lacks. The compiler was not run."""
    pytest.importorskip("ai_edge_litert")
    from appliance.recognition.packs import load
    from models.training.detector_export import check_operations

    pack = load(PACK)
    for file in pack.manifest.files:
        blob = pack.read(file)
        assert hashlib.sha256(blob).hexdigest() == file.sha256
        check_operations(blob, "int8" if "int8" in file.path else "float16")


@pytest.mark.slow
def test_torch_and_tflite_agree_on_a_drawn_face() -> None:
    """The float file answers as torch does, cell by cell, at a size whose grids are rounded up."""
    pytest.importorskip("litert_torch")
    from models.training.detector_export import grids_of, tensor
    from models.training.export import LiteRt, to_tflite

    torch.manual_seed(1)
    net = DetectorNet().eval()
    model = to_tflite(ExportNet(net).eval(), torch.zeros(1, 3, 88, 152))
    picture = drawn_face(152, 88, 40, (70, 44))
    for ours, theirs in zip(grids_of(LiteRt(model)(tensor(picture)), 152, 88), run(net, picture), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.slow
@needs_data
@pytest.mark.timeout(600)
def test_a_stopped_training_goes_on_where_it_was_and_learns(tmp_path: Path) -> None:
    """Two shards by the command line, stopped after the first, resumed: the curves have every visit once, and fall."""
    from models.training.detector_cli import app

    def run_to(shards: int) -> None:
        options = [
            "--folder",
            str(tmp_path),
            "--shards",
            str(shards),
            "--scenes",
            "32",
            "--makers",
            "0",
            "--replay",
            "4",
        ]
        result = CliRunner().invoke(app, ["train", *options, "--threads", "1"], catch_exceptions=False)
        assert result.exit_code == 0, result.output

    run_to(1)
    run_to(3)
    lines = (tmp_path / "curves.csv").read_text().splitlines()
    assert [int(line.split(",")[0]) for line in lines[1:]] == list(range(1, 13))
    first, last = (sum(map(float, line.split(",")[4:7])) for line in (lines[1], lines[-1]))
    assert last < first
