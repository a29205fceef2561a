"""What a street does to a face: small, soft, compressed, dark, noisy, turned, partly hidden.

Each function takes a uint8 BGR chip (side, side, 3) and a random generator and gives a new chip of the same shape
and type; equal generators give equal chips. `student_view` draws what the student sees of a canvas in one step.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from models.training.chips import DLIB_WIDTH, LANDMARKS, ORIGIN, WIDTH, Picture, scaled_landmarks

_CLEAN_SHARE = 0.6
_MOST_DEGRADATIONS = 3


def student_view(canvas: Picture, rng: np.random.Generator, clean_share: float = _CLEAN_SHARE) -> Picture:
    """A chip (150, 150, 3) of the canvas (152, 152, 3): often nearly clean, else degraded in one to three ways."""
    clean = rng.random() < clean_share
    chip = coloured(jittered(canvas, rng, 1.0 if clean else 1.6, turn=not clean and rng.random() < 0.3), rng)
    if clean:
        return chip
    for degrade in rng.permutation(np.array(DEGRADATIONS, dtype=object))[: rng.integers(1, _MOST_DEGRADATIONS + 1)]:
        chip = degrade(chip, rng)
    return chip


def jittered(
    canvas: Picture, rng: np.random.Generator, strength: float = 1.0, turn: bool = False, width: int = DLIB_WIDTH
) -> Picture:
    """The chip with the landmarks a little off, as a detector gives them, and mirrored half the time.

    ``strength`` 1: shift 1 in 112 px, rotation 2 degrees, scale 2 %, standard deviations. ``turn`` narrows the face
    by up to a quarter and shears it, a crude turned head.
    """
    zoom = width / WIDTH
    angle, scale = rng.normal(0, 0.035 * strength), zoom * np.exp(rng.normal(0, 0.02 * strength))
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    matrix = np.array([[cosine, -sine], [sine, cosine]])
    if turn:
        matrix = matrix @ np.array([[rng.uniform(0.75, 1.0), 0.0], [rng.uniform(-0.12, 0.12), 1.0]])
    middle = LANDMARKS.mean(axis=0)  # about which a mirrored face stands where alignment would put it
    if rng.random() < 0.5:
        matrix = matrix @ np.array([[-1.0, 0.0], [0.0, 1.0]])
    target = zoom * (middle + 0.5 + rng.normal(0, strength, 2)) - 0.5
    shift = target - matrix @ (middle + ORIGIN)
    transform = np.column_stack([matrix, shift])
    chip = cv2.warpAffine(canvas, transform, (width, width), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(chip, dtype=np.uint8)


def coloured(chip: Picture, rng: np.random.Generator) -> Picture:
    """Brightness, contrast and each colour's gain a little changed; grey one time in twelve."""
    gain = np.exp(rng.normal(0, 0.1) + rng.normal(0, 0.04, 3))
    table = (np.arange(256)[:, None] - 110) * gain + 110 + rng.normal(0, 10)
    chip = cv2.LUT(chip, table.clip(0, 255).astype(np.uint8)[:, None])  # type: ignore[assignment]
    if rng.random() < 1 / 12:
        chip = cv2.cvtColor(cv2.cvtColor(chip, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)  # type: ignore[assignment]
    return chip


def small(chip: Picture, rng: np.random.Generator) -> Picture:
    """Shrunk to 24 to 64 pixels and drawn out again: a face far away."""
    side = int(rng.integers(24, 65))
    tiny = cv2.resize(chip, (side, side), interpolation=cv2.INTER_AREA)
    back = int(rng.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC]))
    return np.asarray(cv2.resize(tiny, chip.shape[1::-1], interpolation=back), dtype=np.uint8)


def soft(chip: Picture, rng: np.random.Generator) -> Picture:
    """Out of focus, or moved while the shutter was open."""
    if rng.random() < 0.5:
        return np.asarray(cv2.GaussianBlur(chip, (0, 0), rng.uniform(0.6, 2.2)), dtype=np.uint8)
    length, angle = rng.uniform(2, 5), rng.uniform(0, np.pi)
    kernel = np.zeros((11, 11), np.uint8)
    end = np.array([np.cos(angle), np.sin(angle)]) * length
    first, last = np.rint(5 - end).astype(int).tolist(), np.rint(5 + end).astype(int).tolist()
    cv2.line(kernel, first, last, 1)
    return np.asarray(cv2.filter2D(chip, -1, kernel / kernel.sum()), dtype=np.uint8)


def compressed(chip: Picture, rng: np.random.Generator) -> Picture:
    """Through JPEG at a quality of 15 to 70."""
    coded = cv2.imencode(".jpg", chip, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(15, 71))])[1]
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), dtype=np.uint8)


def dim(chip: Picture, rng: np.random.Generator) -> Picture:
    """Dark, flat, with the sensor's noise."""
    light = chip.astype(np.float32) * rng.uniform(0.25, 0.8) + rng.uniform(0, 25)
    noise = rng.normal(0, rng.uniform(1, 9), chip.shape).astype(np.float32)
    return (light + noise).clip(0, 255).astype(np.uint8)


def lit(chip: Picture, rng: np.random.Generator) -> Picture:
    """Light from one side: a ramp of brightness across the face."""
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.6)
    ramp = np.linspace(-1, 1, WIDTH, dtype=np.float32)
    slope = np.cos(angle) * ramp[None, :] + np.sin(angle) * ramp[:, None]
    shade = cv2.resize(1 + strength * slope, chip.shape[1::-1])
    return (chip * shade[..., None]).clip(0, 255).astype(np.uint8)


def hidden(chip: Picture, rng: np.random.Generator) -> Picture:
    """A patch of one colour or of noise, a mask over nose and mouth, or glasses, drawn where they would sit."""
    chip = chip.copy()
    colour = rng.integers(0, 256, 3).tolist()
    kind = rng.random()
    if kind < 0.35:
        _patch(chip, rng)
    elif kind < 0.6:
        _mask(chip, colour, rng)
    else:
        _glasses(chip, colour, rng)
    return chip


def _patch(chip: Picture, rng: np.random.Generator) -> None:
    height, width = rng.integers(14, 48, 2)
    top, left = rng.integers(0, chip.shape[0] - height), rng.integers(0, chip.shape[1] - width)
    fill = rng.integers(0, 256, (height, width, 3) if rng.random() < 0.5 else 3)
    chip[top : top + height, left : left + width] = fill


def _mask(chip: Picture, colour: list[int], rng: np.random.Generator) -> None:
    edge = LANDMARKS[2] + rng.normal(0, 3, 2)
    outline = [(8, edge[1] + 4), (edge[0], edge[1] - 6), (104, edge[1] + 4), (98, 117), (14, 117)]
    cv2.fillPoly(chip, [np.rint(np.array(outline) * chip.shape[0] / WIDTH).astype(np.int32)], colour)


def _glasses(chip: Picture, colour: list[int], rng: np.random.Generator) -> None:
    zoom = chip.shape[0] / WIDTH
    width, height = round(zoom * rng.integers(14, 20)), round(zoom * rng.integers(8, 15))
    thickness = -1 if rng.random() < 0.4 else int(rng.integers(1, 4))
    shade = [c // 4 for c in colour] if thickness < 0 else colour
    places = scaled_landmarks(chip.shape[0])[:2]
    eyes = [np.rint(eye + rng.normal(0, 1, 2)).astype(int).tolist() for eye in places]
    for eye in eyes:
        cv2.ellipse(chip, eye, (width, height), 0, 0, 360, shade, thickness)
    cv2.line(chip, [eyes[0][0] + width, eyes[0][1]], [eyes[1][0] - width, eyes[1][1]], shade, 2)


Degradation = Callable[[Picture, np.random.Generator], Picture]
DEGRADATIONS: tuple[Degradation, ...] = (small, soft, compressed, dim, lit, hidden)
