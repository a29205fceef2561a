"""Passers-by drawn into the street: where each stands in each frame, in which light, and how sharp."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from demo import bodies, heads
from demo.arrays import Floats, floats
from demo.bodies import Body
from demo.heads import Head
from demo.street import FOCAL, HEIGHT, WIDTH, project

HEAD_SCALE = 1016.0
"""Pixels of a head sprite a metre."""
_NECK = (heads.SHOULDERS - heads.EYE_Y) / HEAD_SCALE
"""Metres from the eyes down to the base of the neck."""


@dataclass(frozen=True)
class Figure:
    """Everything drawn for one identity: sprites at full, half and quarter size."""

    heads: tuple[Floats, ...]
    body: Body
    face: tuple[float, float, float, float]
    """The face's box in the head sprite: left, top, width, height."""


@dataclass(frozen=True)
class Pose:
    """A figure at one moment. Lengths in metres, angles in radians, blur in pixels, `light` a BGR gain."""

    across: float
    distance: float
    eyes: float
    roll: float
    yaw: float
    step: float
    light: tuple[float, float, float]
    side_light: float
    blur: float


@dataclass(frozen=True)
class Placed:
    """A head as it lies in the picture: where sprite point (EYE_X, EYE_Y) goes, pixels a sprite pixel, roll."""

    x: float
    y: float
    scale: float
    roll: float
    yaw: float


def figure(head: Head, body: Body, box: tuple[float, float, float, float]) -> Figure:
    """Prepare the smaller copies that keep distant heads free of aliasing."""
    sprites = [head.sprite]
    for _ in range(2):
        last = sprites[-1]
        sprites.append(floats(cv2.resize(last, (last.shape[1] // 2, last.shape[0] // 2), interpolation=cv2.INTER_AREA)))
    return Figure(tuple(sprites), body, box)


def placed(pose: Pose) -> Placed:
    """Where the head lies for a pose."""
    x, y = project(pose.across, pose.eyes, pose.distance)
    return Placed(x, y, FOCAL / pose.distance / HEAD_SCALE, pose.roll, pose.yaw)


def face_box(shape: Figure, head: Placed) -> tuple[float, float, float, float]:
    """The face's box in the picture: left, top, width, height (pixels)."""
    left, top, width, height = shape.face
    dx, dy = left + width / 2 - heads.EYE_X, top + height / 2 - heads.EYE_Y
    x = head.x + head.scale * (dx - head.roll * dy)
    y = head.y + head.scale * (dy + head.roll * dx)
    return x - head.scale * width / 2, y - head.scale * height / 2, head.scale * width, head.scale * height


def draw_figure(picture: Floats, shape: Figure, pose: Pose) -> None:
    """Draw legs, body and head over the picture (HEIGHT, WIDTH, 3), in place."""
    head = placed(pose)
    per_metre = FOCAL / pose.distance
    neck = (head.x - head.roll * _NECK * per_metre, head.y + _NECK * per_metre)
    if pose.distance > 4.2:
        _draw_legs(picture, shape.body, pose)
    swing = 0.020 * np.sin(pose.step)
    for arm, lift in ((shape.body.left_arm, swing), (shape.body.right_arm, -swing)):
        _draw_body(picture, arm, (neck[0], neck[1] + lift * per_metre), per_metre, pose)
    _draw_body(picture, shape.body.torso, neck, per_metre, pose)
    draw_head(picture, shape, head, pose)


def draw_bust(picture: Floats, shape: Figure, head: Placed, pose: Pose) -> None:
    """Draw head and shoulders for a portrait, wherever `head` says; `pose` gives light and blur."""
    per_metre = head.scale * HEAD_SCALE
    neck = (head.x - head.roll * _NECK * per_metre, head.y + _NECK * per_metre)
    for part in (shape.body.left_arm, shape.body.right_arm, shape.body.torso):
        _draw_body(picture, part, neck, per_metre, pose)
    draw_head(picture, shape, head, pose)


def _draw_legs(picture: Floats, body: Body, pose: Pose) -> None:
    colour = (floats(body.trousers) * floats(pose.light)).tolist()
    shoes = (floats(body.shoes) * floats(pose.light)).tolist()
    _draw_shadow(picture, pose)
    hip = pose.eyes - _NECK - 0.55
    for side in (-1, 1):
        lift = max(0.0, 0.10 * float(np.sin(pose.step) * side))
        near = pose.distance - (0.12 if lift > 0 else -0.05)
        knee = [(side * 0.02, hip), (side * 0.19, hip), (side * 0.15, lift + 0.05), (side * 0.055, lift + 0.05)]
        _fill(picture, [project(pose.across + x, y, near) for x, y in knee], colour)
        foot = [
            (side * 0.05, lift + 0.07),
            (side * 0.155, lift + 0.07),
            (side * 0.17, lift - 0.01),
            (side * 0.045, lift - 0.01),
        ]
        _fill(picture, [project(pose.across + x, y, near) for x, y in foot], shoes)


def _draw_shadow(picture: Floats, pose: Pose) -> None:
    """A soft dark patch under the feet, where they are in the picture."""
    (x, y), size = project(pose.across, 0, pose.distance), FOCAL / pose.distance
    area = _region(picture, x - 0.42 * size, y - 0.12 * size, x + 0.42 * size, y + 0.12 * size)
    if area is None:
        return
    rows, columns = area
    down, across = np.mgrid[rows, columns].astype(np.float32)
    reach = ((across - x) / (0.26 * size)) ** 2 + ((down - y) / (0.05 * size)) ** 2
    picture[rows, columns] *= (1 - 0.40 * np.exp(-reach))[..., None]


def _fill(picture: Floats, points: list[tuple[float, float]], colour: list[float]) -> None:
    """A filled polygon with soft edges: OpenCV smooths none on floating-point pictures."""
    corners = floats(points)
    low = np.maximum(corners.min(axis=0).astype(int) - 2, 0)
    high = np.minimum(corners.max(axis=0).astype(int) + 3, (WIDTH, HEIGHT))
    if (high <= low).any():
        return
    mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    cv2.fillPoly(mask, [np.round((corners - low) * 8).astype(np.int32)], 255, cv2.LINE_AA, 3)
    share = (cv2.GaussianBlur(mask, (0, 0), 0.8).astype(np.float32) / 255)[..., None]
    area = picture[low[1] : high[1], low[0] : high[0]]
    area *= 1 - share
    area += share * floats(colour)


def _draw_body(picture: Floats, sprite: Floats, neck: tuple[float, float], per_metre: float, pose: Pose) -> None:
    scale = per_metre / bodies.SCALE
    left, top = neck[0] - scale * bodies.WIDTH / 2, neck[1] - 8 * scale
    area = _region(picture, left, top, left + scale * bodies.WIDTH, top + scale * bodies.HEIGHT)
    if area is None:
        return
    rows, columns = area
    matrix = floats([[scale, 0, left - columns.start], [0, scale, top - rows.start]])
    size = (columns.stop - columns.start, rows.stop - rows.start)
    drawn = floats(
        cv2.warpAffine(_reduced(sprite, scale), _reduced_matrix(matrix, scale), size, flags=cv2.INTER_LINEAR)
    )
    # Enlarged cloth is soft enough already; blurring it would cost most of the drawing time.
    _blend(picture[rows, columns], drawn, pose, pose.blur if scale < 0.8 else 0.0)


def _reduced(sprite: Floats, scale: float) -> Floats:
    if scale > 0.6:
        return sprite
    return np.asarray(cv2.resize(sprite, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.float32)


def _reduced_matrix(matrix: Floats, scale: float) -> Floats:
    return matrix if scale > 0.6 else matrix * floats([2, 2, 1])


def _region(picture: Floats, left: float, top: float, right: float, bottom: float) -> tuple[slice, slice] | None:
    height, width = picture.shape[:2]
    columns = slice(max(int(left) - 3, 0), min(int(right) + 4, width))
    rows = slice(max(int(top) - 3, 0), min(int(bottom) + 4, height))
    return None if columns.start >= columns.stop or rows.start >= rows.stop else (rows, columns)


def draw_head(picture: Floats, shape: Figure, head: Placed, pose: Pose) -> None:
    """Draw a head turned by `roll` in the picture's plane and, seemingly, by `yaw` about its own axis."""
    reach = 0.12 * heads.HEIGHT
    left, right = head.x - (heads.EYE_X + reach) * head.scale, head.x + (heads.WIDTH - heads.EYE_X + reach) * head.scale
    top, bottom = head.y - heads.EYE_Y * head.scale, head.y + (heads.HEIGHT - heads.EYE_Y) * head.scale
    area = _region(picture, left, top, right, bottom)
    if area is None:
        return
    rows, columns = area
    y, x = np.mgrid[rows, columns].astype(np.float32)
    dx, dy = (x - head.x) / head.scale, (y - head.y) / head.scale
    across, down = dx + head.roll * dy, dy - head.roll * dx
    # A sphere's front moves further than its rim when it turns: that shift alone reads as a turned head.
    depth = np.sqrt(np.clip(1 - (across / 92) ** 2, 0, 1)) * np.exp(-(((down - 20) / 150) ** 4))
    level = 0 if head.scale > 0.6 else 1 if head.scale > 0.3 else 2
    share = 0.5**level
    source_x = (across - 72 * float(np.sin(head.yaw)) * depth + heads.EYE_X) * share
    source_y = (down + heads.EYE_Y) * share
    drawn = floats(cv2.remap(shape.heads[level], source_x, source_y, cv2.INTER_LINEAR))
    # The neck ends under the collar, wherever the sprite ends.
    drawn *= np.clip((heads.SHOULDERS + 14 - down - heads.EYE_Y) / 14, 0, 1)[..., None]
    drawn[..., :3] *= (1 + pose.side_light * np.clip(across / 90, -1, 1))[..., None]
    _blend(picture[rows, columns], drawn, pose, pose.blur)


def _blend(area: Floats, drawn: Floats, pose: Pose, blur: float) -> None:
    drawn[..., :3] *= floats(pose.light)
    if blur > 0.25:
        drawn = floats(cv2.GaussianBlur(drawn, (0, 0), blur))
    area *= 1 - drawn[..., 3:]
    area += drawn[..., :3]
