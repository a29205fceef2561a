"""Views of a composed scene: turned, narrowed, mirrored, moved, faces partly covered; and what its labels become.

YuNet looks at the upright scene, where it is at its best. Its answers are then moved with the picture, so that the
detector learns exact landmarks for heads at angles at which YuNet itself is unsure.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from models.training.chips import Picture
from models.training.detector_net import STRIDES, Floats, Grids, decode, grid_shape

MOST_TURN = 65.0  # degrees, to either side
_LEVEL_SHARE, _LEVEL_TURN = 0.35, 6.0  # of the views, and their standard deviation in degrees
_NARROW_SHARE, _NARROWEST = 0.25, 0.7
_SHEAR = 0.15
_COVERED_SHARE = 0.15
_SWAPPED = [1, 0, 2, 4, 3]  # landmarks of a mirrored face


@dataclass(frozen=True)
class View:
    """Where a scene's pixels go: ``matrix`` (2, 3), into a picture of ``width`` by ``height``."""

    matrix: Floats
    width: int
    height: int

    @property
    def mirrored(self) -> bool:
        """Whether left and right change places."""
        return float(np.linalg.det(self.matrix[:, :2])) < 0

    def picture(self, scene: Picture) -> Picture:
        """The view of a scene (h, w, 3); the edge is repeated where it reaches beyond."""
        size = (self.width, self.height)
        seen = cv2.warpAffine(scene, self.matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(seen, dtype=np.uint8)

    def points(self, points: Floats) -> Floats:
        """Points (..., 2) of the scene in the view."""
        return np.asarray(points @ self.matrix[:, :2].T + self.matrix[:, 2], np.float32)

    def back(self, points: Floats) -> Floats:
        """Points (..., 2) of the view in the scene."""
        inverse = np.linalg.inv(self.matrix[:, :2].astype(np.float64))
        return np.asarray((points - self.matrix[:, 2]) @ inverse.T, np.float32)

    def half_sizes(self, halves: Floats) -> Floats:
        """Half widths and heights (n, 2) of upright ovals, as those of the upright boxes around the turned ovals."""
        spread = self.matrix[:, :2]
        return np.asarray(np.sqrt((halves**2) @ (spread**2).T), np.float32)


def draw_view(rng: np.random.Generator, side: tuple[int, int], width: int, height: int) -> View:
    """A view of a scene that is ``side`` (width, height) pixels large: level for a third of them, else turned."""
    level = rng.random() < _LEVEL_SHARE
    angle = np.radians(rng.normal(0, _LEVEL_TURN) if level else rng.uniform(-MOST_TURN, MOST_TURN))
    cosine, sine = np.cos(angle), np.sin(angle)
    matrix = np.array([[cosine, -sine], [sine, cosine]])
    if rng.random() < _NARROW_SHARE:
        matrix = matrix @ np.array([[rng.uniform(_NARROWEST, 1.0), 0.0], [rng.uniform(-_SHEAR, _SHEAR), 1.0]])
    if rng.random() < 0.5:
        matrix = matrix @ np.diag([-1.0, 1.0])
    room = np.maximum(np.array(side) - (width, height), 0) / 2
    middle = (np.array(side) - 1) / 2 + rng.uniform(-room, room)
    shift = (np.array([width, height]) - 1) / 2 - matrix @ middle
    return View(np.column_stack([matrix, shift]).astype(np.float32), width, height)


def viewed(grids: Grids, view: View, threshold: float, strides: tuple[int, ...] = STRIDES) -> Grids:
    """A scene's labels in a view of it: each cell answers as the scene's nearest cell did.

    Boxes and landmarks of cells below ``threshold`` are left at nothing.
    """
    return [_moved(*parts, stride, view, threshold) for parts, stride in zip(grids, strides, strict=True)]


def _moved(
    score: Floats, box: Floats, points: Floats, stride: int, view: View, threshold: float
) -> tuple[Floats, Floats, Floats]:
    rows, columns = grid_shape(view.width, view.height, stride)
    cells = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1).astype(np.float32)
    source = np.rint(view.back(cells * stride) / stride).astype(int)
    inside = ((source >= 0) & (source < score.shape[::-1])).all(-1)
    at = np.clip(source, 0, np.array(score.shape[::-1]) - 1)
    found = np.where(inside, score[at[..., 1], at[..., 0]], 0).astype(np.float32)
    boxes, places = np.zeros((rows, columns, 4), np.float32), np.zeros((rows, columns, 10), np.float32)
    y, x = np.nonzero(found >= threshold)
    ys, xs = at[y, x, 1], at[y, x, 0]
    origin = np.stack([xs, ys], 1).astype(np.float32)
    here = cells[y, x]
    centre = view.points((origin + box[ys, xs, :2]) * stride) / stride - here
    halves = view.half_sizes(np.asarray(np.exp(box[ys, xs, 2:]) / 2, np.float32))
    boxes[y, x] = np.concatenate([centre, np.log(2 * halves)], 1)
    marks = view.points((points[ys, xs].reshape(-1, 5, 2) + origin[:, None]) * stride) / stride - here[:, None]
    places[y, x] = (marks[:, _SWAPPED] if view.mirrored else marks).reshape(-1, 10)
    return found, boxes, places


def covered(rng: np.random.Generator, scene: Picture, grids: Grids) -> Picture:
    """The scene, some of whose faces may wear a mask, a cap or dark glasses; the labels stay."""
    if rng.random() >= _COVERED_SHARE:
        return scene
    scene = scene.copy()
    for face in decode(grids, 0.5):
        if rng.random() < 0.6:
            cover(rng, scene, face[4:14].reshape(5, 2))
    return scene


def cover(rng: np.random.Generator, picture: Picture, points: Floats) -> Picture:
    """Draw a mask, a cap or dark glasses on the face with these landmarks (5, 2), in place."""
    kind = (_mask, _cap, _glasses)[int(rng.choice(3, p=[0.5, 0.3, 0.2]))]
    kind(rng, picture, points.astype(np.float64))
    return picture


def _frame(points: Floats) -> tuple[Floats, Floats, Floats]:
    """The middle of the eyes, half the line between them, and the way from there to the mouth's middle."""
    middle = points[:2].mean(0)
    return middle, (points[1] - points[0]) / 2, points[3:].mean(0) - middle


def _fill(scene: Picture, outline: list[Floats], colour: tuple[int, ...]) -> None:
    cv2.fillPoly(scene, [np.rint(np.array(outline) * 16).astype(np.int32)], colour, cv2.LINE_AA, 4)


def _mask(rng: np.random.Generator, scene: Picture, points: Floats) -> None:
    middle, half, down = _frame(points)
    top, side, low = rng.uniform(0.25, 0.45), rng.uniform(1.5, 1.9), rng.uniform(1.5, 1.75)
    colour = ((235, 235, 235), (220, 180, 120), (30, 30, 30))[int(rng.integers(3))]
    shade = tuple(int(c) for c in np.clip(np.array(colour) + rng.normal(0, 18, 3), 0, 255))
    outline = [(-side, top + 0.2), (-0.5, top + 0.1), (0, top), (0.5, top + 0.1), (side, top + 0.2)]
    outline += [(0.8 * side, 1.25), (0.4 * side, low), (-0.4 * side, low), (-0.8 * side, 1.25)]
    _fill(scene, [middle + a * half + b * down for a, b in outline], shade)


def _cap(rng: np.random.Generator, scene: Picture, points: Floats) -> None:
    middle, half, down = _frame(points)
    brim = -rng.uniform(0.2, 0.45)
    shade = tuple(int(c) for c in rng.integers(5, 200, 3))
    outline = [(-2.2, brim), (2.2, brim), (2.1, -1.1), (1.2, -1.6), (-1.2, -1.6), (-2.1, -1.1)]
    _fill(scene, [middle + a * half + b * down for a, b in outline], shade)


def _glasses(rng: np.random.Generator, scene: Picture, points: Floats) -> None:
    middle, half, down = _frame(points)
    shade = tuple(int(c) for c in rng.integers(0, 60, 3))
    for eye in (-1.0, 1.0):
        ring = [(eye + 0.62 * np.cos(t), 0.05 + 0.3 * np.sin(t)) for t in np.linspace(0, 2 * np.pi, 12, False)]
        _fill(scene, [middle + a * half + b * down for a, b in ring], shade)
    _fill(scene, [middle + a * half + b * down for a, b in ((-1, -0.04), (1, -0.04), (1, 0.06), (-1, 0.06))], shade)
