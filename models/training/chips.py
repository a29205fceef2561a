"""Aligned face chips: where the landmarks go, and the least-squares similarity transform that takes them there.

Points are (x, y) in pixels, the centre of the first pixel at (0, 0), in YuNet's order: right eye, left eye, nose, right
and left mouth corner. Pictures are uint8 BGR, OpenCV's order.
"""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float64]

WIDTH = 112  # of the chip that canvases are cut for: about what a face measures in the photographs
# dlib's own 150 x 150 chip, measured: where YuNet's points lie in it. It is tighter than the usual template.
DLIB_WIDTH = 150
DLIB_LANDMARKS: Points = np.array([[46.8, 45.4], [104.7, 44.5], [77.1, 78.7], [51.1, 104.4], [102.5, 103.4]])
# The usual 112 x 112 template, which the teacher was trained with.
TEACHER_LANDMARKS: Points = np.array([[38.29, 51.70], [73.53, 51.50], [56.03, 71.74], [41.55, 92.37], [70.73, 92.20]])


def scaled_landmarks(width: int) -> Points:
    """dlib's landmarks in a chip of ``width`` pixels instead of 150; pixel centres stay centres. (5, 2)."""
    return (DLIB_LANDMARKS + 0.5) * (width / DLIB_WIDTH) - 0.5


LANDMARKS = scaled_landmarks(WIDTH)
# Training keeps a wider picture around each chip, so that jitter shows real pixels and the teacher's view fits inside.
CANVAS = 152
ORIGIN = np.array([20.0, 32.0])  # of the 112 x 112 chip in the canvas
CANVAS_LANDMARKS = LANDMARKS + ORIGIN


def similarity(source: Points, target: Points) -> Points:
    """The rotation, scale and shift (2, 3) that take ``source`` nearest to ``target`` in the least-squares sense."""
    s, t = source[:, 0] + 1j * source[:, 1], target[:, 0] + 1j * target[:, 1]
    centred = s - s.mean()
    turn = np.vdot(centred, t - t.mean()) / np.vdot(centred, centred).real
    shift = t.mean() - turn * s.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def moved(points: Points, transform: Points) -> Points:
    """``points`` (N, 2) after the transform (2, 3)."""
    return cast(Points, points @ transform[:, :2].T + transform[:, 2])


def align(picture: Picture, points: Points, target: Points, width: int) -> Picture:
    """The chip (width, width, 3) in which ``points`` of ``picture`` lie at ``target``; the edge is repeated outside."""
    transform = similarity(points, target)
    chip = cv2.warpAffine(picture, transform, (width, width), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return cast(Picture, chip)


def chips_of_canvases(canvases: Picture, width: int = DLIB_WIDTH) -> Picture:
    """The middle chips (N, width, width, 3) of canvases (N, 152, 152, 3), drawn to the network's size."""
    zoom = width / WIDTH
    shift = zoom * (0.5 - ORIGIN) - 0.5
    transform = np.array([[zoom, 0.0, shift[0]], [0.0, zoom, shift[1]]])
    chips = [cv2.warpAffine(canvas, transform, (width, width), flags=cv2.INTER_LINEAR) for canvas in canvases]
    return np.stack(chips).astype(np.uint8)
