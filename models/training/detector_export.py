"""From a checkpoint to the pack ``models/lamp-detector``: one TFLite file a size, manifest, golden input and output."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

from models.training.chips import Picture
from models.training.detector_net import STRIDES, DetectorNet, ExportNet, Floats, Grids, decode, grid_shape, run
from models.training.detector_train import load_net
from models.training.drawn_face import drawn_face
from models.training.export import ExportError, LiteRt, input_name, to_float16, to_int8, to_tflite
from models.training.scenes import Composer, degraded, load_album

SIZES = ((320, 192), (480, 272), (640, 360), (960, 544), (1280, 720))
EDGE_TPU = {
    "CONV_2D",
    "PAD",
    "ADD",
    "LOGISTIC",
    "RESIZE_NEAREST_NEIGHBOR",
    "STRIDED_SLICE",
    "SLICE",
    "RELU",
    "QUANTIZE",
}
"""Kinds that the Edge TPU compiler's documentation lists, of those that this graph may need."""
SMALLEST_FACE = 16
GOLDEN_THRESHOLD = 0.5
_GOLDEN_SIZE = (320, 192)
_SEED = 10_000  # of the representative scenes: training runs use small seeds
_PIXELS = 20 * 640 * 360  # of representative scenes for each size
_FACE = 0.3  # cells with at least this score set the ranges of boxes and landmarks
_LOGITS = (-7.0, 6.0)  # a score below 0.001 may round to 0: finer steps where it matters
_ROOM = 0.1  # beyond what was seen, in shares of the range
_VERSION = "1.1.0"


def export(checkpoint: Path, pack: Path, kind: str = "int8") -> None:
    """Write the pack's files; ``kind`` is int8, float16 or float32."""
    torch.set_num_threads(1)  # beside a training, threads wait for each other more than they work
    net, composer = load_net(checkpoint), Composer(load_album(held=False), _SEED)
    pack.mkdir(parents=True, exist_ok=True)
    for stale in pack.glob("*.tflite"):
        stale.unlink()
    files = []
    for width, height in track(SIZES, "exporting"):
        scenes = list(representative(composer, width, height))
        model = converted(net, scenes, width, height, kind)
        check_operations(model, kind)
        file = pack / f"detector_{width}x{height}_{kind}.tflite"
        file.write_bytes(model)
        files.append((file, width, height))
    golden = write_golden(files[0][0], pack / "golden.npz")
    (pack / "pack.toml").write_text(manifest(files, golden), encoding="utf-8")


def representative(composer: Composer, width: int, height: int) -> Iterator[Picture]:
    """Scenes of a size; every second one degraded."""
    rng = np.random.default_rng(_SEED)
    for number in range(int(np.clip(_PIXELS // (width * height), 8, 40))):
        scene = composer.scene(number, width, height)
        yield degraded(rng, scene) if number % 2 else scene


def converted(net: DetectorNet, scenes: list[Picture], width: int, height: int, kind: str) -> bytes:
    """The TFLite file for one size."""
    model = to_tflite(ExportNet(net).eval(), torch.zeros(1, 3, height, width))
    if kind == "float32":
        return model
    if kind == "float16":
        return to_float16(model)
    if kind != "int8":
        raise ExportError(f"no kind {kind!r}: int8, float16 and float32 are there")
    ranges = {input_name(model): (0.0, 1.0), **_output_ranges(model, [run(net, scene) for scene in scenes])}
    return to_int8(model, [tensor(scene) for scene in scenes], ranges)


def tensor(picture: Picture) -> Floats:
    """(h, w, 3) uint8 BGR -> (1, h, w, 3) float32, divided by 255."""
    return picture[None].astype(np.float32) / np.float32(255)


def _output_ranges(model: bytes, answers: list[Grids]) -> dict[str, tuple[float, float]]:
    """Ranges of logits, boxes and landmarks from cells that hold faces: elsewhere those mean nothing, and are wide."""
    lite = LiteRt(model)
    shapes = {tuple(int(n) for n in output["shape"][1:]): str(output["name"]) for output in lite.outputs}
    height, width = (int(n) for n in lite.input["shape"][1:3])
    ranges = dict.fromkeys(_logits(lite), _LOGITS)
    for level, stride in enumerate(STRIDES):
        rows, columns = grid_shape(width, height, stride)
        for part, channels in ((1, 4), (2, 10)):
            seen = np.concatenate([answer[level][part][answer[level][0] >= _FACE].ravel() for answer in answers])
            if len(seen):
                least, greatest = (float(v) for v in np.quantile(seen, (0.0005, 0.9995)))
                room = _ROOM * (greatest - least)
                ranges[shapes[(rows, columns, channels)]] = (min(least - room, -0.5), max(greatest + room, 0.5))
    return ranges


def _logits(lite: LiteRt) -> list[str]:
    names = {each["index"]: str(each["name"]) for each in lite.interpreter.get_tensor_details()}
    operations = lite.interpreter._get_ops_details()  # the runtime offers no public list
    return [names[int(each["inputs"][0])] for each in operations if each["op_name"] == "LOGISTIC"]


def check_operations(model: bytes, kind: str) -> None:
    """Raises ExportError if a graph holds what the Edge TPU would not take, or an int8 graph computes in float."""
    for use in LiteRt(model).operations():
        if use.kind not in EDGE_TPU | ({"DEQUANTIZE"} if kind == "float16" else set()):
            raise ExportError(f"operation {use.kind} is not on the Edge TPU's list: change the network, not the list")
        if kind == "int8" and "float32" in use.types:
            raise ExportError(f"operation {use.kind} computes in float32 in an int8 file")


def grids_of(outputs: list[Floats], width: int, height: int) -> Grids:
    """An exported file's outputs, told apart by shape, as grids."""
    by_shape = {output.shape[1:]: output[0] for output in outputs}
    grids = []
    for stride in STRIDES:
        rows, columns = grid_shape(width, height, stride)
        score, box, points = (by_shape[(rows, columns, channels)] for channels in (1, 4, 10))
        grids.append((score[..., 0], box, points))
    return grids


def write_golden(model: Path, file: Path) -> str:
    """A drawn face and what the file finds in it; returns the digest. Raises ExportError if it finds nothing."""
    width, height = _GOLDEN_SIZE
    picture = drawn_face(width, height, 80, (width * 0.45, height * 0.5))
    found = decode(grids_of(LiteRt(model)(tensor(picture)), width, height), GOLDEN_THRESHOLD)
    if len(found) != 1:
        raise ExportError(f"{model.name} finds {len(found)} faces in the drawn golden picture, not 1: train it further")
    content = io.BytesIO()
    np.savez_compressed(content, input=picture, output=found)
    file.write_bytes(content.getvalue())
    return _digest(file)


def manifest(files: list[tuple[Path, int, int]], golden: str) -> str:
    """`pack.toml`."""
    head: Mapping[str, str] = {
        "name": "lamp-detector",
        "role": "detector",
        "version": _VERSION,
        "runtime": "litert",
        "licence": "Apache-2.0",
        "origin": "trained by this project (models/training/detector_train.py) on YuNet's answers; YuNet is Apache-2.0",
        "terms": "research and evaluation: the scenes it learned from are composed of research photographs (card.md)",
    }
    lines = ["format = 1", *(f'{key} = "{value}"' for key, value in head.items()), ""]
    lines += ["[input]", 'layout = "nhwc"', 'colour = "bgr"', "mean = [0.0, 0.0, 0.0]"]
    lines += ["scale = [255.0, 255.0, 255.0]", "", "[detector]", 'decoder = "grid"', f"strides = {list(STRIDES)}"]
    lines += [f"smallest_face = {SMALLEST_FACE}", ""]
    for file, width, height in files:
        lines += ["[[files]]", f'path = "{file.name}"', f'sha256 = "{_digest(file)}"']
        lines += [f"width = {width}", f"height = {height}", ""]
    lines += ["[golden]", 'path = "golden.npz"', f'sha256 = "{golden}"', "tolerance = 0.9", ""]
    return "\n".join(lines)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
