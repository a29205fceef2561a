"""The teacher: a strong embedder whose templates the student learns to give. For research; never shipped."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime

from models.training.chips import CANVAS, TEACHER_LANDMARKS, Picture, Points, align
from models.training.sources import TEACHER, SourceError, shared_folder

_BATCH = 4  # the fastest on a processor: the activations stay in its cache
_WIDTH = 112


class Teacher:
    """Gives unit-length templates (N, 128) for chips in its own alignment."""

    def __init__(self, file: Path | None = None, threads: int = 2) -> None:
        file = file or shared_folder() / TEACHER
        if not file.is_file():
            raise SourceError(f"no teacher at {file}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            str(file), options, providers=onnxruntime.get_available_providers()
        )
        self._input = self._session.get_inputs()[0].name

    def templates(self, chips: Picture, mirrored: bool = True) -> npt.NDArray[np.float32]:
        """(N, 112, 112, 3) uint8 BGR in the teacher's alignment -> (N, 128) float32, unit length.

        ``mirrored`` adds the output for the mirror image, at twice the time.
        """
        parts = [self._batch(chips[i : i + _BATCH], mirrored) for i in range(0, len(chips), _BATCH)]
        return np.concatenate(parts) if parts else np.zeros((0, 128), np.float32)

    def _batch(self, chips: Picture, mirrored: bool) -> npt.NDArray[np.float32]:
        rgb = np.ascontiguousarray(chips[..., ::-1].transpose(0, 3, 1, 2), dtype=np.float32)
        total = self._run(rgb)
        if mirrored:
            total = total + self._run(np.ascontiguousarray(rgb[..., ::-1]))
        return cast(npt.NDArray[np.float32], total / np.linalg.norm(total, axis=1, keepdims=True))

    def _run(self, rgb: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.asarray(self._session.run(None, {self._input: rgb})[0], dtype=np.float32)


def teacher_view(canvas: Picture, points: Points) -> Picture:
    """The teacher's chip (112, 112, 3) cut from a canvas whose face has ``points``."""
    if canvas.shape[:2] != (CANVAS, CANVAS):
        raise ValueError(f"a canvas is {CANVAS} x {CANVAS} pixels, not {canvas.shape[1]} x {canvas.shape[0]}")
    return align(canvas, points, TEACHER_LANDMARKS, _WIDTH)


def read_picture(file: Path) -> Picture:
    """A photograph as uint8 BGR; raises SourceError if it cannot be read."""
    picture = cv2.imread(str(file), cv2.IMREAD_COLOR)
    if picture is None:
        raise SourceError(f"{file} is no picture that OpenCV reads")
    return np.asarray(picture, dtype=np.uint8)
