"""Find faces: one box, five landmarks and a score for each, in frame pixels.

The size detection runs at follows from the smallest face worth comparing, not from the camera's resolution: a
1080p camera that should find faces of 60 pixels is searched at a third of its size.
"""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np

from appliance.errors import PackError
from appliance.limits import LIMITS
from appliance.recognition.packs import Pack, PackFile
from appliance.recognition.runtime import Session, open_session, tensor_of
from appliance.records import Face, Floats, Image

Rows = Floats  # (n, 15): x, y, width, height, five landmarks x, y, score


class Detector:
    """A detector pack, opened at the sizes the frames turn out to need.

    `smallest_face` is the width in frame pixels of the smallest face worth finding. Not thread-safe: one for each
    thread.
    """

    def __init__(
        self, pack: Pack, smallest_face: float = 40.0, score: float = 0.6, overlap: float = 0.3, threads: int = 1
    ) -> None:
        self._pack, self._part, self._threads = pack, pack.detector, threads
        self._smallest, self._score, self._overlap = smallest_face, score, overlap
        self._sessions: dict[str, Session] = {}

    def detect(self, image: Image) -> list[Face]:
        """Faces of one frame (height, width, 3) uint8 BGR, best score first."""
        file, scale = self._plan(image)
        canvas = self._canvas(image, file, scale)
        rows = self._rows(file, canvas)
        rows[:, :14] /= np.float32(scale)
        return [Face(r[:4], r[4:14].reshape(5, 2), float(r[14])) for r in rows[: LIMITS.faces_per_frame]]

    def rows_at(self, image: Image) -> Rows:
        """Rows at the detector's own input size: for the golden check and the evaluation of a detector."""
        return self._rows(self._file_for(image), image)

    def size_for(self, image: Image) -> tuple[int, int]:
        """Width and height that detection runs at for frames like this one."""
        file, _ = self._plan(image)
        return file.width, file.height

    def _plan(self, image: Image) -> tuple[PackFile, float]:
        height, width = image.shape[:2]
        wanted = min(self._part.smallest_face / self._smallest, 1.0)
        files = sorted(self._pack.manifest.files, key=lambda f: f.width * f.height)
        for file in files:
            if file.width >= width * wanted and file.height >= height * wanted:
                return file, min(file.width / width, file.height / height, 1.0)
        last = max(files, key=lambda f: min(f.width / width, f.height / height))
        return last, min(last.width / width, last.height / height, 1.0)

    def _canvas(self, image: Image, file: PackFile, scale: float) -> Image:
        height, width = image.shape[:2]
        if scale < 1.0:
            size = (min(file.width, max(1, round(width * scale))), min(file.height, max(1, round(height * scale))))
            image = cast(
                Image, cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 0.5 else cv2.INTER_LINEAR)
            )
        if image.shape[:2] == (file.height, file.width):
            return image
        canvas = np.zeros((file.height, file.width, 3), np.uint8)
        canvas[: image.shape[0], : image.shape[1]] = image
        return canvas

    def _rows(self, file: PackFile, canvas: Image) -> Rows:
        session = self._sessions.get(file.path)
        if session is None:
            session = self._sessions[file.path] = open_session(self._pack, file, self._threads)
        outputs = session.run(tensor_of(self._pack, canvas[None]))
        if self._part.decoder == "yunet":
            grids = _yunet_grids(dict(zip(session.names, outputs, strict=True)), file, self._part.strides)
        else:
            grids = _shaped_grids(outputs, file, self._part.strides)
        rows = np.concatenate([_decode(*grid, score=self._score) for grid in grids])
        return _without_overlaps(rows, self._score, self._overlap)

    def _file_for(self, image: Image) -> PackFile:
        for file in self._pack.manifest.files:
            if (file.height, file.width) == image.shape[:2]:
                return file
        raise PackError(f"{self._pack.folder}: has no file for {image.shape[1]} x {image.shape[0]} pixels")


Grid = tuple[Floats, Floats, Floats, int]  # score (h, w), box (h, w, 4), landmarks (h, w, 10), stride


def _yunet_grids(outputs: dict[str, Floats], file: PackFile, strides: tuple[int, ...]) -> list[Grid]:
    grids: list[Grid] = []
    for stride in strides:
        shape = (-(-file.height // stride), -(-file.width // stride))
        score = np.sqrt(np.clip(outputs[f"cls_{stride}"], 0, 1) * np.clip(outputs[f"obj_{stride}"], 0, 1)).reshape(
            shape
        )
        box = outputs[f"bbox_{stride}"].reshape(*shape, 4)
        grids.append((score, box, outputs[f"kps_{stride}"].reshape(*shape, 10), stride))
    return grids


def _shaped_grids(outputs: list[Floats], file: PackFile, strides: tuple[int, ...]) -> list[Grid]:
    """Outputs are told apart by shape: exporters keep neither names nor order."""
    by_shape = {o.shape[1:]: o[0] for o in outputs}
    grids: list[Grid] = []
    for stride in strides:
        rows, columns = -(-file.height // stride), -(-file.width // stride)
        try:
            parts = [by_shape[(rows, columns, channels)] for channels in (1, 4, 10)]
        except KeyError as error:
            raise PackError(
                f"{file.path}: no output of shape {error.args[0]} for stride {stride}; not a 'grid' detector"
            ) from error
        grids.append((parts[0][..., 0], parts[1], parts[2], stride))
    return grids


def _decode(scores: Floats, boxes: Floats, landmarks: Floats, stride: int, *, score: float) -> Rows:
    """Cells above `score` as rows: centres are offsets from the cell, sizes are logarithms, both in strides."""
    ys, xs = np.nonzero(scores >= score)
    if not len(xs):
        return np.empty((0, 15), np.float32)
    box, points, step = boxes[ys, xs], landmarks[ys, xs], np.float32(stride)
    size = np.exp(np.clip(box[:, 2:], -8, 8)) * step
    corner = (np.stack([xs, ys], 1) + box[:, :2]) * step - size / 2
    points = (points.reshape(-1, 5, 2) + np.stack([xs, ys], 1)[:, None]) * step
    return np.concatenate([corner, size, points.reshape(-1, 10), scores[ys, xs][:, None]], 1).astype(np.float32)


def _without_overlaps(rows: Rows, score: float, overlap: float) -> Rows:
    if not len(rows):
        return rows
    kept = cv2.dnn.NMSBoxes(
        rows[:, :4].tolist(), rows[:, 14].tolist(), score, overlap, top_k=5 * LIMITS.faces_per_frame
    )
    return rows[np.asarray(kept, np.int64).reshape(-1)]
