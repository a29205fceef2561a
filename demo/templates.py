"""Templates of pictures for the demo's own checks: the teacher, dlib-aligned embedders and the project's packs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

from demo.arrays import Bytes, Floats, floats
from demo.faces import LandmarkFinder, shared_folder, weights

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Template = Callable[[Bytes, Floats], Floats]
"""A BGR picture and the five landmarks (5, 2) in it, as YuNet orders them; a template of unit length."""

_ARCFACE = floats([(38.29, 51.70), (73.53, 51.50), (56.03, 71.74), (41.55, 92.37), (70.73, 92.20)])
ROOT = Path(__file__).resolve().parents[1]


class Detector:
    """YuNet at a picture's own size: rows of x, y, w, h, five landmarks, score."""

    def __init__(self, threshold: float = 0.7) -> None:
        path = shared_folder() / "models" / "yunet" / "yunet_n_640_640.onnx"
        self._net = cv2.FaceDetectorYN.create(str(path), "", (320, 320), threshold)

    def find(self, picture: Bytes) -> Floats:
        """Faces (N, 15) of a BGR picture, in its pixels."""
        self._net.setInputSize((picture.shape[1], picture.shape[0]))
        rows = self._net.detect(picture)[1]
        return np.zeros((0, 15), np.float32) if rows is None else np.asarray(rows, np.float32)


def aligned(picture: Bytes, landmarks: Floats, targets: Floats, size: tuple[int, int]) -> Bytes:
    """The chip (height, width, 3) whose landmarks lie nearest to `targets`; `size` is (width, height)."""
    matrix = cv2.estimateAffinePartial2D(landmarks, targets, method=cv2.LMEDS)[0]
    return np.asarray(cv2.warpAffine(picture, matrix, size, flags=cv2.INTER_LINEAR), np.uint8)


def _unit(vector: Floats) -> Floats:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9), np.float32)


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def teacher() -> Template:
    """MobileFaceNet with ArcFace's loss; chip and mirror image added, as the stored labels were made."""
    session = _session(shared_folder() / "models" / "mobilefacenet-arcface" / "mobilefacenet_arcface.onnx")
    name = session.get_inputs()[0].name

    def template(picture: Bytes, landmarks: Floats) -> Floats:
        chip = aligned(picture, landmarks, _ARCFACE, (112, 112))[:, :, ::-1].astype(np.float32)
        both = [np.ascontiguousarray(c.transpose(2, 0, 1)[None]) for c in (chip, chip[:, ::-1])]
        return _unit(sum(session.run(None, {name: c})[0][0] for c in both))

    return template


def trial() -> Template:
    """The project's first trial embedder, behind dlib's own alignment (68 landmarks, 150 pixels, padding 0.25)."""
    session = _session(shared_folder() / "models" / "trial-embedder" / "trial_embedder.onnx")
    name, finder = session.get_inputs()[0].name, LandmarkFinder()

    def template(picture: Bytes, landmarks: Floats) -> Floats:
        chip = finder.chip(picture, landmarks).astype(np.float32)
        return _unit(session.run(None, {name: np.ascontiguousarray(chip.transpose(2, 0, 1)[None])})[0][0])

    return template


def dlib_resnet() -> Template:
    """dlib's public-domain ResNet itself, from which the project's open embedder is converted."""
    import dlib

    net = dlib.face_recognition_model_v1(str(weights("dlib_face_recognition_resnet_model_v1.dat")))
    finder = LandmarkFinder()

    def template(picture: Bytes, landmarks: Floats) -> Floats:
        return _unit(np.array(net.compute_face_descriptor(finder.chip(picture, landmarks)), np.float32))

    return template


def pack(name: str) -> Template:
    """An embedder pack of the project (`models/<name>`), its largest file, through LiteRT."""
    from ai_edge_litert.interpreter import Interpreter

    folder = ROOT / "models" / name
    manifest = tomllib.loads((folder / "pack.toml").read_text(encoding="utf-8"))
    entry, net = manifest["embedder"], Interpreter(str(folder / manifest["files"][0]["path"]))
    net.allocate_tensors()
    into, out = net.get_input_details()[0], net.get_output_details()[0]
    mean, scale = (floats(manifest["input"][key]) for key in ("mean", "scale"))
    targets, size = floats(entry["landmarks"]), (int(entry["width"]), int(entry["height"]))
    planes, rgb = manifest["input"]["layout"] == "nchw", manifest["input"]["colour"] == "rgb"

    def template(picture: Bytes, landmarks: Floats) -> Floats:
        chip = aligned(picture, landmarks, targets, size)
        value = ((chip[:, :, ::-1] if rgb else chip).astype(np.float32) - mean) / scale
        value = value.transpose(2, 0, 1) if planes else value
        step, zero = into["quantization"]
        if into["dtype"] != np.float32:
            bounds = np.iinfo(into["dtype"])
            value = np.clip(np.round(value / step + zero), bounds.min, bounds.max)
        net.set_tensor(into["index"], np.ascontiguousarray(value[None]).astype(into["dtype"]))
        net.invoke()
        result = net.get_tensor(out["index"])[0].astype(np.float32)
        step, zero = out["quantization"]
        return _unit((result - zero) * step if step else result)

    return template


def available() -> dict[str, Template]:
    """Every embedder there is to check with."""
    found = {"teacher": teacher(), "trial": trial(), "dlib": dlib_resnet()}
    for name in ("open-embedder", "lamp-embedder"):
        if (ROOT / "models" / name / "pack.toml").is_file():
            found[name] = pack(name)
    return found
