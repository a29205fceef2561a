"""The fixed cohort of cohort normalisation: directions in which many faces lie, and no one's template.

Each row is the mean of the templates of ten or more different adults of FairFace's training part, grouped by nearness
(k-means), scaled to length one. A reference near such a mean resembles many people. No row can be led back to a
person, so a pack may carry them where it may not carry templates.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from rich.progress import track

from appliance.align import chip
from appliance.embed import Embedder, unit
from appliance.packs import Pack
from models.training.chips import TEACHER_LANDMARKS
from models.training.fairface import fairface
from models.training.match_faces import CANVAS, SIDE
from models.training.sources import shared_folder

Floats = npt.NDArray[np.float32]
LEAST = 10  # people that a row is the mean of
_CHILDREN = ("0-2", "3-9", "10-19")
_ROUNDS = 15
FILE = "cohort.npy"


def write_cohort(pack: Pack, groups: int, step: int, seed: int) -> int:
    """Write the cohort of every ``step``-th adult of FairFace's training faces beside a pack; returns its rows."""
    rows = means(adult_templates(pack, step), groups, seed)
    with (pack.folder / FILE).open("wb") as file:
        np.save(file, rows.astype(np.float16))
    return len(rows)


def adult_templates(pack: Pack, step: int, part: str = "train") -> Floats:
    """(n, length) templates of every ``step``-th canvas whose label is an adult's, at YuNet's alignment."""
    embedder, usual = Embedder(pack), np.asarray(TEACHER_LANDMARKS + (CANVAS - SIDE) / 2, np.float32)
    with np.load(shared_folder() / "data" / "fairface" / f"{part}.npz") as labels:
        adult = ~np.isin(labels["age"][::step], _CHILDREN)
    faces = zip(track(fairface(part, step), "cohort", total=len(adult)), adult, strict=True)
    chips = (chip(face, usual, embedder.landmarks, embedder.width, embedder.height) for face, kept in faces if kept)
    return np.concatenate([embedder.embed(each[None]) for each in chips])


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
