"""What one training run learns from: real faces and mixtures, with their teacher's templates, and batches of them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.training.chips import DLIB_WIDTH, Picture
from models.training.degrade import student_view
from models.training.faces import FaceSet, load_faces
from models.training.morphs import load_shard, shard_file
from models.training.sources import SourceError

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Batch:
    """Chips (N, 150, 150, 3) uint8 BGR as the student sees them; templates (N, 128) that it should give."""

    chips: Picture
    templates: Floats
    origins: Floats


@dataclass(frozen=True)
class Lessons:
    """Real canvases and mixed ones with their targets; ``bank`` (M, 128) holds the real faces' targets."""

    real: Picture
    real_templates: Floats
    mixed: tuple[Picture, ...]
    mixed_templates: tuple[Floats, ...]
    real_origins: Floats

    @property
    def bank(self) -> Floats:
        return self.real_templates

    def batch(self, step: int, size: int, seed: int, mixed_share: float, clean_share: float) -> Batch:
        """The batch of ``step``: the same for the same arguments, whatever came before."""
        rng = np.random.default_rng([seed, step])
        chips = np.empty((size, DLIB_WIDTH, DLIB_WIDTH, 3), np.uint8)
        templates = np.empty((size, self.real_templates.shape[1]), np.float32)
        origins = np.empty((size, self.real_origins.shape[1]), np.float32)
        for row in range(size):
            canvas, templates[row], origins[row] = self._draw(rng, mixed_share)
            chips[row] = student_view(canvas, rng, clean_share)
        return Batch(chips, templates, origins)

    def _draw(self, rng: np.random.Generator, mixed_share: float) -> tuple[Picture, Floats, Floats]:
        if self.mixed and rng.random() < mixed_share:
            shard = int(rng.integers(len(self.mixed)))
            row = int(rng.integers(len(self.mixed[shard])))
            unasked = np.full(self.real_origins.shape[1], np.nan, np.float32)
            return self.mixed[shard][row], self.mixed_templates[shard][row], unasked
        row = int(rng.integers(len(self.real)))
        return self.real[row], self.real_templates[row], self.real_origins[row]


def training_faces() -> FaceSet:
    """Every real face whose identity trains, of all sets."""
    return _joined([faces.part(~faces.held_out) for faces in map(load_faces, ("lfw", "utk"))])


def _joined(sets: list[FaceSet]) -> FaceSet:
    return FaceSet(
        *(np.concatenate([getattr(faces, field) for faces in sets]) for field in FaceSet.__dataclass_fields__)
    )


def load_lessons(
    cache: Path, shards: int, seed: int, label_share: float, origins: Callable[[Picture], Floats]
) -> Lessons:
    """Training faces and the first ``shards`` shards of mixtures; raises SourceError when a shard is missing.

    ``origins`` gives dlib's own templates (N, 128) of clean chips; asked once, then kept in ``cache``.
    """
    faces = training_faces()
    files = [shard_file(cache, seed, index) for index in range(shards)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise SourceError(f"{missing[0]} is missing: run python -m models.training embedder morphs --shards {shards}")
    loaded = [load_shard(file) for file in files]
    return Lessons(
        faces.canvases,
        labelled_targets(faces.templates, faces.identities, label_share),
        tuple(shard.canvases for shard in loaded),
        tuple(shard.templates for shard in loaded),
        towards_mean(_cached(cache / "origins.npy", faces.canvases, origins), faces.identities, label_share),
    )


def _cached(file: Path, canvases: Picture, make: Callable[[Picture], Floats]) -> Floats:
    if not file.is_file():
        np.save(file, make(canvases))
    return np.asarray(np.load(file), np.float32)


def towards_mean(templates: Floats, identities: npt.NDArray[np.str_], share: float) -> Floats:
    """`labelled_targets` for templates whose length means something: nothing is scaled."""
    _, group, counts = np.unique(identities, return_inverse=True, return_counts=True)
    means = np.zeros((len(counts), templates.shape[1]), np.float32)
    np.add.at(means, group, templates)
    means /= counts[:, None]
    return np.asarray((1 - share) * templates + share * means[group], np.float32)


def labelled_targets(templates: Floats, identities: npt.NDArray[np.str_], share: float) -> Floats:
    """Each template moved towards its identity's mean by ``share``: a target with less of the photograph in it."""
    _, group = np.unique(identities, return_inverse=True)
    means = np.zeros((group.max() + 1, templates.shape[1]), np.float32)
    np.add.at(means, group, templates)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    mixed = (1 - share) * templates + share * means[group]
    return np.asarray(mixed / np.linalg.norm(mixed, axis=1, keepdims=True), dtype=np.float32)


class Prefetch:
    """Batches in order, made by threads a little ahead of their use; leave the ``with`` block to stop them."""

    def __init__(self, lessons: Lessons, first: int, size: int, seed: int, shares: tuple[float, float]) -> None:
        self._make = lambda step: lessons.batch(step, size, seed, *shares)
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._waiting: list[Future[Batch]] = []
        self._next = first

    def __enter__(self) -> Prefetch:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def take(self) -> Batch:
        """The next batch."""
        while len(self._waiting) < 4:
            self._waiting.append(self._pool.submit(self._make, self._next))
            self._next += 1
        return self._waiting.pop(0).result()
