"""A shopping street without anybody in it, drawn from nothing but numbers."""

from __future__ import annotations

import cv2
import numpy as np

from demo.arrays import Bytes, Floats, floats

WIDTH, HEIGHT = 1280, 720
FOCAL = 2000.0
"""Focal length in pixels: a face 0.15 m wide fills 130 pixels at 2.3 m."""
HORIZON = 196.0
CAMERA_HEIGHT = 1.92
"""Metres above the pavement."""
_WALL = 3.6
_NEAR, _FAR = 9.0, 62.0
_ACROSS, _UP = 56, 100
"""Texture pixels a metre, along the street and up the walls."""
_SIGNS = ("TEA & CAKES", "BOOKS", "FLOWERS", "BICYCLES", "KEYS CUT", "BAKERY", "LAMPS", "TAILOR", "RECORDS", "SHOES")
_FRONTS = ((98, 112, 146), (150, 168, 186), (176, 190, 200), (110, 126, 140), (120, 136, 170))
_HAZE = floats([216, 208, 198])


def project(across: float, up: float, distance: float) -> tuple[float, float]:
    """Pixel of a point `across` metres right of the camera, `up` metres above ground, `distance` metres away."""
    return WIDTH / 2 + FOCAL * across / distance, HORIZON + FOCAL * (CAMERA_HEIGHT - up) / distance


def draw_street(rng: np.random.Generator) -> Bytes:
    """The empty street, (HEIGHT, WIDTH, 3) BGR."""
    picture = _sky(rng)
    _distance(picture, rng)
    picture = _ground(picture, rng)
    for side in (-1, 1):
        picture = _wall(picture, side, rng)
    for side, distance in ((-1, 46.0), (1, 39.0), (-1, 30.0), (1, 24.0), (-1, 18.5)):
        _lamp(picture, side * 2.75, distance)
    soft = cv2.GaussianBlur(picture, (0, 0), 1.3)
    grain = cv2.GaussianBlur(rng.standard_normal((HEIGHT, WIDTH, 1)).astype(np.float32), (0, 0), 0.7)
    return np.clip(soft + grain[..., None] * 2.0, 0, 255).astype(np.uint8)


def _noise(rng: np.random.Generator, height: int, width: int, scale: float) -> Floats:
    """Smooth noise of about unit deviation with features `scale` pixels wide."""
    small = rng.standard_normal((int(height / scale) + 3, int(width / scale) + 3)).astype(np.float32)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def _sky(rng: np.random.Generator) -> Floats:
    down = np.linspace(0, 1, HEIGHT, dtype=np.float32)[:, None, None]
    sky = floats([226, 190, 150]) * (1 - down) + floats([232, 226, 216]) * down
    sky = np.repeat(np.minimum(sky * 1.06, 255), WIDTH, axis=1)
    clouds = sum(_noise(rng, HEIGHT, WIDTH, s) * s for s in (160, 80, 40, 20)) / 190
    cover = np.clip(np.asarray(clouds), 0, 1)[..., None] * 0.75
    return np.asarray(sky * (1 - cover) + floats([246, 243, 240]) * cover, np.float32)


def _distance(picture: Floats, rng: np.random.Generator) -> None:
    """Roofs and trees where the street ends."""
    for shade, top, step in ((0.86, 70, 46), (0.74, 40, 34)):
        x = 380
        while x < 900:
            width, height = int(rng.integers(step, step * 2)), int(rng.integers(top // 2, top + 60))
            colour = _HAZE * shade * rng.uniform(0.94, 1.04)
            cv2.rectangle(picture, (x, int(HORIZON) - height), (x + width, int(HORIZON) + 30), colour.tolist(), -1)
            x += width
    cv2.rectangle(picture, (0, int(HORIZON)), (WIDTH, HEIGHT), (_HAZE * 0.82).tolist(), -1)
    for _ in range(260):
        across, y = rng.normal(640, 90), HORIZON + 6 - abs(rng.normal(8, 14))
        green = floats([96, 128, 112]) * rng.uniform(0.8, 1.2)
        cv2.circle(picture, (int(across), int(y)), int(rng.integers(3, 9)), green.tolist(), -1, cv2.LINE_AA)


def _paste(picture: Floats, texture: Floats, corners: list[tuple[float, float]]) -> Floats:
    """The texture seen in perspective: its corners (clockwise from top left) at the given pixels."""
    height, width = texture.shape[:2]
    source = floats([(0, 0), (width, 0), (width, height), (0, height)])
    matrix = cv2.getPerspectiveTransform(source, floats(corners))
    size = (WIDTH, HEIGHT)
    drawn = cv2.warpPerspective(texture, matrix, size, flags=cv2.INTER_AREA)
    inside = cv2.warpPerspective(np.ones((height, width), np.float32), matrix, size)[..., None]
    return np.asarray(picture * (1 - inside) + drawn * inside, np.float32)


def _haze(texture: Floats, distances: Floats) -> Floats:
    """Blend towards the sky's colour with distance; `distances` must broadcast over the texture."""
    share = (1 - np.exp(-np.maximum(distances - 12, 0) / 46))[..., None]
    return np.asarray(texture * (1 - share) + _HAZE * share, np.float32)


def _ground(picture: Floats, rng: np.random.Generator) -> Floats:
    """Paving slabs between the walls, kerb stones at the shop fronts."""
    scale, near = 48, 7.0
    height, width = int((_FAR - near) * scale), int(2 * _WALL * scale)
    texture = np.full((height, width, 3), (150, 156, 162), np.float32)
    slab = (43, 29)
    for row in range(0, height, slab[1]):
        shift = (row // slab[1] % 2) * slab[0] // 2
        for column in range(-shift, width, slab[0]):
            tone = float(rng.normal(0, 6))
            texture[row : row + slab[1], max(column, 0) : column + slab[0]] += tone + rng.normal(0, 1.5, 3)
            texture[row : row + slab[1], max(column, 0) : max(column, 0) + 2] -= 26
        texture[row : row + 2] -= 26
    texture += _noise(rng, height, width, 5)[..., None] * 4 + _noise(rng, height, width, 90)[..., None] * 7
    for edge in (slice(0, 40), slice(width - 40, width)):
        texture[:, edge] *= 0.80
    hazed = _haze(texture, np.linspace(_FAR, near, height, dtype=np.float32)[:, None])
    corners = [project(-_WALL, 0, _FAR), project(_WALL, 0, _FAR), project(_WALL, 0, near), project(-_WALL, 0, near)]
    return _paste(picture, hazed, corners)


def _wall(picture: Floats, side: int, rng: np.random.Generator) -> Floats:
    """One row of houses with shops, seen along the street."""
    metres = _FAR - _NEAR
    houses: list[Floats] = []
    while sum(h.shape[1] for h in houses) < metres * _ACROSS:
        houses.append(_house(float(rng.uniform(5.0, 7.5)), rng))
    texture = np.hstack(houses)[:, : int(metres * _ACROSS)]
    distances = np.linspace(_NEAR, _FAR, texture.shape[1], dtype=np.float32)[None, ::-side]
    texture = _haze(texture * (0.86 if side < 0 else 1.04), distances)
    height, across = texture.shape[0] / _UP, side * _WALL
    left, right = (_NEAR, _FAR) if side < 0 else (_FAR, _NEAR)
    corners = [project(across, height, left), project(across, height, right)]
    corners += [project(across, 0, right), project(across, 0, left)]
    return _paste(picture, texture, corners)


_HOUSE_HEIGHT = 9.0


def _house(width: float, rng: np.random.Generator) -> Floats:
    """A house front: bricks or render above, a shop front below; rows from the roof down."""
    columns, rows = int(width * _ACROSS), int(_HOUSE_HEIGHT * _UP)
    roof = int(rng.uniform(0.0, 1.6) * _UP)
    wall = floats([(98, 112, 146), (150, 168, 186), (176, 190, 200), (110, 126, 140), (120, 136, 170)][rng.integers(5)])
    front = np.full((rows, columns, 3), wall, np.float32)
    for row in range(0, rows, 9):
        front[row : row + 2] *= 0.93
    front += _noise(rng, rows, columns, 4)[..., None] * 5 + _noise(rng, rows, columns, 60)[..., None] * 4
    for row in (roof + 60, roof + 310):
        _windows(front, row, rng)
    front[:, :2] *= 0.6
    _shop(front, rng)
    front[:roof] = _HAZE * 1.08
    front[roof : roof + 16] = wall * 1.12
    return np.clip(front, 0, 255)


def _windows(front: Floats, row: int, rng: np.random.Generator) -> None:
    columns = front.shape[1]
    for number in range(3):
        left = int(columns * (0.10 + 0.30 * number))
        right, bottom = left + int(columns * 0.19), row + 150
        cv2.rectangle(front, (left - 5, row - 8), (right + 5, bottom + 10), (222, 226, 230), -1)
        glass = np.linspace(0.8, 1.3, 150)[:, None, None] * floats([112, 96, 82]) * rng.uniform(0.8, 1.2)
        front[row:bottom, left:right] = np.repeat(glass, right - left, axis=1)
        cv2.line(front, ((left + right) // 2, row), ((left + right) // 2, bottom), (222, 226, 230), 3)
        cv2.line(front, (left, row + 70), (right, row + 70), (222, 226, 230), 4)


def _shop(front: Floats, rng: np.random.Generator) -> None:
    """A shop window with lit goods, a door, a sign above, and often an awning."""
    rows, columns = front.shape[:2]
    top, paint = rows - 300, floats(rng.integers(24, 96, 3)) * 0.6 + float(rng.integers(12, 40))
    front[top:] = paint
    inside = np.linspace(1.15, 0.75, 190)[:, None, None] * floats([128, 176, 206]) * rng.uniform(0.7, 1.1)
    door = int(columns * rng.uniform(0.66, 0.74))
    front[top + 80 : top + 270, 16 : door - 12] = inside
    front[top + 80 : rows, door : door + 50] = floats([70, 76, 84])
    front[top + 90 : rows - 50, door + 7 : door + 43] = floats([128, 150, 164])
    for _ in range(26):
        x, size = int(rng.integers(20, door - 24)), int(rng.integers(6, 22))
        y = top + 268 - size - int(rng.choice([0, 62, 118]))
        colour = (inside.mean(axis=(0, 1)) * 0.6 + rng.integers(0, 110, 3) * 0.5).tolist()
        cv2.rectangle(front, (x, y), (x + size, y + size), colour, -1)
    for x in np.linspace(16, door - 12, 4).astype(int):
        cv2.line(front, (int(x), top + 80), (int(x), top + 270), (paint * 0.7).tolist(), 5)
    cv2.rectangle(front, (0, top), (columns, top + 58), (paint * 0.75).tolist(), -1)
    text = str(rng.choice(_SIGNS))
    letters = np.zeros((rows, columns), np.uint8)
    cv2.putText(letters, text, (24, top + 44), cv2.FONT_HERSHEY_DUPLEX, 1.25, 255, 3, cv2.LINE_AA)
    share = (letters.astype(np.float32) / 255)[..., None]
    front[:] = front * (1 - share) + floats([226, 236, 240]) * share
    if rng.random() < 0.6:
        _awning(front[top + 60 : top + 112], rng)


def _awning(strip: Floats, rng: np.random.Generator) -> None:
    stripes = np.arange(strip.shape[1]) // 22 % 2
    colours = np.stack([floats([225, 230, 232]), floats(rng.integers(40, 140, 3)) * 0.7 + 20])
    light = np.linspace(1.05, 0.75, strip.shape[0])[:, None, None]
    strip[:] = light * colours[stripes][None]


def _lamp(picture: Floats, across: float, distance: float) -> None:
    """A lamp post with a lantern."""
    share = 1 - np.exp(-max(distance - 12, 0) / 46)
    colour = (floats([46, 44, 40]) * (1 - share) + _HAZE * share).tolist()
    scale = FOCAL / distance
    foot, head = project(across, 0, distance), project(across, 4.1, distance)
    thick = max(int(0.10 * scale), 2)
    cv2.line(picture, (int(foot[0]), int(foot[1])), (int(head[0]), int(head[1])), colour, thick, cv2.LINE_AA)
    base = project(across, 0.7, distance)
    cv2.line(picture, (int(foot[0]), int(foot[1])), (int(base[0]), int(base[1])), colour, thick * 2, cv2.LINE_AA)
    x, y, size = head[0], head[1], 0.22 * scale
    lantern = np.array([(x - size, y - 2 * size), (x + size, y - 2 * size), (x + size * 0.6, y), (x - size * 0.6, y)])
    cv2.fillPoly(picture, [lantern.astype(np.int32)], (206, 236, 246), cv2.LINE_AA)
    cv2.polylines(picture, [lantern.astype(np.int32)], True, colour, max(thick // 2, 1), cv2.LINE_AA)
