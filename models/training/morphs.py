"""More faces than there are photographs: mixtures of two training faces, bent a little, labelled by the teacher.

The teacher can label any chip, so a face that belongs to no one is as good a lesson as a photograph. Two canvases are
bent to common landmarks (themselves moved at random), matched in colour, and mixed by a smooth random mask: the eyes
may come from one and the mouth from the other. Made in shards; shard k of a seed is always the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
from rich.progress import track

from models.training.chips import CANVAS, CANVAS_LANDMARKS, Picture, Points, align, moved, similarity
from models.training.faces import FaceSet
from models.training.teacher import Teacher, teacher_view

SHARD = 2000
_BEND_WIDTH = 30.0  # pixels over which a landmark's move dies away
_LANDMARK_NOISE = 2.2  # pixels, standard deviation
_NEIGHBOURS = 40  # among so many random partners the most alike is taken half the time
_STEP = 4  # the bend is worked out on every fourth pixel and drawn out between
_GRID = np.stack(np.meshgrid(np.arange(CANVAS), np.arange(CANVAS)), axis=-1).astype(np.float32)
_COARSE = np.stack(np.meshgrid(*2 * [(np.arange(CANVAS // _STEP) + 0.5) * _STEP - 0.5]), axis=-1)


@dataclass(frozen=True)
class MorphShard:
    """Canvases (N, 152, 152, 3) uint8 BGR and the teacher's templates for them (N, 128)."""

    canvases: Picture
    templates: npt.NDArray[np.float32]


def shard_file(cache: Path, seed: int, index: int) -> Path:
    """Where shard ``index`` of ``seed`` lies."""
    return cache / f"morphs_{seed}_{index:03d}.npz"


def make_shard(faces: FaceSet, teacher: Teacher, seed: int, index: int, size: int = SHARD) -> MorphShard:
    """``size`` mixtures of ``faces`` (training faces only), labelled."""
    rng = np.random.default_rng([seed, index])
    canvases = np.empty((size, CANVAS, CANVAS, 3), np.uint8)
    views = np.empty((size, 112, 112, 3), np.uint8)
    for row in track(range(size), f"mixing shard {index}"):
        one, two = _pair(faces, rng)
        canvas, points = mixture(faces.canvases[one], faces.points[one], faces.canvases[two], faces.points[two], rng)
        canvases[row] = canvas
        views[row] = teacher_view(canvas, points)
    return MorphShard(canvases, teacher.templates(views, mirrored=False))


def mixture(
    first: Picture, first_points: Points, second: Picture, second_points: Points, rng: np.random.Generator
) -> tuple[Picture, Points]:
    """A face between two canvases (152, 152, 3), aligned again, and its landmarks (5, 2) in it."""
    share = rng.uniform(0.25, 0.75)
    points = (1 - share) * first_points + share * second_points
    points = points + rng.normal(0, _LANDMARK_NOISE, points.shape)
    one = _bent(first, first_points, points)
    two = _recoloured(_bent(second, second_points, points), one, rng.uniform(0, 1))
    mask = _mask(share, rng)
    mixed = (one * (1 - mask) + two * mask).clip(0, 255).astype(np.uint8)
    transform = similarity(points, CANVAS_LANDMARKS)
    return align(mixed, points, CANVAS_LANDMARKS, CANVAS), moved(points, transform)


def _pair(faces: FaceSet, rng: np.random.Generator) -> tuple[int, int]:
    """Two faces; half the time of like looks, since mixtures of those look least like mixtures."""
    one = int(rng.integers(len(faces.names)))
    others = rng.integers(len(faces.names), size=_NEIGHBOURS)
    others = others[faces.identities[others] != faces.identities[one]]
    if rng.random() < 0.5:
        return one, int(others[0])
    return one, int(others[(faces.templates[others] @ faces.templates[one]).argmax()])


def _bent(canvas: Picture, source: Points, target: Points) -> npt.NDArray[np.float32]:
    """The canvas with its points ``source`` moved to ``target``; bent smoothly between, unmoved far away."""
    kernel = np.exp(-_squares(target[:, None] - target[None]) / (2 * _BEND_WIDTH**2))
    weights = np.linalg.solve(kernel + 1e-3 * np.eye(len(target)), source - target)
    field = np.exp(-_squares(_COARSE[:, :, None] - target) / (2 * _BEND_WIDTH**2)) @ weights
    where = _GRID + cv2.resize(field.astype(np.float32), (CANVAS, CANVAS))
    bent = cv2.remap(canvas, where[..., 0], where[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(bent, dtype=np.float32)


def _squares(offsets: Points) -> Points:
    return cast(Points, (offsets**2).sum(axis=-1))


def _recoloured(
    canvas: npt.NDArray[np.float32], like: npt.NDArray[np.float32], strength: float
) -> npt.NDArray[np.float32]:
    """``canvas`` with its mean and spread of each colour moved towards those of ``like``."""
    inner = np.s_[40:140, 28:124]
    mean, spread = canvas[inner].mean((0, 1)), canvas[inner].std((0, 1)) + 1
    goal_mean, goal_spread = like[inner].mean((0, 1)), like[inner].std((0, 1)) + 1
    gain = (goal_spread / spread).clip(0.6, 1.6)
    return canvas + strength * ((canvas - mean) * gain + goal_mean - canvas)


def _mask(share: float, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """(152, 152, 1) in 0..1, smooth: half the time nearly even, half the time parts of the face from either."""
    roughness = rng.choice([0.1, 0.8])
    coarse = share + roughness * rng.normal(0, 1, (5, 5))
    mask = cv2.resize(coarse.astype(np.float32), (CANVAS, CANVAS), interpolation=cv2.INTER_CUBIC)
    return np.asarray(mask, dtype=np.float32).clip(0, 1)[..., None]


def load_shard(file: Path) -> MorphShard:
    """A shard from the cache."""
    with np.load(file) as stored:
        return MorphShard(stored["canvases"], stored["templates"])


def save_shard(shard: MorphShard, file: Path) -> None:
    """Write whole or not at all."""
    unfinished = file.with_suffix(".part.npz")
    np.savez(unfinished, canvases=shard.canvases, templates=shard.templates)
    unfinished.rename(file)
