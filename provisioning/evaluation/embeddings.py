"""Every still's template, made once for each pair of packs and kept in a cache.

The cache is keyed by what a template depends on: the digests of both packs and of the image file, and the border. It
is written in blocks, so an interrupted run goes on where it stopped. It holds templates of faces: it belongs under
`.cache/`, on the machine that holds the photographs, and is deleted with them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from appliance.recognition import align
from appliance.recognition.detect import Detector
from appliance.recognition.embed import Embedder, unit
from appliance.recognition.packs import Pack
from appliance.recognition.quality import assess
from appliance.records import Face, Floats, Image
from provisioning.evaluation.dataset import ROOT, Dataset, Still

BLOCK = 64  # stills written together: what an interruption costs at most
MIRROR = " mirror"  # added to the key of a mirror image's row
CACHE = ROOT / ".cache" / "evaluation"
CONDITIONS = ("interocular", "sharpness", "yaw", "exposure", "quality", "brightness", "detection")


@dataclass(frozen=True)
class Templates:
    """Rows in the data set's order; a row where `found` is False (no face, or no image) is all zero.

    `plain` is (n, length), templates of unit length; `mirrored` those of the chips' mirror images, where they were
    asked for. `conditions` is (n, 7), columns as in CONDITIONS: the four of appliance.recognition.quality and their
    joint value, the mean grey level of the chip (0 to 255), the detector's score.
    """

    plain: Floats
    found: npt.NDArray[np.bool_]
    conditions: Floats
    mirrored: Floats | None = None

    def averaged(self) -> Floats:
        """Templates of both chips, averaged: (n, length), unit length; the plain ones where there are no others."""
        return self.plain if self.mirrored is None else unit(self.plain + self.mirrored)

    def condition(self, name: str) -> Floats:
        """(n,) one of CONDITIONS."""
        return self.conditions[:, CONDITIONS.index(name)]


def embed(
    dataset: Dataset, detector: Pack, embedder: Pack, cache: Path = CACHE, threads: int = 1, mirror: bool = False
) -> Templates:
    """Templates of every still, from the cache where they are there. Raises PackError.

    `mirror` also embeds each chip's mirror image, which doubles the embedder's time.
    """
    folder = cache / f"{embedder.digest[:16]}-{detector.digest[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    keys = [f"{digest} {still.border}" for still, digest in zip(dataset.stills, dataset.digests, strict=True)]
    known = _cached(folder)
    kinds = ("", MIRROR) if mirror else ("",)
    missing = {k: s for k, s in zip(keys, dataset.stills, strict=True) if any(k + kind not in known for kind in kinds)}
    maker = _Maker(detector, embedder, threads, mirror)
    with _bar() as bar:
        task = bar.add_task("templates", total=len(missing))
        for block in _blocks(missing):
            known |= _made(folder, block, maker)
            bar.advance(task, len(block))
    plain, found, conditions = (np.stack(c) for c in zip(*(known[k] for k in keys), strict=True))
    mirrored = np.stack([known[k + MIRROR][0] for k in keys]) if mirror else None
    return Templates(plain, found, conditions, mirrored)


def locate(image: Image, border: float, detector: Detector) -> tuple[Face | None, Image]:
    """The still's own face (large and near the middle) and the image with its border, in whose pixels it stands.

    A still in which nothing is found as it is, is searched again with a replicated border of 30 %: a detector does not
    find a face that fills the picture.
    """
    for share in dict.fromkeys((border, border or 0.3)):
        padded = _bordered(image, share)
        faces = detector.detect(padded)
        if faces:
            middle = np.array(padded.shape[1::-1], np.float32) / 2
            return max(faces, key=lambda f: f.box[2] - np.hypot(*(f.box[:2] + f.box[2:] / 2 - middle))), padded
    return None, image


Row = tuple[Floats, bool, Floats]


class _Maker:
    """The two packs, opened when the first still is not in the cache."""

    def __init__(self, detector: Pack, embedder: Pack, threads: int, mirror: bool) -> None:
        self._packs, self._threads, self._mirror = (detector, embedder), threads, mirror
        self._open: tuple[Detector, Embedder] | None = None
        self._nothing: Row = (
            np.zeros(embedder.embedder.length, np.float32), False, np.zeros(len(CONDITIONS), np.float32)
        )  # fmt: skip

    def rows(self, key: str, still: Still) -> dict[str, Row]:
        """The still's row, and its mirror image's if wanted, under their keys."""
        detector, embedder = self._opened()
        image = cv2.imread(str(still.image), cv2.IMREAD_COLOR)
        face, padded = (None, None) if image is None else locate(cast(Image, image), still.border, detector)
        keys = (key, key + MIRROR) if self._mirror else (key,)
        if face is None or padded is None:
            return dict.fromkeys(keys, self._nothing)
        chip = align.chip(padded, face.landmarks, embedder.landmarks, embedder.width, embedder.height)
        templates = embedder.embed(np.stack([chip, chip[:, ::-1]][: len(keys)]))
        return {k: (template, True, measure(padded, face, chip)) for k, template in zip(keys, templates, strict=True)}

    def _opened(self) -> tuple[Detector, Embedder]:
        if self._open is None:
            detector, embedder = self._packs
            self._open = Detector(detector, 40.0, 0.5, threads=self._threads), Embedder(embedder, self._threads)
        return self._open


def measure(image: Image, face: Face, chip: Image) -> Floats:
    """(7,) conditions of one face of an image; see Templates."""
    found = assess(image, face)
    return np.array(
        [found.interocular, found.sharpness, found.yaw, found.exposure, found.value, chip.mean(), face.score],
        np.float32,
    )


def _made(folder: Path, block: dict[str, Still], maker: _Maker) -> dict[str, Row]:
    """Make the rows of a block and write them, whole or not at all."""
    rows: dict[str, Row] = {}
    for key, still in block.items():
        rows |= maker.rows(key, still)
    templates, found, conditions = (np.stack(c) for c in zip(*rows.values(), strict=True))
    path = folder / f"{hashlib.sha256(' '.join(rows).encode()).hexdigest()[:32]}.npz"
    part = path.with_suffix(f".{os.getpid()}.part")
    with part.open("wb") as file:
        np.savez(file, keys=list(rows), templates=templates, found=found, conditions=conditions)
    part.replace(path)
    return rows


def _cached(folder: Path) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    for path in folder.glob("*.npz"):
        with np.load(path, allow_pickle=False) as arrays:
            columns = (arrays[name] for name in ("templates", "found", "conditions"))
            rows.update(zip(arrays["keys"].tolist(), zip(*columns, strict=True), strict=True))
    return rows


def _blocks(stills: dict[str, Still]) -> Iterator[dict[str, Still]]:
    keys = list(stills)
    for start in range(0, len(keys), BLOCK):
        yield {key: stills[key] for key in keys[start : start + BLOCK]}


def _bordered(image: Image, share: float) -> Image:
    if not share:
        return image
    y, x = (round(side * share) for side in image.shape[:2])
    return np.asarray(cv2.copyMakeBorder(image, y, y, x, x, cv2.BORDER_REPLICATE), np.uint8)


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),  # standard output is for figures
        transient=True,
    )
