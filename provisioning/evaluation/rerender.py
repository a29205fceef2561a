"""A second look at a still, as a street camera would have it: for labelled faces of which there is only one photograph.

Comparing a photograph with itself made worse measures what size, blur, light and compression cost each group. It
does not measure what age, expression or another day cost: rates from it are a lower limit of the false non-matches.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track

from appliance.errors import ConfigError
from appliance.records import Image
from provisioning.evaluation.dataset import Dataset, Still

VERSION = "1"  # part of the seed and of the folder's name: another recipe makes other images
SIDE = (44, 88)  # pixels the shorter side of the still is brought to: about 14 to 34 between the eyes


def rerender(image: Image, seed: bytes) -> Image:
    """One degraded version of (height, width, 3) uint8 BGR; the same for the same seed. Smaller than the original."""
    rng = np.random.default_rng(np.frombuffer(hashlib.sha256(VERSION.encode() + seed).digest(), np.uint32))
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), float(rng.normal(0, 4)), 1.0)
    worse = cv2.warpAffine(image, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    scale = min(1.0, float(rng.uniform(*SIDE)) / min(height, width))
    worse = cv2.resize(worse, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    worse = cv2.GaussianBlur(worse, (0, 0), float(rng.uniform(0.3, 0.9)))
    light = worse.astype(np.float32) * rng.uniform(0.55, 1.25) * rng.normal(1, 0.03, 3) + rng.normal(0, 3, worse.shape)
    done, packed = cv2.imencode(".jpg", light.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 60])
    if not done:
        raise ConfigError("this OpenCV cannot write JPEG; install opencv-python-headless")
    return np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)


def second_looks(dataset: Dataset, folder: Path) -> Dataset:
    """One re-rendered still for each of the data set's, in order, written once under `folder` as lossless files."""
    target = folder / f"rerendered-{VERSION}"
    target.mkdir(parents=True, exist_ok=True)
    stills = [
        _written(still, digest, target / f"{digest[:40]}.png")
        for still, digest in track(
            list(zip(dataset.stills, dataset.digests, strict=True)),
            "second looks",
            console=Console(stderr=True),
            transient=True,
        )
    ]
    return Dataset(
        f"{dataset.name}, re-rendered", "Each still itself, smaller, softer, darker, compressed.", tuple(stills)
    )


def _written(still: Still, digest: str, path: Path) -> Still:
    if not path.is_file():
        image = cv2.imread(str(still.image), cv2.IMREAD_COLOR)
        if image is None:
            raise ConfigError(f"{still.image}: not an image that can be read; remove it from the data set")
        part = path.with_suffix(".part.png")
        cv2.imwrite(str(part), rerender(np.asarray(image, np.uint8), digest.encode()))
        part.replace(path)
    return Still(path, still.identity, still.sex, still.age, still.ethnicity, still.border)
