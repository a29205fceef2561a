"""Write an embedder's pack: the exported file, the golden input and output, and the manifest that pins both."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from appliance.recognition.embed import Embedder
from appliance.recognition.packs import load
from models.training.chips import Points
from models.training.embedder_net import LENGTH, MEAN, SCALE
from models.training.golden import drawn_face

_TOLERANCE = 0.99


@dataclass(frozen=True)
class PackText:
    """The words of a manifest."""

    name: str
    version: str
    licence: str
    origin: str
    terms: str


@dataclass(frozen=True)
class PackShape:
    """A network's file, its square chip, and the weights of its heads of 128 numbers each (empty: one head).

    ``mirror``: whether the unit adds the mirror image's template.
    """

    file: str
    width: int
    landmarks: Points
    weights: tuple[float, ...] = ()
    mirror: bool = False


def write_embedder_pack(folder: Path, text: PackText, model: bytes, shape: PackShape) -> None:
    """Fill ``folder`` with ``model`` and all that the pack contract asks."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / shape.file).write_bytes(model)
    face = drawn_face(shape.width, shape.width, shape.landmarks)
    placeholder = np.zeros(LENGTH, np.float32)  # the pack must load before it can say what its output is
    for output in (placeholder, None):
        if output is None:
            output = Embedder(load(folder)).embed(face[None])[0]
        np.savez(folder / "golden.npz", input=face, output=output)
        (folder / "pack.toml").write_text(_manifest(folder, text, shape), encoding="utf-8")


def _manifest(folder: Path, text: PackText, shape: PackShape) -> str:
    file, width, landmarks = shape.file, shape.width, shape.landmarks
    parts = ", ".join(f"{{ length = {LENGTH}, weight = {weight:.2f} }}" for weight in shape.weights)
    mirror = "\nmirror = true" if shape.mirror else ""
    points = ", ".join(f"[{x:.3f}, {y:.3f}]" for x, y in landmarks)
    return f"""format = 1
name = {json.dumps(text.name)}
role = "embedder"
version = {json.dumps(text.version)}
runtime = "litert"
licence = {json.dumps(text.licence)}
origin = {json.dumps(text.origin)}
terms = {json.dumps(text.terms)}
calibration = "calibration.json"

[input]
layout = "nhwc"
colour = "rgb"
mean = [{", ".join(map(str, MEAN))}]
scale = [{SCALE}, {SCALE}, {SCALE}]

[embedder]
width = {width}
height = {width}
length = {LENGTH * max(len(shape.weights), 1)}
landmarks = [{points}]{f"{chr(10)}parts = [{parts}]" if parts else ""}{mirror}

[[files]]
path = {json.dumps(file)}
sha256 = "{_digest(folder / file)}"
width = {width}
height = {width}

[golden]
path = "golden.npz"
sha256 = "{_digest(folder / "golden.npz")}"
tolerance = {_TOLERANCE}
"""


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
