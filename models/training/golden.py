"""A drawn face that belongs to no one: the golden input of an embedder's pack."""

from __future__ import annotations

import cv2
import numpy as np

from models.training.chips import Picture, Points

# BGR. Brows show in blue alone and the mouth in red alone: with the two colours changed over it is another face.
_SKIN, _MOUTH, _BROW, _DARK, _WHITE = (200, 180, 220), (200, 110, 20), (10, 110, 220), (20, 20, 20), (250, 240, 230)


def drawn_face(width: int, height: int, landmarks: Points) -> Picture:
    """A chip (height, width, 3) with eyes, nose and mouth drawn at ``landmarks`` (5, 2) on a smooth ramp of colours."""
    across, down = np.meshgrid(np.linspace(20, 230, width), np.linspace(230, 20, height))
    chip = np.stack([across, down / 2, 255 - across], axis=2).astype(np.uint8)
    eyes, nose, mouth = landmarks[:2], landmarks[2], landmarks[3:]
    unit = float(np.linalg.norm(eyes[1] - eyes[0]))
    _ellipse(chip, landmarks.mean(axis=0), (0.95 * unit, 1.3 * unit), _SKIN)
    for eye in eyes:
        _ellipse(chip, eye, (0.2 * unit, 0.11 * unit), _WHITE)
        _ellipse(chip, eye, (0.08 * unit, 0.09 * unit), _DARK)
        _ellipse(chip, eye - (0, 0.25 * unit), (0.3 * unit, 0.07 * unit), _BROW)
    _ellipse(chip, nose, (0.16 * unit, 0.1 * unit), _BROW)
    _ellipse(chip, mouth.mean(axis=0), (np.ptp(mouth[:, 0]) / 2, 0.14 * unit), _MOUTH)
    # Red light from the left and blue from below.
    light = np.stack([down / 230, np.full_like(down, 0.7), 1 - across / 300], axis=2)
    chip = (chip * light).astype(np.uint8)
    return np.asarray(cv2.GaussianBlur(chip, (0, 0), 1.0), dtype=np.uint8)


def _ellipse(chip: Picture, middle: Points, axes: tuple[float, float], colour: tuple[int, int, int]) -> None:
    centre = (round(float(middle[0])), round(float(middle[1])))
    cv2.ellipse(chip, centre, (round(axes[0]), round(axes[1])), 0, 0, 360, colour, -1, cv2.LINE_AA)
