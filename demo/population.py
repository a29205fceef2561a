"""Who is in the clip and who is on the watchlist: sampled identities, chosen so that nobody looks like anybody."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from demo import scene
from demo.arrays import Bytes, Floats, floats
from demo.bodies import draw_body
from demo.faces import FaceModel, shared_folder
from demo.heads import draw_head
from demo.scene import Figure, Placed, Pose
from demo.templates import Detector, Template

PORTRAIT = 320
NEAREST_REAL = 0.45
"""A sampled face that comes nearer than this (teacher's comparison score) to any training photograph is dropped."""


@dataclass(frozen=True)
class Candidate:
    """A sampled identity: its number, its templates under each embedder, its nearest training photograph's score."""

    number: int
    templates: dict[str, Floats]
    nearest_real: float


def make_figure(model: FaceModel, seed: int, number: int) -> Figure:
    """The figure of identity `number`; the same seed always draws the same one."""
    rng = np.random.default_rng([seed, number])
    head = draw_head(model.sample(rng), rng)
    return scene.figure(head, draw_body(head.skin, rng), head.box)


def portrait(shape: Figure, rng: np.random.Generator, plain: bool = False) -> Bytes:
    """A reference portrait (PORTRAIT, PORTRAIT, 3): other light, turn, size and noise than in the street."""
    down = np.linspace(1.06, 0.90, PORTRAIT, dtype=np.float32)[:, None, None]
    wall = floats((184, 178, 170)) if plain else floats(rng.integers(120, 205, 3)) * 0.2 + float(rng.uniform(110, 160))
    picture = np.repeat(down * wall, PORTRAIT, axis=1).astype(np.float32)
    turn = 0.0 if plain else float(rng.uniform(-0.09, 0.09))
    roll = 0.0 if plain else float(rng.uniform(-0.03, 0.03))
    scale = 0.96 if plain else float(rng.uniform(0.88, 1.02))
    side = 0.0 if plain else float(rng.uniform(-0.18, 0.18))
    light = (1.0, 1.0, 1.0) if plain else _tint(rng, 0.05)
    pose = Pose(0, 2, 0, roll, turn, 0, light, side, 0.0 if plain else float(rng.uniform(0.0, 0.8)))
    head = Placed(PORTRAIT / 2 - side * 10, 0.43 * PORTRAIT, scale, roll, turn)
    scene.draw_bust(picture, shape, head, pose)
    noise = rng.standard_normal(picture.shape) * (0.0 if plain else float(rng.uniform(1.0, 3.5)))
    return np.asarray(np.clip(picture + noise, 0, 255), np.uint8)


def _tint(rng: np.random.Generator, amount: float) -> tuple[float, float, float]:
    warm, gain = float(rng.uniform(-amount, amount)), float(rng.uniform(0.9, 1.08))
    return gain * (1 - warm), gain, gain * (1 + warm)


def candidates(model: FaceModel, seed: int, numbers: Iterable[int], embedders: dict[str, Template]) -> list[Candidate]:
    """Draw and measure identities; those no detector finds, or too near a training photograph, are left out."""
    detector, real = Detector(0.8), _training_templates()
    found = []
    for number in numbers:
        shape = make_figure(model, seed, number)
        picture = portrait(shape, np.random.default_rng(0), plain=True)
        rows = detector.find(picture)
        if len(rows) != 1:
            continue
        points = rows[0, 4:14].reshape(5, 2)
        templates = {name: template(picture, points) for name, template in embedders.items()}
        nearest = float((real @ templates["teacher"]).max())
        if nearest < NEAREST_REAL:
            found.append(Candidate(number, templates, nearest))
    return found


def keep(found: list[Candidate], path: Path) -> None:
    """Write candidates to a cache file."""
    names = found[0].templates
    np.savez(
        path,
        numbers=np.array([c.number for c in found]),
        nearest_real=floats([c.nearest_real for c in found]),
        **{name: np.stack([c.templates[name] for c in found]) for name in names},  # type: ignore[arg-type]
    )


def kept(path: Path) -> list[Candidate]:
    """Read what `keep` wrote."""
    with np.load(path) as arrays:
        names = [name for name in arrays.files if name not in ("numbers", "nearest_real")]
        columns = {name: arrays[name] for name in names}
        rows = zip(arrays["numbers"].tolist(), arrays["nearest_real"].tolist(), strict=True)
        return [
            Candidate(number, {name: columns[name][i] for name in names}, nearest)
            for i, (number, nearest) in enumerate(rows)
        ]


def _training_templates() -> Floats:
    labels = shared_folder() / "data" / "labels"
    parts = []
    for name in ("utk", "lfw"):
        with np.load(labels / f"{name}.npz") as arrays:
            parts.append(arrays["teacher"].astype(np.float32))
    return np.concatenate(parts)


def choose(found: list[Candidate], count: int) -> list[Candidate]:
    """`count` identities whose worst likeness under any embedder is small: drop the one with the worst, repeat.

    Each embedder's scores are brought to one scale by their own spread over the candidates, so that an
    embedder with a narrow range of scores weighs as much as one with a wide range.
    """
    worst = np.max([_spread(np.stack([c.templates[name] for c in found])) for name in found[0].templates], axis=0)
    kept = list(range(len(found)))
    while len(kept) > count:
        part = worst[np.ix_(kept, kept)]
        first = int(part.max(axis=1).argmax())
        second = int(part[first].argmax())
        rivals = [np.sort(part[i])[-2] for i in (first, second)]
        kept.pop(first if rivals[0] >= rivals[1] else second)
    return [found[i] for i in kept]


def _spread(templates: Floats) -> Floats:
    """Standardised comparison scores (N, N), the diagonal lowest."""
    scores = templates @ templates.T
    others = scores[~np.eye(len(scores), dtype=bool)]
    scores = (scores - others.mean()) / others.std()
    np.fill_diagonal(scores, -9)
    return np.asarray(scores, np.float32)


def contact_sheet(pictures: list[Bytes], columns: int, size: int) -> Bytes:
    """Pictures side by side, each `size` pixels, for looking at."""
    small = [cv2.resize(p, (size, size), interpolation=cv2.INTER_AREA) for p in pictures]
    small += [np.zeros_like(small[0])] * (-len(small) % columns)
    rows = [np.hstack(small[i : i + columns]) for i in range(0, len(small), columns)]
    return np.asarray(np.vstack(rows), np.uint8)
