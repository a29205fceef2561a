"""A statistical face model: landmark shape and shape-free texture, learned apart and sampled together.

An active appearance model after Cootes, Edwards and Taylor (1998): every training chip is warped to the mean of
68 landmarks, principal components are taken of the landmarks and of the warped colours, and a new face is a random
point near a group's mean in that space. A sampled face is a mixture of thousands of faces and belongs to nobody;
`demo.measure` checks that. The model itself is never shipped: it stays in the cache folder of whoever makes it.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from demo.arrays import Bytes, Floats, floats

CHIP_WIDTH, CHIP_HEIGHT = 176, 216
EYE_DISTANCE = 64.0
"""Distance between the eye centres of the mean shape, in pixels of the chip."""
_EYE_LINE = 84.0
_CHEEKS = np.s_[96:132, 50:126]
"""Rows and columns of the chip between eyes and mouth."""
_ADULT, _OLDEST = 18, 78
_TRAINING_CHIPS = 3400
_TEXTURE_COMPONENTS = 200
_SHAPE_COMPONENTS = 30
_JAW_BROWS_NOSE = (*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31)
_EYES = (45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40)
_MOUTH = (54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65)
_MIRROR = np.array((*_JAW_BROWS_NOSE, *_EYES, *_MOUTH))
"""Where each of the 68 landmarks goes when the picture is mirrored."""


@dataclass(frozen=True)
class Face:
    """One sampled face: landmarks (68, 2) in chip pixels, texture (CHIP_HEIGHT, CHIP_WIDTH, 3) BGR in `mean_shape`."""

    shape: Floats
    mean_shape: Floats
    texture: Bytes
    female: bool
    age: int
    fair: bool
    """Whether fair hair would suit."""


@dataclass(frozen=True)
class FaceModel:
    """Mean and components of shape and texture, and each training chip's coordinates in them (one row a chip)."""

    mean_shape: Floats
    shape_basis: Floats
    mean_texture: Floats
    texture_basis: Floats
    coordinates: Floats
    ages: NDArray[np.int64]
    sexes: NDArray[np.int64]
    groups: NDArray[np.int64]

    def sample(self, rng: np.random.Generator, sigma: float = 0.75) -> Face:
        """A face near the mean of a random group and age, `sigma` standard deviations out in every direction."""
        group, female, age = int(rng.integers(0, 4)), bool(rng.integers(0, 2)), int(rng.integers(20, 70))
        near = np.abs(self.ages - age) <= 9
        chosen = np.flatnonzero((self.groups == group) & (self.sexes == int(female)) & near)
        if chosen.size < 40:
            chosen = np.flatnonzero((self.groups == group) & (self.sexes == int(female)))
        rows = self.coordinates[chosen]
        centre = rows.mean(axis=0)
        weights = rng.standard_normal(len(rows)) / np.sqrt(len(rows))
        spread = self.coordinates.std(axis=0) * rng.standard_normal(rows.shape[1])
        # Half of the variance follows the group, half the whole population: faces stay typical, yet far apart.
        point = centre + sigma * (np.sqrt(0.5) * (weights @ (rows - centre)) + np.sqrt(0.5) * spread)
        return self.face(point.astype(np.float32), female, age, group == 0, self._skin(centre.astype(np.float32)))

    def _skin(self, point: Floats) -> Floats:
        texture = self.mean_texture + point[self.shape_basis.shape[0] :] @ self.texture_basis
        return floats(texture.reshape(CHIP_HEIGHT, CHIP_WIDTH, 3)[_CHEEKS].mean(axis=(0, 1)))

    def face(self, point: Floats, female: bool, age: int, fair: bool, skin: Floats) -> Face:
        """The face at a point of the model's space, its colour cast drawn towards `skin` (BGR)."""
        split = self.shape_basis.shape[0]
        shape = self.mean_shape + (point[:split] @ self.shape_basis).reshape(68, 2)
        texture = self.mean_texture + point[split:] @ self.texture_basis
        gain = np.clip(skin / np.maximum(self._skin(point), 20), 0.5, 2.0) ** 0.75
        pixels = np.clip(texture.reshape(CHIP_HEIGHT, CHIP_WIDTH, 3) * gain, 0, 255).astype(np.uint8)
        return Face(shape.astype(np.float32), self.mean_shape, pixels, female, age, fair)


def shared_folder() -> Path:
    """Where the training photographs and models lie: $BLUELAMP_SHARED, else `../shared` beside the repository."""
    named = os.environ.get("BLUELAMP_SHARED")
    return Path(named) if named else Path(__file__).resolve().parents[2] / "shared"


def weights(name: str) -> Path:
    """One of dlib's model files, as the package face_recognition_models carries them."""
    spec = importlib.util.find_spec("face_recognition_models")
    if spec is None or spec.origin is None:
        raise RuntimeError("demo.make needs dlib's models: pip install face_recognition_models dlib-bin")
    return Path(spec.origin).parent / "models" / name


def with_forehead(shape: Floats) -> Floats:
    """Landmarks (68, 2) and nine more on the forehead's arc, which follows from the brows and the jaw."""
    left, right, chin = shape[0], shape[16], shape[8]
    centre = (left + right) / 2
    up = (centre - chin) * floats(0.64)
    across = (right - left) / 2
    angles = np.linspace(np.pi, 0, 11)[1:-1, None]
    arc = centre + np.cos(angles) * across * 1.02 + np.sin(angles) * up
    return np.vstack([shape, arc]).astype(np.float32)


class Mesh:
    """Triangles over a shape's landmarks; maps every pixel of a canvas to the same point of another shape."""

    def __init__(self, shape: Floats, width: int, height: int, triangles: NDArray[np.int32]) -> None:
        owner = np.full((height, width), -1, np.int32)
        for number, corners in enumerate(triangles):
            cv2.fillConvexPoly(owner, np.round(shape[corners]).astype(np.int32), number)
        self.inside = owner >= 0
        rows, columns = np.nonzero(self.inside)
        corners = triangles[owner[rows, columns]]
        first, second, third = (shape[corners[:, i]] for i in range(3))
        points = np.stack([columns, rows], axis=1).astype(np.float32)
        second, third, points = second - first, third - first, points - first
        area = second[:, 0] * third[:, 1] - third[:, 0] * second[:, 1]
        area = np.where(np.abs(area) < 1e-3, 1e-3, area)
        beta = (points[:, 0] * third[:, 1] - third[:, 0] * points[:, 1]) / area
        gamma = (second[:, 0] * points[:, 1] - points[:, 0] * second[:, 1]) / area
        self._weights = np.stack([1 - beta - gamma, beta, gamma], axis=1)[..., None]
        self._corners = corners
        self._size = (height, width)

    def warp(self, image: Bytes, shape: Floats) -> Bytes:
        """`image` (BGR), whose landmarks are `shape`, drawn on this mesh's canvas; replicates the border."""
        grid = np.full((*self._size, 2), -10, np.float32)
        grid[self.inside] = (shape[self._corners] * self._weights).sum(axis=1)
        warped = cv2.remap(image, grid[..., 0], grid[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        # Pixels outside the mesh carry no face: left in, they would be the largest variance of all.
        warped[~self.inside] = 0
        return np.asarray(warped, np.uint8)


def triangulate(shape: Floats) -> NDArray[np.int32]:
    """Delaunay triangles (N, 3) over landmarks, as indices."""
    from scipy.spatial import Delaunay

    return np.asarray(Delaunay(shape).simplices, np.int32)


@dataclass(frozen=True)
class _Chip:
    path: Path
    shape: Floats
    """Landmarks in the photograph's pixels."""
    sharpness: float


class LandmarkFinder:
    """YuNet's box and five points, then dlib's 68 landmarks."""

    def __init__(self) -> None:
        import dlib

        self._dlib = dlib
        self._predictor = dlib.shape_predictor(str(weights("shape_predictor_68_face_landmarks.dat")))
        detector = shared_folder() / "models" / "yunet" / "yunet_n_640_640.onnx"
        self._detector = cv2.FaceDetectorYN.create(str(detector), "", (256, 256), 0.7)

    def find(self, image: Bytes) -> Floats | None:
        """Landmarks (68, 2) of the largest face of a BGR image, in its pixels, or None."""
        pad = int(0.3 * max(image.shape[:2]))
        padded = cv2.copyMakeBorder(image, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
        self._detector.setInputSize((padded.shape[1], padded.shape[0]))
        rows = self._detector.detect(padded)[1]
        if rows is None:
            return None
        found_rows = np.asarray(rows, np.float32)
        points = found_rows[int(np.argmax(found_rows[:, 2])), 4:14].reshape(5, 2)
        found = self._predictor(padded[:, :, ::-1].copy(), self._rectangle(points))
        return np.array([(p.x - pad, p.y - pad) for p in found.parts()], np.float32)

    def chip(self, image: Bytes, points: Floats) -> Bytes:
        """dlib's own chip (150, 150, 3), RGB, of the face whose five landmarks (5, 2) are `points`."""
        rgb = image[:, :, ::-1].copy()
        found = self._predictor(rgb, self._rectangle(points))
        return np.asarray(self._dlib.get_face_chip(rgb, found, size=150, padding=0.25), np.uint8)

    def _rectangle(self, points: Floats) -> object:
        """The square dlib's landmarks expect: brows to chin."""
        eyes, mouth = points[:2].mean(axis=0), points[3:].mean(axis=0)
        half = 1.1 * float(np.hypot(*(points[1] - points[0])))
        centre = eyes + 0.6 * (mouth - eyes)
        return self._dlib.rectangle(*(int(v) for v in (*(centre - half), *(centre + half))))


def _adults(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.glob("*.jpg")):
        labels = path.name.split("_")
        if len(labels) >= 4 and labels[2] in "0123" and _ADULT <= int(labels[0]) <= _OLDEST:
            yield path


def _chip(path: Path, finder: LandmarkFinder) -> _Chip | None:
    """The chip's landmarks, or None for a grey, turned, blurred or faceless picture."""
    image = np.asarray(cv2.imread(str(path)), np.uint8)
    if float(cv2.cvtColor(image, cv2.COLOR_BGR2HSV)[..., 1].mean()) < 30:
        return None
    shape = finder.find(image)
    if shape is None:
        return None
    middle = shape[27:31].mean(axis=0)
    left, right = (float(np.hypot(*(middle - shape[i]))) for i in (1, 15))
    opened = float(np.hypot(*(shape[66] - shape[62]))) / float(np.hypot(*(shape[0] - shape[16])))
    if abs(np.log(left / right)) > 0.3 or opened > 0.06:
        return None
    return _Chip(path, shape, float(cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.CV_32F).var()))


def _similarity(shape: Floats, target: Floats) -> Floats:
    """`shape` moved, turned and scaled (least squares) onto `target`."""
    a, b = shape - shape.mean(axis=0), target - target.mean(axis=0)
    z = (a[:, 0] - 1j * a[:, 1]) @ (b[:, 0] + 1j * b[:, 1]) / (a**2).sum()
    turn = np.array([[z.real, z.imag], [-z.imag, z.real]])
    return np.asarray(a @ turn + target.mean(axis=0), np.float32)


def _mean_shape(shapes: list[Floats]) -> Floats:
    """Procrustes mean of shapes, mirror-symmetric, upright, with the eyes where the chip wants them."""
    mean = shapes[0]
    for _ in range(4):
        mean = np.mean([_similarity(s, mean) for s in shapes], axis=0).astype(np.float32)
        mirrored = mean[_MIRROR] * floats([-1, 1])
        mean = (mean + _similarity(mirrored, mean)) / 2
    eyes = np.stack([mean[36:42].mean(axis=0), mean[42:48].mean(axis=0)])
    across = eyes[1] - eyes[0]
    z = EYE_DISTANCE / complex(float(across[0]), float(across[1]))
    flat = ((mean[:, 0] - eyes[:, 0].mean()) + 1j * (mean[:, 1] - eyes[:, 1].mean())) * z
    return np.stack([flat.real + CHIP_WIDTH / 2, flat.imag + _EYE_LINE], axis=1).astype(np.float32)


def _evenly_lit(texture: Bytes) -> Bytes:
    """The same texture with its slow left-right shading averaged away: the scene adds its own light."""
    slow = cv2.GaussianBlur(texture.astype(np.float32), (0, 0), 22)
    even = texture + 0.5 * (slow[:, ::-1] - slow)
    return np.asarray(np.clip(even, 0, 255), np.uint8)


def _components(rows: NDArray[np.uint8], count: int) -> tuple[Floats, Floats, Floats]:
    """Mean, leading components (count, D) and coordinates (N, count) of rows (N, D), through the Gram matrix."""
    mean = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    gram = np.zeros((len(rows), len(rows)), np.float32)
    for start in range(0, rows.shape[1], 8192):
        part = rows[:, start : start + 8192].astype(np.float32) - mean[start : start + 8192]
        gram += part @ part.T
    values, vectors = np.linalg.eigh(gram)
    values, vectors = values[::-1][:count], vectors[:, ::-1][:, :count]
    basis = np.empty((count, rows.shape[1]), np.float32)
    for start in range(0, rows.shape[1], 8192):
        part = rows[:, start : start + 8192].astype(np.float32) - mean[start : start + 8192]
        basis[:, start : start + 8192] = (vectors.T @ part) / np.sqrt(values)[:, None]
    return mean, basis, (vectors * np.sqrt(values)).astype(np.float32)


def _typical(rows: NDArray[np.uint8], keep: int) -> NDArray[np.int64]:
    """The rows that a few components explain best: leaves out hands, microphones, spectacles and watermarks."""
    small = np.stack([cv2.resize(r.reshape(CHIP_HEIGHT, CHIP_WIDTH, 3), (44, 54)).ravel() for r in rows])
    mean, basis, coordinates = _components(small, 60)
    missed = np.square(small - mean - coordinates @ basis).mean(axis=1)
    return np.sort(np.argsort(missed)[:keep])


def learn(progress: Iterable[Path] | None = None) -> FaceModel:
    """Learn the model from `../shared/data/utk`; `progress` may wrap the paths to show how far it is."""
    finder = LandmarkFinder()
    paths = progress if progress is not None else training_paths()
    chips = [chip for chip in (_chip(path, finder) for path in paths) if chip is not None]
    chips.sort(key=lambda chip: -chip.sharpness)
    chips = sorted(chips[: int(_TRAINING_CHIPS * 1.3)], key=lambda chip: chip.path.name)
    mean = _mean_shape([chip.shape for chip in chips])
    outline = with_forehead(mean)
    mesh = Mesh(outline, CHIP_WIDTH, CHIP_HEIGHT, triangulate(outline))
    rows = np.stack([_texture(chip, mesh).ravel() for chip in chips])
    kept = _typical(rows, _TRAINING_CHIPS)
    chips, rows = [chips[i] for i in kept], rows[kept]
    mean_texture, texture_basis, texture = _components(rows, _TEXTURE_COMPONENTS)
    offsets = np.stack([(_similarity(chip.shape, mean) - mean).ravel() for chip in chips])
    _, directions = np.linalg.eigh(offsets.T @ offsets)
    shape_basis = np.ascontiguousarray(directions[:, ::-1][:, :_SHAPE_COMPONENTS].T, np.float32)
    labels = np.array([[int(v) for v in chip.path.name.split("_")[:3]] for chip in chips])
    coordinates = np.hstack([offsets @ shape_basis.T, texture]).astype(np.float32)
    return FaceModel(
        mean, shape_basis, mean_texture, texture_basis, coordinates, labels[:, 0], labels[:, 1], labels[:, 2]
    )


def training_paths() -> list[Path]:
    """The photographs of adults the model learns from."""
    folder = shared_folder() / "data" / "utk"
    if not folder.is_dir():
        raise FileNotFoundError(f"no photographs at {folder}: set BLUELAMP_SHARED to the folder that holds data/utk")
    return list(_adults(folder))


def _texture(chip: _Chip, mesh: Mesh) -> Bytes:
    image = np.asarray(cv2.imread(str(chip.path)), np.uint8)
    return _evenly_lit(mesh.warp(image, with_forehead(chip.shape)))


def load(path: Path) -> FaceModel:
    """Read a model written by `save`."""
    with np.load(path) as arrays:
        return FaceModel(**{name: arrays[name] for name in arrays.files})


def save(model: FaceModel, path: Path) -> None:
    """Write the model beside its final name, then rename: a broken run leaves no half model."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, **{name: getattr(model, name) for name in FaceModel.__dataclass_fields__})
    partial.rename(path)
