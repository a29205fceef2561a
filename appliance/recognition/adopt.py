"""Make a pack of any ONNX embedder: what the file says of itself is read, the rest is asked, the golden output is made.

The pack is whole and pinned when this returns, and not yet calibrated: no order arms it before it is.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from appliance.errors import PackError
from appliance.limits import LIMITS
from appliance.recognition.embed import Embedder
from appliance.recognition.packs import Pack, load
from appliance.records import Image

Alignment = Literal["arcface", "dlib"]
Pixels = Literal["0..255", "0..1", "-1..1"]
_ALIGNMENTS: dict[str, tuple[int, tuple[tuple[float, float], ...]]] = {
    "arcface": (112, ((38.29, 51.70), (73.53, 51.50), (56.03, 71.74), (41.55, 92.37), (70.73, 92.20))),
    "dlib": (150, ((46.8, 45.4), (104.7, 44.5), (77.1, 78.7), (51.1, 104.4), (102.5, 103.4))),
}
"""Side of the chip, and where the right eye, left eye, nose, right and left mouth corner lie in it, in pixels."""
_PIXELS = {"0..255": (0.0, 1.0), "0..1": (0.0, 255.0), "-1..1": (127.5, 127.5)}  # mean, scale
_TOLERANCE = 0.99
_LEAST, _SEED = 8, 20200124


@dataclass(frozen=True)
class Words:
    """What only a person knows of a model: it is written into the manifest as it is given."""

    name: str
    licence: str
    origin: str
    terms: str


@dataclass(frozen=True)
class Shape:
    """What a network's file says: the layout and side of its square input, and how many numbers it gives."""

    layout: Literal["nchw", "nhwc"]
    side: int
    length: int


def adopt(
    model: Path, into: Path, words: Words, alignment: Alignment, pixels: Pixels, colour: Literal["rgb", "bgr"]
) -> Pack:
    """Write a pack into the new folder `into`. Raises PackError, and leaves no folder behind."""
    if into.exists():
        raise PackError(f"{into}: is there already; name a new folder with --into")
    shape = read_shape(model)
    file = f"{model.stem}.onnx"
    unfinished = into.with_name(f".{into.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True)
        shutil.copyfile(model, unfinished / file)
        golden = np.zeros(shape.length, np.float32)  # the pack must load before it can say what it computes
        for made in (False, True):
            if made:
                golden = Embedder(load(unfinished)).embed(pattern(shape.side)[None])[0]
            np.savez(unfinished / "golden.npz", input=pattern(shape.side), output=golden)
            text = _manifest(unfinished, file, words, shape, alignment, pixels, colour)
            (unfinished / "pack.toml").write_text(text, encoding="utf-8")
        if not np.isfinite(golden).all() or float(np.linalg.norm(golden)) < 0.5:
            raise PackError(f"{model}: gives no template for a picture; is it an embedder, and are --pixels right?")
        unfinished.rename(into)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return load(into)


def read_shape(model: Path) -> Shape:
    """The shape of an ONNX file with one square picture in and one vector out. Raises PackError."""
    try:
        import onnxruntime
    except ImportError as error:
        raise PackError(f"{model}: needs ONNX Runtime; install it with: pip install 'bluelamp[onnx]'") from error
    if not model.is_file():
        raise PackError(f"{model}: no such file; name an ONNX file")
    if model.stat().st_size > LIMITS.model_bytes:
        raise PackError(f"{model}: larger than {LIMITS.model_bytes} bytes; choose a smaller network")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library raises types of its own
        raise PackError(f"{model}: not a network that ONNX Runtime loads ({str(error).splitlines()[0]})") from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    sides = [n for n in inputs[0].shape[1:] if isinstance(n, int)]
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or len(sides) != 3 or 3 not in (sides[0], sides[2]):
        raise PackError(f"{model}: reads {inputs[0].shape}, not one colour picture of a fixed size")
    layout: Literal["nchw", "nhwc"] = "nchw" if sides[0] == 3 else "nhwc"
    height, width = sides[1:] if layout == "nchw" else sides[:2]
    sample = np.zeros((1, *sides), np.float32)
    length = int(np.asarray(session.run([outputs[0].name], {inputs[0].name: sample})[0]).size)
    if height != width or not _LEAST <= length <= LIMITS.template_length:
        raise PackError(f"{model}: reads {width} x {height} pixels and gives {length} numbers; not a face embedder")
    return Shape(layout, height, length)


def pattern(side: int) -> Image:
    """(side, side, 3) uint8: soft clouds of colour, the same everywhere; a picture of nobody."""
    coarse = np.random.default_rng(_SEED).integers(0, 256, (7, 7, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)


def _manifest(
    folder: Path, file: str, words: Words, shape: Shape, alignment: Alignment, pixels: Pixels, colour: str
) -> str:
    side, points = _ALIGNMENTS[alignment]
    zoom = shape.side / side
    placed = ", ".join(f"[{(x + 0.5) * zoom - 0.5:.3f}, {(y + 0.5) * zoom - 0.5:.3f}]" for x, y in points)
    mean, scale = _PIXELS[pixels]
    size = f"width = {shape.side}\nheight = {shape.side}\n"
    head = {"name": words.name, "role": "embedder", "version": "1", "runtime": "onnxruntime"}
    head |= {"licence": words.licence, "origin": words.origin, "terms": words.terms}
    lines = ["format = 1", *(f"{key} = {json.dumps(value)}" for key, value in head.items())]
    return (
        "\n".join([*lines, 'calibration = "calibration.json"'])
        + f'\n\n[input]\nlayout = "{shape.layout}"\ncolour = "{colour}"\nmean = {[mean] * 3}\nscale = {[scale] * 3}\n'
        + f"\n[embedder]\n{size}length = {shape.length}\nlandmarks = [{placed}]\n"
        + f'\n[[files]]\npath = {json.dumps(file)}\nsha256 = "{_digest(folder / file)}"\n{size}'
        + f'\n[golden]\npath = "golden.npz"\nsha256 = "{_digest(folder / "golden.npz")}"\ntolerance = {_TOLERANCE}\n'
    )


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
