"""False matches by group: held-out faces of UTKFace, compared within one sex, ethnicity or band of age as labelled.

The threshold is the one that gives the named rate over all pairs of LFW's held-out photographs. Two photographs that
the teacher scores above 0.5 are taken to show one face and do not count. UTKFace has one photograph of nearly
everybody, so mated comparisons, and with them false non-matches, cannot be given by group.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from appliance.recognition.packs import Pack
from models.training.faces import load_faces
from models.training.figures import verification
from models.training.measure import Embed, canvas_chips, lfw_chips, templates

Floats = npt.NDArray[np.float32]

SEXES = ("male", "female")
ETHNICITIES = ("White", "Black", "Asian", "Indian", "other")
AGES = ((0, 17), (18, 39), (40, 59), (60, 130))
_SAME_FACE = 0.5


@dataclass(frozen=True)
class GroupRate:
    """Share of a group's non-mated pairs above the threshold."""

    group: str
    faces: int
    pairs: int
    rate: float


def group_rates(embed: Embed, pack: Pack, rate: float = 1e-3) -> list[GroupRate]:
    """One row for each group, and one for all faces together."""
    lfw, utk = load_faces("lfw"), load_faces("utk")
    lfw, utk = lfw.part(lfw.held_out), utk.part(utk.held_out)
    limit = verification(templates(embed, lfw_chips(lfw, pack), "LFW"), lfw.identities, (rate,)).thresholds[rate]
    found = templates(embed, canvas_chips(utk, pack), "UTKFace")
    return [_rate(group, found[rows], utk.templates[rows], limit) for group, rows in groups(utk.names.tolist()).items()]


def groups(names: list[str]) -> dict[str, npt.NDArray[np.intp]]:
    """Rows of UTKFace's file names (AGE_SEX_ETHNICITY_DATE) by group; a name that lacks a label is in none."""
    labels = [name.split("_") for name in names]
    whole = [row for row, label in enumerate(labels) if len(label) >= 4]
    age, sex, ethnicity = (np.array([int(labels[row][part]) for row in whole]) for part in range(3))
    rows = np.array(whole, dtype=np.intp)
    found = {"all": rows}
    found |= {name: rows[sex == value] for value, name in enumerate(SEXES)}
    found |= {name: rows[ethnicity == value] for value, name in enumerate(ETHNICITIES)}
    found |= {f"age {low} to {high}": rows[(age >= low) & (age <= high)] for low, high in AGES}
    return found


def _rate(group: str, found: Floats, teacher: Floats, limit: float) -> GroupRate:
    above = np.triu(np.ones((len(found), len(found)), dtype=bool), 1)
    counted = above & (teacher @ teacher.T <= _SAME_FACE)
    passed = counted & (found @ found.T > limit)
    return GroupRate(group, len(found), int(counted.sum()), float(passed.sum() / max(counted.sum(), 1)))
