"""A head for a sampled face: skull, ears, neck and hair are drawn, only the face itself comes from the model."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from demo.arrays import Floats, floats
from demo.faces import EYE_DISTANCE, Face, Mesh, triangulate, with_forehead

WIDTH, HEIGHT = 336, 440
EYE_X, EYE_Y = 168.0, 196.0
"""The sprite's size and where the point between the eyes lies in it (pixels; eyes EYE_DISTANCE apart)."""
SHOULDERS = 340.0
"""Row of the sprite at which the body joins."""

_HAIR = {
    "black": (22, 20, 22),
    "dark": (28, 34, 46),
    "brown": (40, 58, 84),
    "auburn": (38, 56, 106),
    "blond": (96, 142, 178),
    "grey": (140, 142, 146),
    "white": (196, 198, 200),
}
_SHORT = ("short", "short", "short", "parted", "parted", "crop", "crop", "receding", "bald", "beanie", "cap")
_LONG = ("long", "long", "long", "bob", "bob", "bob", "bun", "parted", "beanie")


@dataclass(frozen=True)
class Head:
    """Premultiplied sprite (HEIGHT, WIDTH, 4) float32, BGR 0 to 255 and alpha 0 to 1; skin colour in BGR.

    `box` is the face's box in the sprite as a detector would draw it: left, top, width, height (pixels).
    """

    sprite: Floats
    box: tuple[float, float, float, float]
    skin: tuple[float, float, float]
    style: str


def draw_head(face: Face, rng: np.random.Generator) -> Head:
    """The whole head with neck and hair; every random choice comes from `rng`."""
    shape = face.shape - face.shape[36:48].mean(axis=0) + floats([EYE_X, EYE_Y])
    outline = with_forehead(shape)
    skin = _skin(face)
    style = str(rng.choice(_LONG if face.female else _SHORT))
    colour = _hair_colour(face, rng)
    canvas = np.zeros((HEIGHT, WIDTH, 4), np.float32)
    skull = _Skull(shape)
    if style in ("long", "bob"):
        _lay(canvas, _back_hair(skull, style, rng), _strands(skull, colour, rng) * 0.72)
    _lay(canvas, _neck(skull), _shaded_neck(skull, skin))
    _lay(canvas, _ears(skull), np.full((HEIGHT, WIDTH, 3), floats(skin) * 0.82, np.float32))
    _lay(canvas, _skull_mask(outline, skull), _skull_shade(skull, skin))
    _lay(canvas, _face_mask(outline), _face_pixels(face, outline, skin, rng))
    _cover(canvas, skull, style, colour, rng)
    return Head(canvas, skull.box, skin, style)


class _Skull:
    """Measures of a face that the drawn parts hang on (sprite pixels)."""

    def __init__(self, shape: Floats) -> None:
        self.shape = shape
        self.chin = float(shape[8, 1])
        self.left, self.right = float(shape[0, 0]), float(shape[16, 0])
        self.ear = float(shape[[0, 16], 1].mean())
        self.brow = float(shape[17:27, 1].mean())
        self.middle = (self.left + self.right) / 2
        self.half = (self.right - self.left) / 2
        self.top = self.brow - 0.42 * (self.chin - self.brow) - 0.34 * self.half
        self.hairline = self.brow - 0.34 * (self.chin - self.brow)
        top = self.brow - 0.36 * (self.chin - self.brow)
        self.box = (self.left, top, 2 * self.half, self.chin + 2 - top)


def _skin(face: Face) -> tuple[float, float, float]:
    """Median colour of the cheeks."""
    row = int(face.shape[33, 1])
    left, right = int(face.shape[36, 0]), int(face.shape[45, 0])
    cheeks = np.concatenate(
        [face.texture[row - 12 : row + 6, x - 6 : x + 10].reshape(-1, 3) for x in (left, right - 4)]
    )
    blue, green, red = (float(v) for v in np.median(cheeks, axis=0))
    return blue, green, red


def _hair_colour(face: Face, rng: np.random.Generator) -> Floats:
    names = ["black", "dark", "brown"]
    if face.fair:
        names = ["dark", "brown", "auburn", "blond"]
    if face.age > 56:
        names = ["grey", "grey", "white", "dark"]
    return floats(_HAIR[str(rng.choice(names))]) * floats(rng.uniform(0.85, 1.15))


def _lay(canvas: Floats, alpha: Floats, colour: Floats) -> None:
    """Put a layer (alpha (H, W), colour (H, W, 3)) over the premultiplied canvas."""
    canvas *= (1 - alpha)[..., None]
    canvas[..., :3] += colour * alpha[..., None]
    canvas[..., 3] += alpha


def _soft(mask: NDArray[np.uint8], feather: float) -> Floats:
    return floats(cv2.GaussianBlur(mask, (0, 0), feather).astype(np.float32) / 255)


def _polygon(points: Floats, feather: float) -> Floats:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.fillPoly(mask, [np.round(points * 8).astype(np.int32)], 255, cv2.LINE_AA, 3)
    return _soft(mask, feather)


def _ellipse(centre: tuple[float, float], axes: tuple[float, float], feather: float) -> Floats:
    angles = np.linspace(0, 2 * np.pi, 72)
    ring = np.stack([centre[0] + axes[0] * np.cos(angles), centre[1] + axes[1] * np.sin(angles)], axis=1)
    return _polygon(ring.astype(np.float32), feather)


def _neck(skull: _Skull) -> Floats:
    wide, base = skull.half * 0.66, skull.half * 0.80
    points = [
        (skull.middle - wide, skull.chin - 50),
        (skull.middle + wide, skull.chin - 50),
        (skull.middle + wide, skull.chin + 24),
        (skull.middle + base, HEIGHT),
        (skull.middle - base, HEIGHT),
        (skull.middle - wide, skull.chin + 24),
    ]
    return _polygon(floats(points), 1.5)


def _shaded_neck(skull: _Skull, skin: tuple[float, float, float]) -> Floats:
    """Skin that is darkest in the chin's shadow and at the sides."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    below = np.clip((rows - skull.chin + 14) / 70, 0, 1)
    side = np.clip(np.abs(columns - skull.middle) / (skull.half * 0.8), 0, 1)
    light = (0.52 + 0.34 * below) * (1 - 0.22 * side**2)
    return floats(light[..., None] * floats(skin))


def _ears(skull: _Skull) -> Floats:
    size = (skull.half * 0.13, skull.half * 0.30)
    left = _ellipse((skull.left - 1, skull.ear + 12), size, 1.4)
    return np.maximum(left, _ellipse((skull.right + 1, skull.ear + 12), size, 1.4))


def _skull_mask(outline: Floats, skull: _Skull) -> Floats:
    """Jaw and forehead of the face, and the dome of the head above the ears."""
    dome = _ellipse((skull.middle, skull.ear), (skull.half * 1.01, skull.ear - skull.top - 3), 2.0)
    rows = np.mgrid[0:HEIGHT, 0:WIDTH][0]
    face = _polygon(np.vstack([outline[:17], outline[68:][::-1]]), 2.0)
    return np.asarray(
        np.maximum(np.where(rows > skull.top + 30, face, 0), np.where(rows < skull.ear, dome, 0)), np.float32
    )


def _skull_shade(skull: _Skull, skin: tuple[float, float, float]) -> Floats:
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    side = np.clip(np.abs(columns - skull.middle) / (skull.half * 1.05), 0, 1)
    up = np.clip((skull.brow - rows) / 120, 0, 1)
    return floats(((0.98 - 0.32 * side**3) * (1 - 0.12 * up))[..., None] * floats(skin))


def _face_mask(outline: Floats) -> Floats:
    """The face's region, feathered inwards so that the drawn skull takes over at its rim."""
    hull = np.vstack([outline[:17], outline[68:][::-1]])
    centre = hull.mean(axis=0)
    return _polygon((hull - centre) * floats([0.955, 0.95]) + centre, 4.5)


def _face_pixels(face: Face, outline: Floats, skin: tuple[float, float, float], rng: np.random.Generator) -> Floats:
    """The sampled texture on the sampled shape, sharpened, with a little grain for the pores."""
    source = with_forehead(face.mean_shape)
    mesh = Mesh(outline, WIDTH, HEIGHT, triangulate(source))
    pixels = mesh.warp(face.texture, source).astype(np.float32)
    pixels += 0.55 * (pixels - np.asarray(cv2.GaussianBlur(pixels, (0, 0), 2.2), np.float32))
    pixels += 0.06 * (pixels - np.asarray(cv2.GaussianBlur(pixels, (0, 0), 12), np.float32))
    pores = cv2.GaussianBlur(rng.standard_normal((HEIGHT, WIDTH)).astype(np.float32), (0, 0), 0.9)
    return np.clip(pixels + pores[..., None] * 4.0, 0, 255).astype(np.float32)


def _strands(skull: _Skull, colour: Floats, rng: np.random.Generator) -> Floats:
    """Hair: streaks that fall from the crown, a band of shine, darker at the ends."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    dx, dy = columns - skull.middle, rows - (skull.top - 30)
    angle = np.arctan2(dx, dy + 40)
    noise = rng.standard_normal((40, 1024)).astype(np.float32)
    fine, broad = cv2.GaussianBlur(noise, (0, 0), 0.8, sigmaY=7.0), cv2.GaussianBlur(noise, (0, 0), 4.0, sigmaY=9.0)
    noise = 2.2 * fine + 3.5 * broad
    distance = np.hypot(dx, dy)
    across = (angle / np.pi + 0.5) * 1000 + 5 * np.sin(distance / 28)
    streaks = cv2.remap(noise, across, distance / 14, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    shine = np.exp(-(((distance - 62) / 26) ** 2))
    light = 0.84 + 0.13 * streaks + 0.20 * shine * (0.7 + 0.4 * streaks)
    light *= 1 - 0.25 * np.clip(np.abs(dx) / (skull.half * 1.3), 0, 1) ** 2
    return floats(np.clip(light[..., None] * (colour + 10), 0, 255))


def _back_hair(skull: _Skull, style: str, rng: np.random.Generator) -> Floats:
    """The hair that falls behind neck and shoulders."""
    length = skull.chin + (62 if style == "long" else 4) + float(rng.uniform(-8, 12))
    wide = skull.half * (1.24 if style == "long" else 1.32)
    crown = _ellipse((skull.middle, skull.ear - 10), (wide, skull.ear - skull.top + 6), 2.0)
    steps = np.linspace(skull.middle - wide, skull.middle + wide, 40)
    ends = length + 7 * np.sin(np.linspace(0, 2 * np.pi, 40) + rng.uniform(0, 6)) + rng.uniform(-3, 3, 40)
    points = np.vstack(
        [
            [(skull.middle - wide, skull.ear - 30), (skull.middle + wide, skull.ear - 30)],
            np.stack([steps, ends], axis=1)[::-1],
        ]
    )
    return np.maximum(crown, _polygon(points.astype(np.float32), 2.0))


def _cover(canvas: Floats, skull: _Skull, style: str, colour: Floats, rng: np.random.Generator) -> None:
    """Hair or hat over the forehead."""
    if style in ("beanie", "cap"):
        _hat(canvas, skull, style, colour, rng)
        return
    strands = _strands(skull, colour, rng)
    strength = {"bald": 0.42, "crop": 0.86}.get(style, 1.0)
    mask = _front_hair(skull, style, rng)
    shadow = cv2.GaussianBlur(np.roll(mask, 5, axis=0), (0, 0), 5) * 0.30 * strength
    canvas[..., :3] *= (1 - shadow)[..., None]
    _lay(canvas, mask * strength, strands)


def _front_hair(skull: _Skull, style: str, rng: np.random.Generator) -> Floats:
    """Everything between the crown's outline and the hairline."""
    lift = {"crop": 2.0, "bald": 0.0, "receding": 2.0, "bun": 6.0, "short": 13.0}.get(style, 11.0)
    wide = skull.half * (1.05 if style in ("crop", "bald", "receding") else 1.15)
    crown = _ellipse((skull.middle, skull.ear - 4), (wide, skull.ear - skull.top + lift), 1.6)
    low = {"long": skull.chin - 6, "bob": skull.chin - 22}.get(style, skull.ear + 22)
    crown = np.maximum(crown, _locks(skull, wide, low)) if style in ("long", "bob") else crown
    rows = np.mgrid[0:HEIGHT, 0:WIDTH][0]
    crown = crown * np.clip((low - rows) / 10 + 0.5, 0, 1)
    return np.asarray(crown * (1 - _forehead(skull, style, rng)), np.float32)


def _locks(skull: _Skull, wide: float, low: float) -> Floats:
    points = [(skull.middle - wide, skull.ear - 20), (skull.middle + wide, skull.ear - 20)]
    points += [(skull.middle + wide * 1.06, low), (skull.middle - wide * 1.06, low)]
    return _polygon(floats(points), 2.0)


def _forehead(skull: _Skull, style: str, rng: np.random.Generator) -> Floats:
    """The opening through which the face shows; its upper rim is the hairline, a little ragged."""
    rise = {"receding": 30.0, "bald": 46.0, "crop": 4.0, "bun": 8.0}.get(style, 0.0)
    narrow = {"long": 0.90, "bob": 0.92}.get(style, 0.97)
    part = float(rng.choice([-0.45, 0.45])) if style in ("parted", "long", "bob") else 0.0
    steps = np.linspace(-1, 1, 60)
    arch = np.sqrt(np.clip(1 - np.abs(steps) ** 2.6, 0, 1))
    tilt = 1 - 0.30 * np.abs(steps - part) ** 1.5 if part else np.ones(60)
    height = skull.ear + 6 - (skull.ear + 6 - skull.hairline + rise) * arch * tilt
    height += rng.uniform(-3, 3, 60) * (style != "bun")
    upper = np.stack([skull.middle + steps * skull.half * narrow, height], axis=1)
    jaw = [(skull.middle + skull.half * narrow, skull.ear + 10), (skull.middle + skull.half * 0.98, skull.chin + 10)]
    jaw += [(skull.middle - skull.half * 0.98, skull.chin + 10), (skull.middle - skull.half * narrow, skull.ear + 10)]
    return _polygon(np.vstack([upper, jaw]).astype(np.float32), 2.4)


def _hat(canvas: Floats, skull: _Skull, style: str, colour: Floats, rng: np.random.Generator) -> None:
    """A knitted or a peaked cap in a quiet colour, with a little hair below it at the sides."""
    cloth = floats(rng.integers(30, 120, 3))
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    side = np.clip(np.abs(columns - skull.middle) / (skull.half * 1.15), 0, 1)
    ribs = 0.10 * np.sin(columns / 3.2) * (style == "beanie")
    light = (1.05 - 0.45 * side**2 + ribs)[..., None] * cloth
    rim = skull.hairline + 24
    hair = _front_hair(skull, "crop", rng) * np.clip((rows - rim) / 6, 0, 1) * 0.9
    _lay(canvas, hair.astype(np.float32), _strands(skull, colour, rng))
    crown = _ellipse((skull.middle, rim + 4), (skull.half * 1.10, rim - skull.top + 20), 1.5)
    _lay(canvas, crown * np.clip((rim + 3 - rows) / 3, 0, 1), light.astype(np.float32))
    if style == "beanie":
        fold = _ellipse((skull.middle, rim - 6), (skull.half * 1.13, 17), 1.5)
        _lay(canvas, fold, (light * 0.82).astype(np.float32))
        return
    peak = _ellipse((skull.middle, rim + 1), (skull.half * 0.92, 11), 1.5)
    canvas[..., :3] *= (1 - 0.35 * cv2.GaussianBlur(np.roll(peak, 10, axis=0), (0, 0), 6))[..., None]
    _lay(canvas, peak, (light * 0.6).astype(np.float32))


def portrait_scale(eye_distance: float) -> float:
    """Factor that brings a sprite's eyes to `eye_distance` pixels apart."""
    return eye_distance / EYE_DISTANCE
