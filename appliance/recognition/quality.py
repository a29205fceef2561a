"""How much a face is worth comparing, from its pixels and landmarks alone: size, sharpness, pose, exposure.

Nothing here says anything about the subject; the figures describe the picture (ISO/IEC 29794-5's intent).
"""

from __future__ import annotations

import cv2
import numpy as np

from appliance.records import Face, Image, Quality

_SIDE = 64  # pixels; sharpness is measured on faces brought to one size, so that figures compare
_SHARP_HALF = 60.0  # Laplacian variance on that scale at which sharpness is 0.5; median of LFW's stills is about 500
_SIZE_LEAST, _SIZE_FULL = 8.0, 40.0  # pixels between the eyes: worthless below, no better above
_DARK, _BRIGHT = 50.0, 205.0  # mean grey levels between which exposure costs nothing
_CONTRAST_FULL = 30.0  # standard deviation of grey levels that is enough


def assess(image: Image, face: Face) -> Quality:
    """Quality of one face of a frame (height, width, 3) uint8 BGR. Never raises for a face partly outside."""
    points = face.landmarks
    eyes = points[1] - points[0]
    interocular = float(np.hypot(eyes[0], eyes[1]))
    grey = _grey(image, face)
    sharpness = _sharpness(grey)
    exposure = _exposure(grey)
    yaw = _yaw(points.astype(np.float64), interocular)
    size = float(np.clip((interocular - _SIZE_LEAST) / (_SIZE_FULL - _SIZE_LEAST), 0.0, 1.0))
    frontal = float(np.clip(1.25 - abs(yaw), 0.0, 1.0))
    # A geometric mean: a face that fails in one respect is not saved by the others.
    value = float((size * (0.2 + 0.8 * sharpness) * frontal * exposure) ** 0.5)
    return Quality(interocular, sharpness, yaw, exposure, value)


def _grey(image: Image, face: Face) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    x, y, width, height = (round(float(v)) for v in face.box)
    region = image[max(y, 0) : max(y + height, 0), max(x, 0) : max(x + width, 0)]
    if region.size == 0:
        return np.zeros((_SIDE, _SIDE), np.uint8)
    small = cv2.resize(region, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.uint8)


def _sharpness(grey: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> float:
    variance = float(cv2.Laplacian(grey, cv2.CV_32F).var())
    return variance / (variance + _SHARP_HALF)


def _exposure(grey: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> float:
    mean, deviation = float(grey.mean()), float(grey.std())
    level = min(1.0, mean / _DARK, (255.0 - mean) / (255.0 - _BRIGHT))
    return max(level, 0.0) * min(1.0, deviation / _CONTRAST_FULL)


def _yaw(points: np.ndarray[tuple[int, ...], np.dtype[np.float64]], interocular: float) -> float:
    """The nose's shift from the middle of the eyes along their line, in half interocular distances."""
    if interocular < 1.0:
        return 2.0
    axis = (points[1] - points[0]) / interocular
    return float(np.clip(2.0 * np.dot(points[2] - points[:2].mean(axis=0), axis) / interocular, -2.0, 2.0))
