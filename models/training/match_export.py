"""A student of function matching as a pack: int8, mirror image added, the usual alignment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from models.training.chips import TEACHER_LANDMARKS, Picture
from models.training.edgetpu import objections
from models.training.export import ExportError, input_name, to_int8, to_tflite
from models.training.fairface import fairface
from models.training.match_faces import CANVAS, SIDE
from models.training.match_train import load_student
from models.training.pack_writer import PackShape, PackText, write_embedder_pack

MEAN, SCALE = (127.5, 127.5, 127.5), 128.0
_FILE = "student_int8.tflite"
_EVERY = 10  # of FairFace's training faces: varied, and quick to read
_TEXT = PackText(
    "matched-embedder",
    "1.0.0",
    "LicenseRef-Research-Only",
    "trained from nothing by models/training (function matching) on LFW, UTKFace, FairFace and a teacher's templates",
    "research and evaluation only: the teacher and the photographs it learnt from are licensed for research",
)


def export_student(state: Path, folder: Path, samples: int, seed: int) -> None:
    """Write the pack of the student in ``state``; its int8 ranges come from ``samples`` training faces."""
    net, chips = load_student(state), _chips(samples, seed)
    floating = to_tflite(net, torch.zeros(1, 3, SIDE, SIDE))
    inputs = ((chip[None, ..., ::-1].astype(np.float32) - MEAN[0]) / SCALE for chip in chips)
    ends = (0 - MEAN[0]) / SCALE, (255 - MEAN[0]) / SCALE
    model = to_int8(floating, (np.ascontiguousarray(each, np.float32) for each in inputs), {input_name(floating): ends})
    if found := objections(model):
        raise ExportError(f"the Edge TPU would not take this graph: {found[0]}")
    shape = PackShape(_FILE, SIDE, TEACHER_LANDMARKS, mirror=True, mean=MEAN, scale=SCALE)
    write_embedder_pack(folder, _TEXT, {_FILE: model}, shape)


def _chips(samples: int, seed: int) -> Picture:
    """The 112 x 112 middles of training canvases, drawn by ``seed``."""
    faces, edge = list(fairface("train", _EVERY)), (CANVAS - SIDE) // 2
    rows = np.sort(np.random.default_rng(seed).choice(len(faces), min(samples, len(faces)), replace=False))
    return np.stack([faces[row][edge : edge + SIDE, edge : edge + SIDE] for row in rows])
