"""Real photographs to compose deployments from: which stills, whose, and where the face lies in each."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from demo.arrays import Bytes

_LEAST_SCORE = 0.85
_LEAST_EYES = 30.0


@dataclass(frozen=True)
class Still:
    """A photograph of an identity; `box` is the detector's face box in it: x, y, width, height (pixels)."""

    identity: str
    path: Path
    box: tuple[float, float, float, float]

    def read(self) -> Bytes:
        """The photograph, BGR."""
        picture = cv2.imread(str(self.path))
        if picture is None:
            raise FileNotFoundError(f"cannot read {self.path}: set BLUELAMP_SHARED to the folder that holds data/")
        return np.asarray(picture, np.uint8)


def data_folder() -> Path:
    """`$BLUELAMP_DATA`, else `$BLUELAMP_SHARED/data`, else `../shared/data` beside the repository."""
    if named := os.environ.get("BLUELAMP_DATA"):
        return Path(named)
    shared = os.environ.get("BLUELAMP_SHARED")
    return (Path(shared) if shared else Path(__file__).resolve().parents[2] / "shared") / "data"


def walking_stills(held_out_only: bool) -> dict[str, list[Still]]:
    """Stills of LFW by identity, both names of one known identity under the first; small or doubtful faces left out.

    `held_out_only` keeps the identities that no training of the project may see (`models.training.split`).
    """
    from models.training.split import held_out, overlap_aliases

    folder = data_folder()
    aliases = overlap_aliases(folder / "labels" / "lfw_overlaps.csv")
    with np.load(folder / "labels" / "lfw.npz") as arrays:
        names, rows = arrays["name"], arrays["yunet"]
    stills: dict[str, list[Still]] = {}
    for name, row in zip(names.tolist(), rows, strict=True):
        known = str(name).rsplit("_", 1)[0]
        identity = aliases.get(known, known)
        if row[14] < _LEAST_SCORE or np.hypot(*(row[6:8] - row[4:6])) < _LEAST_EYES:
            continue
        if held_out_only and not held_out(known, aliases):
            continue
        x, y, width, height = (float(v) for v in row[:4])
        still = Still(identity, folder / "lfw" / known / f"{name}.jpg", (x, y, width, height))
        stills.setdefault(identity, []).append(still)
    return stills


def distractor_paths(count: int, rng: np.random.Generator) -> list[Path]:
    """`count` photographs of UTKFace to fill a watchlist up with, in random order."""
    paths = sorted((data_folder() / "utk").glob("*.jpg"))
    if count > len(paths):
        raise ValueError(f"only {len(paths)} photographs can fill the watchlist up, {count} asked for: ask for fewer")
    return [paths[i] for i in rng.permutation(len(paths))[:count]]


def bordered(path: Path) -> Bytes:
    """A UTKFace photograph with 30 % of its border repeated: its faces fill it, and detectors want room around."""
    picture = np.asarray(cv2.imread(str(path)), np.uint8)
    margin = int(0.3 * max(picture.shape[:2]))
    return np.asarray(cv2.copyMakeBorder(picture, *(margin,) * 4, cv2.BORDER_REPLICATE), np.uint8)
