"""Scenes composed from real photographs: what the detector learns from, and what it is measured on.

A scene is a function of a seed and a number alone: photographs are scaled, turned and pasted on backgrounds (clip
frames, scrambled and upside-down pieces of photographs, drawn shapes, noise), so that faces span 10 to 300 pixels. Some
scenes hold no face on purpose. No identity on the held-out side of `split` is in a training scene, nor the other way.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from models.training.chips import Picture
from models.training.sources import shared_folder
from models.training.split import held_out, lfw_identity, overlap_aliases, utk_identity
from models.training.teacher import read_picture

CLIPS = ("bottle-detection.mp4", "one-by-one-person-detection.mp4")
_UTK_BOX = (28.0, 26.0, 104.0, 126.0)  # where a face lies in a 160 x 160 chip, roughly: UTKFace crops are alike
_SMALLEST, _LARGEST = 9.0, 300.0  # face widths in pixels
_CLIP_SHARE = 0.7  # of each clip, from its start, that training sees; the rest is for measuring
_CLIP_FRAMES = 40  # kept of each clip: neighbouring frames are alike
_MOST_PASTES = 26


@dataclass(frozen=True)
class Portrait:
    """One photograph with one labelled face: box x, y, width, height in its own pixels."""

    file: Path
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Album:
    """What one side of the split composes from."""

    portraits: tuple[Portrait, ...]
    frames: tuple[Picture, ...] = field(repr=False)


def load_album(held: bool, folder: Path | None = None) -> Album:
    """The photographs and clip frames of the training side (``held`` false) or the held-out side."""
    data = (folder or shared_folder()) / "data"
    portraits = [*_lfw_portraits(data, held), *_utk_portraits(data, held)]
    frames = [frame for clip in CLIPS for frame in _clip_frames(data / "clips" / clip, held)]
    return Album(tuple(portraits), tuple(frames))


def _lfw_portraits(data: Path, held: bool) -> list[Portrait]:
    aliases = overlap_aliases(data / "labels" / "lfw_overlaps.csv")
    with np.load(data / "labels" / "lfw.npz") as labels:
        rows = [(str(n), y) for n, y in zip(labels["name"], labels["yunet"], strict=True)]
    return [
        Portrait(
            data / "lfw" / lfw_identity(name) / f"{name}.jpg", (float(y[0]), float(y[1]), float(y[2]), float(y[3]))
        )
        for name, y in rows
        if held_out(lfw_identity(name), aliases) == held
    ]


def _utk_portraits(data: Path, held: bool) -> list[Portrait]:
    files = sorted((data / "utk").glob("*.jpg"))
    return [Portrait(file, _UTK_BOX) for file in files if held_out(utk_identity(file.name)) == held]


def _clip_frames(file: Path, held: bool) -> list[Picture]:
    clip = cv2.VideoCapture(str(file))
    count = int(clip.get(cv2.CAP_PROP_FRAME_COUNT))
    first, last = (int(count * _CLIP_SHARE), count) if held else (0, int(count * _CLIP_SHARE))
    wanted = set(np.linspace(first, last - 1, _CLIP_FRAMES).astype(int).tolist())
    frames = []
    for number in range(last):
        if not clip.grab():
            break
        if number in wanted:
            frames.append(np.asarray(clip.retrieve()[1], dtype=np.uint8))
    clip.release()
    return frames


class Composer:
    """Makes scene ``number`` of a seed, always the same one. Not thread-safe."""

    def __init__(self, album: Album, seed: int) -> None:
        self._album, self._seed = album, seed

    def scene(self, number: int, width: int, height: int) -> Picture:
        """(height, width, 3) uint8 BGR."""
        rng = np.random.default_rng((self._seed, number))
        kind = rng.random()
        scene = self._background(rng, width, height)
        if kind < 0.30:
            self._mosaic(rng, scene)
        elif kind < 0.78:
            self._crowd(rng, scene)
        elif kind < 0.88:
            self._close_up(rng, scene)
        return _seen_badly(rng, scene)

    def _portrait(self, rng: np.random.Generator) -> Portrait:
        return self._album.portraits[int(rng.integers(len(self._album.portraits)))]

    def _background(self, rng: np.random.Generator, width: int, height: int) -> Picture:
        makers = (self._clip_crop, self._scramble, self._scramble, self._enlarged_edge, _noise, _shapes)
        scene = makers[int(rng.integers(len(makers)))](rng, width, height)
        if rng.random() < 0.25:
            _draw_shapes(rng, scene, int(rng.integers(2, 25)))
        return scene

    def _clip_crop(self, rng: np.random.Generator, width: int, height: int) -> Picture:
        frame = self._album.frames[int(rng.integers(len(self._album.frames)))]
        scale = max(width / frame.shape[1], height / frame.shape[0]) * rng.uniform(1.0, 2.2)
        large = cv2.resize(frame, None, fx=scale + 0.01, fy=scale + 0.01, interpolation=cv2.INTER_LINEAR)
        x, y = rng.integers(large.shape[1] - width + 1), rng.integers(large.shape[0] - height + 1)
        piece = large[y : y + height, x : x + width]
        return np.ascontiguousarray(piece[:, ::-1] if rng.random() < 0.5 else piece)

    def _scramble(self, rng: np.random.Generator, width: int, height: int) -> Picture:
        """A photograph cut into blocks, shuffled, some upside down: skin, hair and cloth without a face's order."""
        photograph = read_picture(self._portrait(rng).file)
        block = int(rng.choice([10, 16, 25, 40]))
        count = photograph.shape[0] // block
        pieces = photograph[: count * block, : count * block].reshape(count, block, count, block, 3)
        pieces = rng.permutation(pieces.transpose(0, 2, 1, 3, 4).reshape(-1, block, block, 3))
        pieces[: len(pieces) // 2] = pieces[: len(pieces) // 2, ::-1]
        joined = pieces.reshape(count, count, block, block, 3).transpose(0, 2, 1, 3, 4)
        return _filled(rng, joined.reshape(count * block, count * block, 3), width, height)

    def _enlarged_edge(self, rng: np.random.Generator, width: int, height: int) -> Picture:
        """The strip beside a face (background, shoulders), mirrored until it fills the scene."""
        portrait = self._portrait(rng)
        photograph = read_picture(portrait.file)
        side = max(16, int(portrait.box[0] - 6))
        strip = photograph[:, :side] if rng.random() < 0.5 else photograph[:, -side:]
        return _filled(rng, np.ascontiguousarray(strip), width, height)

    def _mosaic(self, rng: np.random.Generator, scene: Picture) -> None:
        """Whole photographs side by side, hard edges and all."""
        height, width = scene.shape[:2]
        face = _face_width(rng, 0.75 * min(width, height))
        step = max(face * rng.uniform(1.3, 2.6), 12.0)
        x0, y0 = rng.uniform(-step, 0), rng.uniform(-step, 0)
        cells = [(x, y) for y in np.arange(y0, height + step, step) for x in np.arange(x0, width + step, step)]
        rng.shuffle(cells)
        for x, y in cells[:_MOST_PASTES]:
            _paste(rng, scene, self._portrait(rng), (float(x), float(y)), face * rng.uniform(0.85, 1.15), soft=False)

    def _crowd(self, rng: np.random.Generator, scene: Picture) -> None:
        """Heads with soft outlines anywhere, small behind large."""
        height, width = scene.shape[:2]
        scale = _face_width(rng, 0.8 * min(width, height))
        room = width * height / (2.5 * scale * scale)
        count = int(np.clip(rng.uniform(0.15, 0.9) * room, 1, rng.integers(4, _MOST_PASTES)))
        spread = rng.uniform(1.0, 2.2)
        faces = np.sort(scale * spread ** rng.uniform(-1, 1, count))
        for face in faces:
            centre = (rng.uniform(0, width), rng.uniform(0, height))
            _paste(rng, scene, self._portrait(rng), centre, float(face), soft=rng.random() < 0.8)

    def _close_up(self, rng: np.random.Generator, scene: Picture) -> None:
        """One photograph that fills the scene."""
        height, width = scene.shape[:2]
        portrait = self._portrait(rng)
        face = max(rng.uniform(0.25, 0.95) * min(width, height), portrait.box[2] * 0.7)
        centre = (width * rng.uniform(0.3, 0.7), height * rng.uniform(0.35, 0.65))
        _paste(rng, scene, portrait, centre, float(min(face, _LARGEST)), soft=False)


def _face_width(rng: np.random.Generator, most: float) -> float:
    return float(np.exp(rng.uniform(np.log(_SMALLEST), np.log(min(_LARGEST, most)))))


def _filled(rng: np.random.Generator, piece: Picture, width: int, height: int) -> Picture:
    scale = rng.uniform(0.5, 3.0)
    piece = np.asarray(cv2.resize(piece, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
    down, right = max(0, height - piece.shape[0]), max(0, width - piece.shape[1])
    piece = np.asarray(cv2.copyMakeBorder(piece, 0, down, 0, right, cv2.BORDER_REFLECT), dtype=np.uint8)
    return np.ascontiguousarray(piece[:height, :width])


def _noise(rng: np.random.Generator, width: int, height: int) -> Picture:
    """Clouds: noise of several grains, tinted; from plaster to foliage."""
    total = np.zeros((height, width, 3), np.float32)
    for grain in (4, 16, 64, 160):
        size = (height // grain + 2, width // grain + 2)
        coarse = (rng.standard_normal((*size, 1)) + 0.3 * rng.standard_normal((*size, 3))).astype(np.float32)
        total += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * np.float32(rng.uniform(0, 30))
    return np.clip(total + rng.uniform(30, 220, 3).astype(np.float32), 0, 255).astype(np.uint8)


def _shapes(rng: np.random.Generator, width: int, height: int) -> Picture:
    scene = np.empty((height, width, 3), np.uint8)
    top, bottom = rng.uniform(20, 235, 3), rng.uniform(20, 235, 3)
    scene[:] = (top + (bottom - top) * np.linspace(0, 1, height)[:, None, None]).astype(np.uint8)
    _draw_shapes(rng, scene, int(rng.integers(10, 80)))
    return scene


def _draw_shapes(rng: np.random.Generator, scene: Picture, count: int) -> None:
    """Windows, wheels, signs, letters, and ovals with two dots: what a street holds that is no face."""
    height, width = scene.shape[:2]
    for _ in range(count):
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        x, y = int(rng.integers(width)), int(rng.integers(height))
        w, h = (int(v) for v in np.exp(rng.uniform(1.0, 4.5, 2)))
        kind = int(rng.integers(5))
        thick = -1 if rng.random() < 0.6 else int(rng.integers(1, 5))
        if kind == 0:
            cv2.rectangle(scene, (x, y), (x + w, y + h), colour, thick)
        elif kind == 1:
            cv2.ellipse(scene, (x, y), (w, h), float(rng.uniform(0, 180)), 0, 360, colour, thick, cv2.LINE_AA)
        elif kind == 2:
            cv2.line(scene, (x, y), (x + 4 * w, y + int(rng.integers(-80, 80))), colour, max(1, thick), cv2.LINE_AA)
        elif kind == 3:
            text = "".join(chr(int(c)) for c in rng.integers(48, 91, int(rng.integers(1, 9))))
            cv2.putText(scene, text, (x, y), int(rng.integers(0, 8)), float(rng.uniform(0.3, 2)), colour, max(1, thick))
        else:
            _draw_sockets(scene, (x, y), w, colour)


def _draw_sockets(scene: Picture, centre: tuple[int, int], size: int, colour: tuple[int, ...]) -> None:
    """An oval with two dots: a socket, a tap, a car's front."""
    x, y = centre
    cv2.ellipse(scene, centre, (size, int(size * 1.2)), 0, 0, 360, colour, -1, cv2.LINE_AA)
    dark = tuple(c // 3 for c in colour)
    for side in (-1, 1):
        cv2.circle(scene, (x + side * size // 3, y - size // 4), max(1, size // 7), dark, -1, cv2.LINE_AA)


def _paste(
    rng: np.random.Generator, scene: Picture, portrait: Portrait, centre: tuple[float, float], face: float, soft: bool
) -> None:
    """Put a photograph so that its face is ``face`` pixels wide around ``centre``; the rest of it comes along."""
    photograph, (x, y, w, h) = _shrunk(portrait, face)
    if rng.random() < 0.5:
        photograph, x = np.ascontiguousarray(photograph[:, ::-1]), photograph.shape[1] - x - w
    angle = rng.normal(0, 9) if rng.random() < 0.9 else rng.uniform(-50, 50)
    scale = face / w
    reach = int(max(photograph.shape[:2]) * scale * 0.75) + 2
    if soft:
        reach = min(reach, int(2.2 * face) + 2)
    left, top = int(centre[0]) - reach, int(centre[1]) - reach
    turn = np.asarray(cv2.getRotationMatrix2D((x + w / 2, y + h / 2), angle, scale), np.float64)
    turn[:, 2] += np.array([centre[0] - left - (x + w / 2), centre[1] - top - (y + h / 2)])
    size = (2 * reach, 2 * reach)
    patch = cv2.warpAffine(photograph, turn, size, flags=cv2.INTER_LINEAR)
    mask = np.full(photograph.shape[:2], 255, np.uint8)
    if soft:
        mask = _head_mask(rng, mask.shape, (x, y, w, h))
    turned = cv2.warpAffine(mask, turn, size, flags=cv2.INTER_LINEAR)
    _blend(scene, np.asarray(patch, dtype=np.uint8), np.asarray(turned, dtype=np.uint8), left, top)


def _shrunk(portrait: Portrait, face: float) -> tuple[Picture, tuple[float, float, float, float]]:
    """The photograph averaged down to at most twice the size wanted (no aliasing), and its box there."""
    photograph = read_picture(portrait.file)
    x, y, w, h = portrait.box
    factor = min(1.0, 1.4 * face / w)
    if factor < 1.0:
        size = (max(2, round(photograph.shape[1] * factor)), max(2, round(photograph.shape[0] * factor)))
        fx, fy = size[0] / photograph.shape[1], size[1] / photograph.shape[0]
        photograph = np.asarray(cv2.resize(photograph, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        x, y, w, h = x * fx, y * fy, w * fx, h * fy
    return photograph, (x, y, w, h)


def _head_mask(
    rng: np.random.Generator, shape: tuple[int, ...], box: tuple[float, float, float, float]
) -> npt.NDArray[np.uint8]:
    """255 on the head, falling softly to 0: an oval around the face, sometimes with shoulders."""
    x, y, w, h = box
    mask = np.zeros(shape, np.uint8)
    centre = (int(x + w / 2), int(y + h * rng.uniform(0.40, 0.5)))
    cv2.ellipse(mask, centre, (int(w * rng.uniform(0.62, 0.95)), int(h * rng.uniform(0.6, 0.85))), 0, 0, 360, 255, -1)
    if rng.random() < 0.5:
        cv2.rectangle(mask, (int(x - 0.5 * w), int(y + 1.02 * h)), (int(x + 1.5 * w), shape[0]), 255, -1)
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), float(max(0.6, w * rng.uniform(0.01, 0.10)))), dtype=np.uint8)


def _blend(scene: Picture, patch: Picture, mask: npt.NDArray[np.uint8], left: int, top: int) -> None:
    height, width = scene.shape[:2]
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + patch.shape[1], width), min(top + patch.shape[0], height)
    if x1 <= x0 or y1 <= y0:
        return
    inside = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
    share = mask[inside].astype(np.float32)[..., None] / 255
    below = scene[y0:y1, x0:x1]
    scene[y0:y1, x0:x1] = (below + (patch[inside].astype(np.float32) - below) * share + 0.5).astype(np.uint8)


def _seen_badly(rng: np.random.Generator, scene: Picture) -> Picture:
    """Blur and small sensors: what changes a picture so much that the teacher must look at the result."""
    height, width = scene.shape[:2]
    if rng.random() < 0.18:
        scene = np.asarray(cv2.GaussianBlur(scene, (0, 0), float(rng.uniform(0.5, 2.2))), dtype=np.uint8)
    if rng.random() < 0.08:
        kernel = np.zeros((15, 15), np.float32)
        length, angle = rng.uniform(2, 7), rng.uniform(0, np.pi)
        tip = (round(7 + float(length * np.cos(angle))), round(7 + float(length * np.sin(angle))))
        cv2.line(kernel, (14 - tip[0], 14 - tip[1]), tip, 1.0, 1)
        scene = np.asarray(cv2.filter2D(scene, -1, kernel / kernel.sum()), dtype=np.uint8)
    if rng.random() < 0.12:
        factor = rng.uniform(0.4, 0.8)
        small = cv2.resize(scene, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        scene = np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
    return scene


def degraded(rng: np.random.Generator, scene: Picture) -> Picture:
    """The same scene dimmed, tinted, noisy, compressed: the labels stay those of the clean one."""
    out = scene
    if rng.random() < 0.6:
        gain, gamma = rng.uniform(0.7, 1.25, 3) * rng.uniform(0.85, 1.15), np.exp(rng.normal(0, 0.35))
        ramp = (np.arange(256) / 255)[:, None] ** gamma * gain
        if rng.random() < 0.2:
            ramp = ramp * rng.uniform(0.2, 0.7)
        out = np.asarray(cv2.LUT(out, np.clip(ramp * 255, 0, 255).astype(np.uint8)[None]), dtype=np.uint8)
    if rng.random() < 0.08:
        grey = cv2.cvtColor(out, cv2.COLOR_BGR2GRAY)
        out = np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), dtype=np.uint8)
    if rng.random() < 0.25:
        grain = np.empty(out.shape, np.int16)
        cv2.setRNGSeed(int(rng.integers(1 << 31)))
        cv2.randn(grain, np.zeros(3), np.full(3, rng.uniform(1, 14)))
        out = np.clip(out + grain, 0, 255).astype(np.uint8)
    if rng.random() < 0.25:
        blob = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 92))])[1]
        out = np.asarray(cv2.imdecode(blob, cv2.IMREAD_COLOR), dtype=np.uint8)
    return out
