"""Faces for function matching: 144 x 144 canvases around the usual 112 x 112 template, of every set that may train.

LFW's and UTKFace's training sides are cut here; FairFace comes cut so. LFW's held-out side draws the curve.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.progress import track

from models.training.chips import TEACHER_LANDMARKS, Picture, align
from models.training.faces import load_pictures
from models.training.fairface import fairface
from models.training.sources import cache_folder

CANVAS, SIDE = 144, 112
_EDGE = (CANVAS - SIDE) // 2


@dataclass(frozen=True)
class MatchFaces:
    """Canvases (n, 144, 144, 3) uint8 BGR that train; those that measure, and whose they are."""

    train: Picture
    measured: Picture
    identities: npt.NDArray[np.str_]


def load_match_faces(file: Path | None = None, most: int | None = None) -> MatchFaces:
    """From the cache, or cut now; at most ``most`` of each set. Raises SourceError without the data."""
    file = file or cache_folder() / f"match_faces{'' if most is None else f'_{most}'}.npz"
    if not file.is_file():
        _cut(file, most)
    with np.load(file) as stored:
        return MatchFaces(stored["train"], stored["measured"], stored["identities"])


def _cut(file: Path, most: int | None) -> None:
    training: list[Picture] = []
    measured: list[Picture] = []
    identities: list[str] = []
    for source in ("lfw", "utk"):
        taken = {False: 0, True: 0}
        for identity, held, picture, points in track(load_pictures(source), f"cutting {source}"):
            if most is not None and min(taken.values() if source == "lfw" else [taken[False]]) >= most:
                break
            if (held and source != "lfw") or (most is not None and taken[held] >= most):
                continue
            taken[held] += 1
            canvas = align(picture, points, TEACHER_LANDMARKS + _EDGE, CANVAS)
            (measured if held else training).append(canvas)
            identities += [identity] * held
    training += list(_first(fairface("train"), most))
    unfinished = file.with_suffix(".part.npz")
    np.savez(unfinished, train=np.stack(training), measured=np.stack(measured), identities=np.array(identities))
    unfinished.rename(file)


def _first(pictures: Iterator[Picture], most: int | None) -> Iterator[Picture]:
    for number, picture in enumerate(pictures):
        if most is not None and number >= most:
            return
        yield picture
