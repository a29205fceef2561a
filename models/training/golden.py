"""A drawn face that belongs to no one: the golden input of an embedder's pack."""

from __future__ import annotations

import cv2
import numpy as np

from models.training.chips import Picture, Points

_SKIN, _LIP, _DARK, _WHITE = (150, 180, 215), (90, 90, 170), (40, 50, 60), (235, 240, 240)


def drawn_face(width: int, height: int, landmarks: Points) -> Picture:
    """A chip (height, width, 3) with eyes, nose and mouth drawn at ``landmarks`` (5, 2) on a smooth ramp of grey."""
    across, down = np.meshgrid(np.linspace(60, 160, width), np.linspace(-30, 30, height))
    chip = np.repeat((across + down)[..., None], 3, axis=2).astype(np.uint8)
    eyes, nose, mouth = landmarks[:2], landmarks[2], landmarks[3:]
    unit = float(np.linalg.norm(eyes[1] - eyes[0]))
    _ellipse(chip, landmarks.mean(axis=0), (0.95 * unit, 1.3 * unit), _SKIN)
    for eye in eyes:
        _ellipse(chip, eye, (0.2 * unit, 0.11 * unit), _WHITE)
        _ellipse(chip, eye, (0.08 * unit, 0.09 * unit), _DARK)
        _ellipse(chip, eye - (0, 0.25 * unit), (0.25 * unit, 0.04 * unit), _DARK)
    _ellipse(chip, nose, (0.14 * unit, 0.08 * unit), _LIP)
    _ellipse(chip, mouth.mean(axis=0), (np.ptp(mouth[:, 0]) / 2, 0.1 * unit), _LIP)
    return np.asarray(cv2.GaussianBlur(chip, (0, 0), 1.0), dtype=np.uint8)


def _ellipse(chip: Picture, middle: Points, axes: tuple[float, float], colour: tuple[int, int, int]) -> None:
    centre = (round(float(middle[0])), round(float(middle[1])))
    cv2.ellipse(chip, centre, (round(axes[0]), round(axes[1])), 0, 0, 360, colour, -1, cv2.LINE_AA)
