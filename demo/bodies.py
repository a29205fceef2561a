"""Coats, collars and legs for the passers-by: drawn, without any model."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from demo.arrays import Floats, floats

Colour = tuple[float, float, float]
"""Blue, green, red."""

SCALE = 508.0
"""Pixels of a body sprite a metre."""
WIDTH, HEIGHT = 340, 470
_MIDDLE = WIDTH / 2


@dataclass(frozen=True)
class Body:
    """Premultiplied sprites (HEIGHT, WIDTH, 4) float32 of torso and arms; top row is the base of the neck."""

    torso: Floats
    left_arm: Floats
    right_arm: Floats
    trousers: Colour
    shoes: Colour


def draw_body(skin: Colour, rng: np.random.Generator) -> Body:
    """A clothed body in quiet colours."""
    cloth = _cloth(rng)
    broad = float(rng.uniform(0.92, 1.06))
    hem = float(rng.uniform(0.66, 0.86))
    torso = np.zeros((HEIGHT, WIDTH, 4), np.float32)
    outline = [(-0.075, -0.01), (0.075, -0.01), (0.19, 0.055), (0.205, 0.12), (0.18, 0.40), (0.205, hem)]
    outline += [(-0.205, hem), (-0.18, 0.40), (-0.205, 0.12), (-0.19, 0.055)]
    _lay(torso, _polygon(outline, broad, 1.2), _shaded(cloth, 0.24, rng))
    _front(torso, cloth, skin, hem, rng)
    arms = [_arm(cloth, skin, side, broad, rng) for side in (-1, 1)]
    trousers = floats(rng.integers(26, 92, 3)) * 0.5 + float(rng.integers(14, 40))
    shoes = floats([1, 1, 1]) * float(rng.integers(20, 52))
    return Body(torso, arms[0], arms[1], _triple(trousers), _triple(shoes))


def _triple(colour: Floats) -> Colour:
    blue, green, red = (float(v) for v in colour)
    return blue, green, red


def _cloth(rng: np.random.Generator) -> Floats:
    hue, strength, light = rng.uniform(0, 180), rng.uniform(15, 105), rng.uniform(40, 150)
    pixel = np.asarray([[[hue, strength, light]]], np.uint8)
    return np.asarray(cv2.cvtColor(pixel, cv2.COLOR_HSV2BGR)[0, 0], np.float32)


def _lay(canvas: Floats, alpha: Floats, colour: Floats) -> None:
    canvas *= (1 - alpha)[..., None]
    canvas[..., :3] += colour * alpha[..., None]
    canvas[..., 3] += alpha


def _polygon(points: list[tuple[float, float]], broad: float, feather: float) -> Floats:
    """Coverage of a polygon given in metres from the base of the neck."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    pixels = floats(points) * floats([SCALE * broad, SCALE]) + floats([_MIDDLE, 8])
    cv2.fillPoly(mask, [np.round(pixels * 8).astype(np.int32)], 255, cv2.LINE_AA, 3)
    return floats(cv2.GaussianBlur(mask, (0, 0), feather).astype(np.float32) / 255)


def _shaded(cloth: Floats, reach: float, rng: np.random.Generator, centre: float = 0.0) -> Floats:
    """Cloth that curves away at the sides and falls in folds."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    side = np.clip(np.abs((columns - _MIDDLE) / SCALE - centre) / reach, 0, 1)
    folds = cv2.resize(rng.standard_normal((9, 26)).astype(np.float32), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    weave = rng.standard_normal((HEIGHT, WIDTH)).astype(np.float32)
    light = (1.04 - 0.42 * side**2) * (1 - 0.14 * rows / HEIGHT) + 0.055 * folds + 0.02 * weave
    return floats(np.clip(light[..., None] * cloth, 0, 255))


def _front(torso: Floats, cloth: Floats, skin: Colour, hem: float, rng: np.random.Generator) -> None:
    """What is worn under the coat, its lapels, buttons or zip; sometimes a scarf or a bag's strap."""
    inner = _cloth(rng) * 0.4 + 130
    deep = float(rng.uniform(0.10, 0.24))
    _lay(torso, _polygon([(-0.062, -0.02), (0.062, -0.02), (0, deep)], 1.0, 1.0), _shaded(inner, 0.14, rng))
    bare = _polygon([(-0.05, -0.02), (0.05, -0.02), (0, 0.06)], 1.0, 1.4)
    _lay(torso, bare, np.full((HEIGHT, WIDTH, 3), floats(skin) * 0.86, np.float32))
    dark = np.full((HEIGHT, WIDTH, 3), cloth * 0.62, np.float32)
    for side in (-1, 1):
        lapel = [
            (side * 0.075, -0.015),
            (side * 0.055, -0.015),
            (0.0, deep),
            (side * 0.012, deep + 0.02),
            (side * 0.10, 0.07),
        ]
        _lay(torso, _polygon(lapel, 1.0, 1.0) * 0.75, dark)
    _lay(torso, _polygon([(-0.004, deep), (0.004, deep), (0.004, hem), (-0.004, hem)], 1.0, 0.8), dark)
    extra = rng.random()
    if extra < 0.25:
        scarf = floats(rng.integers(40, 190, 3))
        ring = [(-0.095, -0.015), (0.095, -0.015), (0.105, 0.05), (0.0, 0.10), (-0.105, 0.05)]
        _lay(torso, _polygon(ring, 1.0, 1.5), _shaded(scarf, 0.13, rng))
        _lay(
            torso,
            _polygon([(0.0, 0.06), (0.06, 0.05), (0.075, 0.36), (0.01, 0.36)], 1.0, 1.5),
            _shaded(scarf * 0.9, 0.16, rng),
        )
    elif extra < 0.5:
        strap = [(-0.13, 0.0), (-0.10, -0.005), (0.20, 0.50), (0.18, 0.54)]
        _lay(torso, _polygon(strap, 1.0, 0.9) * torso[..., 3], np.full((HEIGHT, WIDTH, 3), 38, np.float32))


def _arm(cloth: Floats, skin: Colour, side: int, broad: float, rng: np.random.Generator) -> Floats:
    arm = np.zeros((HEIGHT, WIDTH, 4), np.float32)
    hand = [(side * 0.235, 0.56), (side * 0.285, 0.56), (side * 0.275, 0.665), (side * 0.245, 0.665)]
    _lay(arm, _polygon(hand, broad, 2.0), np.full((HEIGHT, WIDTH, 3), floats(skin) * 0.8, np.float32))
    sleeve = [
        (side * 0.15, 0.045),
        (side * 0.205, 0.065),
        (side * 0.245, 0.13),
        (side * 0.285, 0.40),
        (side * 0.292, 0.585),
    ]
    sleeve += [(side * 0.228, 0.585), (side * 0.205, 0.40), (side * 0.17, 0.20)]
    _lay(arm, _polygon(sleeve, broad, 1.2), _shaded(cloth * 0.9, 0.10, rng, side * 0.24))
    return arm
