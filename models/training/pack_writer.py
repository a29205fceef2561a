"""Write an embedder's pack: the exported file, the golden input and output, and the manifest that pins both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
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
class Head:
    """128 numbers of the template: their weight, the file they come from, and whether that sees the mirror image."""

    weight: float
    file: str
    mirror: bool = False


@dataclass(frozen=True)
class PackShape:
    """A network's file, its square chip, and its heads of 128 numbers each, where there are several.

    Heads may come from further files. ``mirror``: whether the unit adds the mirror image's template. The input is
    (pixel - ``mean``) / ``scale``.
    """

    file: str
    width: int
    landmarks: Points
    heads: tuple[Head, ...] = ()
    mirror: bool = False
    mean: tuple[float, float, float] = MEAN
    scale: float = SCALE

    @property
    def files(self) -> tuple[str, ...]:
        """Every file's name, the first one first."""
        return tuple(dict.fromkeys((self.file, *(head.file for head in self.heads))))


def write_embedder_pack(folder: Path, text: PackText, models: Mapping[str, bytes], shape: PackShape) -> None:
    """Fill ``folder`` with the files of ``models`` and all that the pack contract asks.

    A file of the shape that ``models`` does not give is already in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in models.items():
        (folder / name).write_bytes(content)
    face = drawn_face(shape.width, shape.width, shape.landmarks)
    placeholder = np.zeros(LENGTH, np.float32)  # the pack must load before it can say what its output is
    for output in (placeholder, None):
        if output is None:
            output = Embedder(load(folder)).embed(face[None])[0]
        np.savez(folder / "golden.npz", input=face, output=output)
        (folder / "pack.toml").write_text(_manifest(folder, text, shape), encoding="utf-8")


def _manifest(folder: Path, text: PackText, shape: PackShape) -> str:
    width, landmarks = shape.width, shape.landmarks
    parts = "".join(f"\n  {_part(head, shape)}," for head in shape.heads)
    mirror = "\nmirror = true" if shape.mirror else ""
    points = ", ".join(f"[{x:.3f}, {y:.3f}]" for x, y in landmarks)
    files = "\n".join(_file(folder / name, width) for name in shape.files)
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
mean = [{", ".join(map(str, shape.mean))}]
scale = [{shape.scale}, {shape.scale}, {shape.scale}]

[embedder]
width = {width}
height = {width}
length = {LENGTH * max(len(shape.heads), 1)}
landmarks = [{points}]{f"{chr(10)}parts = [{parts}{chr(10)}]" if parts else ""}{mirror}

{files}
[golden]
path = "golden.npz"
sha256 = "{_digest(folder / "golden.npz")}"
tolerance = {_TOLERANCE}
"""


def _file(path: Path, width: int) -> str:
    lines = [f"path = {json.dumps(path.name)}", f'sha256 = "{_digest(path)}"', f"width = {width}", f"height = {width}"]
    return "\n".join(["[[files]]", *lines, ""])


def _part(head: Head, shape: PackShape) -> str:
    """A part's inline table; what is the default is left out."""
    file = f", file = {json.dumps(head.file)}" if head.file != shape.file else ""
    mirror = ", mirror = true" if head.mirror else ""
    return f"{{ length = {LENGTH}, weight = {head.weight:g}{file}{mirror} }}"


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
