"""Wrap the shared third-party models as model packs, so that they are measured through the unit's own stages.

The wrappers stand in the cache and point out where each model comes from; no weight of theirs enters the project.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from appliance.errors import PackError

ARCFACE_POINTS = "[[38.29, 51.70], [73.53, 51.50], [56.03, 71.74], [41.55, 92.37], [70.73, 92.20]]"
CASIA_POINTS = "[[30.29, 51.70], [65.53, 51.50], [48.03, 71.74], [33.55, 92.37], [62.73, 92.20]]"
DLIB_POINTS = "[[46.8, 45.4], [104.7, 44.5], [77.1, 78.7], [51.1, 104.4], [102.5, 103.4]]"
PLAIN = 'layout = "nchw"\ncolour = "{}"\nmean = [0.0, 0.0, 0.0]\nscale = [1.0, 1.0, 1.0]'
CASIA = 'layout = "nhwc"\ncolour = "rgb"\nmean = [127.5, 127.5, 127.5]\nscale = [128.0, 128.0, 128.0]'


@dataclass(frozen=True)
class Wrapped:
    """What a manifest says of one shared model."""

    file: str
    role: str
    runtime: str
    licence: str
    terms: str
    input: str
    part: str
    sizes: tuple[tuple[int, int], ...]


def _embedder(width: int, height: int, points: str) -> str:
    return f"width = {width}\nheight = {height}\nlength = 128\nlandmarks = {points}"


WRAPPED = {
    "yunet": Wrapped(
        "yunet_n_dynamic.onnx",
        "detector",
        "onnxruntime",
        "Apache-2.0",
        "as the licence says",
        PLAIN.format("bgr"),
        'decoder = "yunet"\nstrides = [8, 16, 32]\nsmallest_face = 16.0',
        ((320, 192), (320, 320), (640, 384), (960, 544), (1280, 736)),
    ),
    "mobilefacenet-arcface": Wrapped(
        "mobilefacenet_arcface.onnx",
        "embedder",
        "onnxruntime",
        "InsightFace, non-commercial research",
        "research measurements only",
        PLAIN.format("rgb"),
        _embedder(112, 112, ARCFACE_POINTS),
        ((112, 112),),
    ),
    "mobilefacenet-int8": Wrapped(
        "mobilefacenet_112x96_int8.tflite",
        "embedder",
        "litert",
        "none stated",
        "measurements only",
        CASIA,
        _embedder(96, 112, CASIA_POINTS),
        ((96, 112),),
    ),
    "trial-embedder": Wrapped(
        "trial_embedder.onnx",
        "embedder",
        "onnxruntime",
        "made for this project",
        "a baseline to beat",
        PLAIN.format("rgb"),
        _embedder(150, 150, DLIB_POINTS),
        ((150, 150),),
    ),
}


def wrap(name: str, models: Path, into: Path) -> Path:
    """Write the pack folder `into/name` for one model of the folder `models`; the same bytes on every machine.

    Raises PackError when the name is not known or the model is not there.
    """
    try:
        spec = WRAPPED[name]
    except KeyError as error:
        raise PackError(f"{name}: not a shared model; known: {', '.join(sorted(WRAPPED))}") from error
    source, folder = models / name / spec.file, into / name
    if not source.is_file():
        raise PackError(f"{source}: no model here; set BLUELAMP_SHARED to the folder that holds models/ and data/")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, folder / spec.file)
    _placeholder(folder / "golden.npz", spec)
    (folder / "pack.toml").write_text(_manifest(name, spec, folder), encoding="utf-8")
    return folder


def _placeholder(path: Path, spec: Wrapped) -> None:
    """These packs are measured, never armed: the golden output is zeros, so no unit starts with one by mistake."""
    width, height = spec.sizes[0]
    shape = (128,) if spec.role == "embedder" else (1, 15)
    np.savez(path, input=np.zeros((height, width, 3), np.uint8), output=np.zeros(shape, np.float32))


def _manifest(name: str, spec: Wrapped, folder: Path) -> str:
    files = "".join(
        f'\n[[files]]\npath = "{spec.file}"\nsha256 = "{_sha256(folder / spec.file)}"\nwidth = {w}\nheight = {h}\n'
        for w, h in spec.sizes
    )
    return (
        f'format = 1\nname = "{name}"\nrole = "{spec.role}"\nversion = "1"\nruntime = "{spec.runtime}"\n'
        f'licence = "{spec.licence}"\norigin = "the shared models"\nterms = "{spec.terms}"\n'
        'calibration = "calibration.json"\n'
        f"\n[input]\n{spec.input}\n\n[{spec.role}]\n{spec.part}\n{files}"
        f'\n[golden]\npath = "golden.npz"\nsha256 = "{_sha256(folder / "golden.npz")}"\ntolerance = 0.99\n'
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
