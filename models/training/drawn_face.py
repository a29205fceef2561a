"""A face that is nobody's: drawn, not photographed. The detector's golden input and its tests use it."""

from __future__ import annotations

import cv2
import numpy as np

from models.training.chips import Picture

_FINE = 8  # drawn this many times larger, then averaged down: soft edges without a drawing library


def drawn_face(width: int, height: int, face: float, centre: tuple[float, float], seed: int = 0) -> Picture:
    """(height, width, 3) uint8 BGR: one frontal face ``face`` pixels wide around ``centre`` before a plain wall."""
    rng = np.random.default_rng(seed)
    large = int(4 * face) * _FINE // 4  # the head's own canvas: twice the face, a quarter of the fineness spared
    head, mask = _head(large, rng)
    scene = _wall(width, height, rng)
    side = int(2 * face)
    small = cv2.resize(head, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    share = cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)[..., None] / 255
    left, top = round(centre[0] - side / 2), round(centre[1] - side / 2)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)
    inside = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
    below = scene[y0:y1, x0:x1]
    scene[y0:y1, x0:x1] = below + (small[inside] - below) * share[inside]
    return np.asarray(cv2.GaussianBlur(scene, (0, 0), 0.6).clip(0, 255), dtype=np.uint8)


def _wall(width: int, height: int, rng: np.random.Generator) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    tint = rng.uniform(110, 180, 3)
    fall = np.linspace(1.15, 0.75, height)[:, None, None] * np.linspace(0.95, 1.05, width)[None, :, None]
    return np.asarray(tint * fall, dtype=np.float32)


def _head(side: int, rng: np.random.Generator) -> tuple[Picture, Picture]:
    """Picture and mask of a head on a square canvas of twice the face's width."""
    unit = side / 2  # the face's width
    skin = np.array([rng.uniform(120, 150), rng.uniform(150, 175), rng.uniform(195, 225)])
    picture = np.zeros((side, side, 3), np.uint8)
    mask = np.zeros((side, side), np.uint8)

    def oval(
        x: float,
        y: float,
        w: float,
        h: float,
        colour: tuple[float, ...] | float,
        on: Picture = picture,
        turn: float = 0.0,
    ) -> None:
        centre = (int(side / 2 + x * unit), int(side / 2 + y * unit))
        cv2.ellipse(on, centre, (int(w * unit), int(h * unit)), turn, 0, 360, colour, -1)

    def shade(factor: float) -> tuple[float, ...]:
        return tuple(float(c) for c in skin * factor)

    for on, hair, body in ((picture, (30, 38, 48), (96, 70, 52)), (mask, 255, 255)):
        oval(0, 1.02, 0.85, 0.42, body, on)
        oval(0, -0.18, 0.58, 0.62, hair, on)
    oval(0, 0.62, 0.24, 0.30, shade(0.78))
    oval(0, 0.62, 0.24, 0.30, 255, mask)
    oval(0, 0.04, 0.46, 0.62, shade(0.92))
    oval(0, 0.04, 0.46, 0.62, 255, mask)
    oval(0, 0.02, 0.42, 0.56, shade(1.0))
    oval(0, -0.30, 0.34, 0.18, shade(1.06))
    for side_of in (-1, 1):
        oval(side_of * 0.21, -0.06, 0.13, 0.075, shade(0.80))
        oval(side_of * 0.21, -0.055, 0.095, 0.042, (225, 228, 230))
        oval(side_of * 0.21, -0.055, 0.042, 0.042, (40, 55, 75))
        oval(side_of * 0.21, -0.055, 0.020, 0.020, (10, 10, 10))
        oval(side_of * 0.21, -0.085, 0.105, 0.018, shade(0.42), turn=side_of * 4)
        oval(side_of * 0.215, -0.165, 0.13, 0.024, (38, 48, 60), turn=side_of * 6)
        oval(side_of * 0.26, 0.16, 0.10, 0.08, tuple(np.array(shade(1.02)) * (0.95, 0.97, 1.03)))
        oval(side_of * 0.052, 0.175, 0.026, 0.018, shade(0.45))
    oval(0, 0.05, 0.045, 0.15, shade(1.08))
    oval(0, 0.155, 0.085, 0.055, shade(1.05))
    oval(0, 0.205, 0.07, 0.012, shade(0.70))
    oval(0, 0.335, 0.165, 0.050, (95, 95, 170))
    oval(0, 0.325, 0.150, 0.010, (45, 40, 85))
    oval(0, 0.41, 0.10, 0.02, shade(0.80))
    soft = cv2.GaussianBlur(picture, (0, 0), unit * 0.012)
    light = np.linspace(1.08, 0.86, side)[None, :, None]
    return np.asarray((soft * light).clip(0, 255), dtype=np.uint8), np.asarray(
        cv2.GaussianBlur(mask, (0, 0), unit * 0.006), dtype=np.uint8
    )
