"""FairFace's faces, cut around the usual template already; CC BY 4.0."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from models.training.chips import Picture
from models.training.sources import SourceError, shared_folder


def fairface(part: str, step: int = 1) -> Iterator[Picture]:
    """Every ``step``-th canvas (144, 144, 3) uint8 BGR of FairFace's ``train`` or ``val``."""
    folder = shared_folder() / "data" / "fairface"
    if not (folder / f"{part}.bin").is_file():
        raise SourceError(f"no faces at {folder / part}.bin: the shared folder lacks FairFace")
    content = (folder / f"{part}.bin").read_bytes()
    with np.load(folder / f"{part}.npz") as labels:
        ends = labels["off"]
    for row in range(0, len(ends) - 1, step):
        coded = np.frombuffer(content[ends[row] : ends[row + 1]], np.uint8)
        yield np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), dtype=np.uint8)
