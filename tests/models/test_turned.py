"""Turned views of scenes, and weights recovered from a shipped file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the recipe needs the train extra: pip install 'bluelamp[train]'")
pytest.importorskip("ai_edge_litert", reason="LiteRT has no build for this machine")

import torch

from models.training.detector_export import grids_of, tensor
from models.training.detector_net import STRIDES, Grids, decode, encode, grid_shape, run
from models.training.detector_recover import recovered
from models.training.detector_turns import measure_turns, turn
from models.training.drawn_face import drawn_face
from models.training.export import ExportError, LiteRt
from models.training.sources import REPOSITORY
from models.training.turned import View, cover, draw_view, viewed

FILE = REPOSITORY / "models" / "lamp-detector" / "detector_320x192_int8.tflite"
FACE = np.array([60, 50, 48, 64, 72, 74, 96, 73, 84, 88, 74, 100, 94, 99, 0.9], np.float32)


def _labelled(face: np.ndarray, width: int = 192, height: int = 160) -> Grids:
    """Grids in which the cells near the face's middle answer with it."""
    grids: Grids = []
    for stride in STRIDES:
        rows, columns = grid_shape(width, height, stride)
        score, box = np.zeros((rows, columns), np.float32), np.zeros((rows, columns, 4), np.float32)
        points = np.zeros((rows, columns, 10), np.float32)
        middle = (face[:2] + face[2:4] / 2) / stride
        for y in range(rows):
            for x in range(columns):
                if stride == 16 and np.hypot(x - middle[0], y - middle[1]) < 1.3:
                    score[y, x] = 0.9
                    box[y, x], points[y, x] = encode(face, x, y, stride)
        grids.append((score, box, points))
    return grids


def _view(angle: float, mirrored: bool = False) -> View:
    """Turned about the middle of 192 x 160."""
    radians = np.radians(angle)
    spread = np.array([[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]])
    spread = spread @ np.diag([-1.0 if mirrored else 1.0, 1.0])
    middle = np.array([95.5, 79.5])
    return View(np.column_stack([spread, middle - spread @ middle]).astype(np.float32), 192, 160)


@pytest.mark.parametrize("angle", [-60.0, -20.0, 0.0, 33.0, 60.0])
def test_labels_turn_with_the_picture(angle: float) -> None:
    """After a turn the labels still decode to one face, its landmarks where the turn takes them."""
    view = _view(angle)
    found = decode(viewed(_labelled(FACE), view, 0.25), 0.5)
    assert len(found) == 1
    np.testing.assert_allclose(found[0, 4:14].reshape(5, 2), view.points(FACE[4:14].reshape(5, 2)), atol=0.01)
    middle = found[0, :2] + found[0, 2:4] / 2
    np.testing.assert_allclose(middle, view.points(FACE[:2] + FACE[2:4] / 2), atol=0.01)


def test_the_box_of_a_turned_face_surrounds_the_turned_oval() -> None:
    """A quarter turn changes width and height over; none leaves them; half-way both are between."""
    for angle, wanted in ((0.0, (48, 64)), (90.0, (64, 48))):
        found = decode(viewed(_labelled(FACE), _view(angle), 0.25), 0.5)
        np.testing.assert_allclose(found[0, 2:4], wanted, atol=0.05)
    between = decode(viewed(_labelled(FACE), _view(45.0), 0.25), 0.5)[0, 2:4]
    assert (between > 48).all()
    assert (between < 64).all()


def test_a_mirrored_view_names_the_eyes_by_the_subjects_own_sides() -> None:
    """The right eye stays on the picture's left in a mirrored upright face."""
    view = _view(0.0, mirrored=True)
    assert view.mirrored
    found = decode(viewed(_labelled(FACE), view, 0.25), 0.5)[0, 4:14].reshape(5, 2)
    assert found[0, 0] < found[1, 0]
    assert found[3, 0] < found[4, 0]
    np.testing.assert_allclose(found[0], view.points(FACE[6:8]), atol=0.01)


def test_views_are_drawn_turned_to_both_sides_and_repeat() -> None:
    """A third stays nearly level; the others reach 60 degrees to either side; equal seeds draw equal views."""
    drawn = [draw_view(np.random.default_rng(seed), (448, 448), 320, 320).matrix for seed in range(300)]
    again = draw_view(np.random.default_rng(7), (448, 448), 320, 320).matrix
    assert np.array_equal(again, drawn[7])
    angles = np.degrees([np.arctan2(-m[0, 1], m[1, 1]) for m in drawn])
    assert (np.abs(angles) < 12).mean() > 0.3
    assert angles.max() > 50
    assert angles.min() < -50


def test_a_cover_hides_part_of_a_face() -> None:
    """Something is drawn on the face and nothing far from it."""
    for seed in range(12):
        plain = np.full((160, 192, 3), 128, np.uint8)
        drawn = cover(np.random.default_rng(seed), plain.copy(), FACE[4:14].reshape(5, 2))
        changed = (drawn != plain).any(2)
        assert changed[40:125, 50:120].any()
        assert not changed[:, 170:].any()


def test_recovered_weights_find_what_the_shipped_file_finds() -> None:
    """The net made of an int8 file's numbers gives its face to a twentieth of its width, and can be trained."""
    picture = drawn_face(320, 192, 80, (144, 96))
    pixels = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None].float() / 255
    net = recovered(FILE, pixels)
    ours = decode(run(net.eval(), picture), 0.5)
    theirs = decode(grids_of(LiteRt(FILE)(tensor(picture)), 320, 192), 0.5)
    assert len(ours) == len(theirs) == 1
    assert np.abs(ours[0, :14] - theirs[0, :14]).max() < 0.05 * 80
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_a_file_of_another_network_is_not_recovered() -> None:
    """An embedder's file is refused with its name."""
    other = REPOSITORY / "models" / "open-embedder" / "embedder_int8.tflite"
    with pytest.raises(ExportError, match="open-embedder"):
        recovered(Path(other), torch.zeros(1, 3, 64, 64))


def test_a_turned_face_is_counted_as_the_protocol_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """A detector that knows no tilt is found wanting: level landmarks cost error, a lost face costs agreement."""
    picture = drawn_face(320, 240, 80, (160, 120))
    monkeypatch.setattr("models.training.detector_turns.upright", lambda count: [(picture, FACE_IN)])

    def level(seen: np.ndarray) -> np.ndarray:
        return FACE_IN[None] if np.array_equal(seen, turn(picture, FACE_IN, 0)[0]) else FACE_IN[None] * 0

    def template(_: np.ndarray, points: np.ndarray) -> np.ndarray:
        return np.array([1.0, 0.0], np.float32)

    found = measure_turns(level, template, 0.9, 1, (0, 45))
    assert found[0]["found"] == found[0]["template_agrees"] == 1
    assert found[0]["landmark_error"] < 1e-5
    assert found[45]["found"] == found[45]["template_agrees"] == 0


FACE_IN = np.array([120, 70, 80, 100, 143, 115, 177, 115, 160, 130, 146, 145, 174, 145, 0.9], np.float32)
