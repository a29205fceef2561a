"""Five landmarks to an aligned chip: the closed-form similarity transform of least squared error."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np

from appliance.records import Floats, Image


def similarity(source: Floats, target: Floats) -> Floats:
    """The (2, 3) rotation, uniform scale and shift that takes `source` (n, 2) to `target` (n, 2) best.

    Umeyama's problem without reflection; in the plane, with points as complex numbers, it is one quotient.
    """
    a = source[:, 0] + 1j * source[:, 1]
    b = target[:, 0] + 1j * target[:, 1]
    a0, b0 = a.mean(), b.mean()
    turn = np.vdot(a - a0, b - b0) / max(float(np.vdot(a - a0, a - a0).real), 1e-9)
    shift = b0 - turn * a0
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]], np.float32)


def chip(image: Image, landmarks: Floats, target: Floats, width: int, height: int) -> Image:
    """Cut a (height, width, 3) chip so that `landmarks` (5, 2) fall on `target` (5, 2); edges are replicated.

    Where the face is more than twice as large as the chip, the region is halved first: a bilinear warp alone would
    skip pixels and alias.
    """
    matrix = similarity(landmarks, target)
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if scale < 0.5:
        image, landmarks = _shrunk(image, landmarks, max(scale * 1.5, 1 / 16))
        matrix = similarity(landmarks, target)
    warped = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return cast(Image, warped)


def _shrunk(image: Image, landmarks: Floats, factor: float) -> tuple[Image, Floats]:
    low, high = landmarks.min(axis=0), landmarks.max(axis=0)
    margin = 2.0 * float((high - low).max())
    x0, y0 = (max(int(v - margin), 0) for v in low)
    x1, y1 = int(high[0] + margin) + 1, int(high[1] + margin) + 1
    region = image[y0:y1, x0:x1]
    if region.size == 0:
        return image, landmarks
    small = cv2.resize(region, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    grid = np.array([small.shape[1] / region.shape[1], small.shape[0] / region.shape[0]], np.float32)
    # Pixel centres stand at integers, so a resize moves them by half a pixel.
    moved = (landmarks - np.array([x0, y0], np.float32) + 0.5) * grid - 0.5
    return cast(Image, small), moved.astype(np.float32)
