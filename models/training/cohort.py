"""The fixed cohort of cohort normalisation: directions in which many faces lie, and no one's template.

Each row is the mean of the templates of ten or more different adults of the training sides of FairFace and UTKFace,
grouped by nearness (k-means), scaled to length one. A reference near such a mean resembles many people. No row can be
led back to a person, so a pack may carry them where it may not carry templates.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import numpy as np
import numpy.typing as npt
from rich.progress import track

from appliance.recognition.align import chip
from appliance.recognition.embed import Embedder, unit
from appliance.recognition.packs import Pack
from models.training.chips import TEACHER_LANDMARKS, Picture, Points
from models.training.faces import utk_adults
from models.training.fairface import fairface
from models.training.match_faces import CANVAS, SIDE
from models.training.sources import shared_folder

Floats = npt.NDArray[np.float32]
LEAST = 10  # people that a row is the mean of
_CHILDREN = ("0-2", "3-9", "10-19")
_ROUNDS = 15
FILE = "cohort.npy"


def write_cohort(pack: Pack, groups: int, steps: tuple[int, int], seed: int) -> int:
    """Write the cohort of every n-th training adult of FairFace and of UTKFace beside a pack; returns its rows."""
    rows = means(adult_templates(pack, steps), groups, seed)
    with (pack.folder / FILE).open("wb") as file:
        np.save(file, rows.astype(np.float16))
    return len(rows)


def adult_templates(pack: Pack, steps: tuple[int, int]) -> Floats:
    """(n, length) templates of every n-th adult of FairFace, then of UTKFace, at YuNet's alignment."""
    embedder = Embedder(pack)
    faces = track(chain(_fairface_adults(steps[0]), utk_adults(steps[1])), "cohort")
    cut = (
        chip(face, np.asarray(points, np.float32), embedder.landmarks, embedder.width, embedder.height)
        for face, points in faces
    )
    return np.concatenate([embedder.embed(each[None]) for each in cut])


def _fairface_adults(step: int) -> Iterator[tuple[Picture, Points]]:
    usual = TEACHER_LANDMARKS + (CANVAS - SIDE) / 2
    with np.load(shared_folder() / "data" / "fairface" / "train.npz") as labels:
        adult = ~np.isin(labels["age"][::step], _CHILDREN)
    for face, kept in zip(fairface("train", step), adult, strict=True):
        if kept:
            yield face, usual


def means(templates: Floats, groups: int, seed: int) -> Floats:
    """Means of templates (n, length), unit length, of the groups that hold LEAST or more; at most ``groups`` rows."""
    rng = np.random.default_rng(seed)
    centres = templates[rng.choice(len(templates), min(groups, len(templates)), replace=False)]
    for _ in range(_ROUNDS):
        nearest = (templates @ centres.T).argmax(1)
        held = np.bincount(nearest, minlength=len(centres))
        totals = np.zeros_like(centres)
        np.add.at(totals, nearest, templates)
        centres = unit(np.where(held[:, None] > 0, totals, centres))
    nearest = (templates @ centres.T).argmax(1)
    held = np.bincount(nearest, minlength=len(centres))
    kept = [unit(templates[nearest == group].mean(0, keepdims=True)) for group in np.flatnonzero(held >= LEAST)]
    return np.concatenate(kept)
