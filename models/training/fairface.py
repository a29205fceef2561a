"""FairFace's faces, cut around the usual template already; CC BY 4.0.

`python -m models.training fairface FOLDER` writes them as pictures and a table, with the data set's own labels:
`bluelamp-provision evaluate --data FOLDER/faces.csv` reads it.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

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


MIDDLES = {
    "0-2": 1, "3-9": 6, "10-19": 14, "20-29": 25, "30-39": 35, "40-49": 45, "50-59": 55, "60-69": 65,
    "more than 70": 75,
}  # fmt: skip
"""Years in the middle of each age band, as a table of whole ages wants them; 10-19 counts as under 18."""


def unpack(part: str, folder: Path, step: int = 1) -> Path:
    """Write every ``step``-th face of a part as a picture, and ``faces.csv``; returns the table's file."""
    folder.mkdir(parents=True, exist_ok=True)
    with np.load(shared_folder() / "data" / "fairface" / f"{part}.npz") as labels:
        rows = [
            (str(labels["sex"][i]), str(labels["age"][i]), str(labels["race"][i])) for i in range(len(labels["sex"]))
        ]
    with (folder / "faces.csv").open("w", newline="", encoding="utf-8") as lines:
        table = csv.writer(lines, lineterminator="\n")
        table.writerow(["image", "identity", "sex", "age", "ethnicity"])
        for number, (picture, (sex, age, ethnicity)) in enumerate(zip(fairface(part, step), rows[::step], strict=True)):
            name = f"{part}_{number * step:05d}.png"
            cv2.imwrite(str(folder / name), picture)
            table.writerow([name, name, sex.lower(), MIDDLES[age], ethnicity.replace("_", " ")])
    return folder / "faces.csv"
