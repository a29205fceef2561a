"""Deployments composed from real stills: passes of growing faces over a street, with ground truth.

Every pass shows ONE photograph of an identity, pasted with a soft elliptical mask around the whole head and varied
from frame to frame by size, small rotation, blur and light; some heads are tilted throughout. The frames of a pass are
therefore not independent: a figure over frames would flatter; count passes. A mated pass walks with another photograph
than the one enrolled.

Nothing is written unless asked for: `frames` streams, `write_clip` and `write_references` take a folder of yours.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from benchmarks.stills import Still, bordered, distractor_paths, walking_stills
from demo.arrays import Bytes, Floats
from demo.street import draw_street
from provisioning.truth import Box, Pass, Truth, write_truth

__all__ = ["Box", "Deployment", "Pass", "Plan", "Walker", "compose"]

_COLUMNS = (
    "reference_identifier", "image", "category", "source", "lawful_basis",
    "rationale", "image_date", "reviewer", "expiry",
)  # fmt: skip
_MARGIN = 0.45
"""How far the pasted head reaches beyond the face's box, as a share of its width."""


@dataclass(frozen=True)
class Plan:
    """What to compose. Sizes in pixels, `rate` in frames a second; shares from 0 to 1."""

    passes: int = 300
    mated_share: float = 0.2
    references: int = 1000
    seed: int = 1
    held_out_only: bool = True
    at_once: int = 6
    width: int = 1920
    height: int = 1080
    rate: float = 15.0
    smallest_face: float = 30.0
    largest_face: float = 140.0
    occluded_share: float = 0.25
    tilted_share: float = 0.3
    """Of the passes: heads tilted to either side, by up to `greatest_tilt` degrees."""
    greatest_tilt: float = 45.0
    references_each: int = 1
    """Photographs a walking identity is enrolled with, where there are that many beside the one it walks with."""
    background: Path | None = None
    """A picture or video whose first frame to walk over; None draws a street."""


@dataclass(frozen=True)
class Walker:
    """One pass as it is drawn: the still, when and where it walks, and what spoils the picture."""

    still: Still
    first_frame: int
    length: int
    lane: float
    drift: float
    widths: tuple[float, float]
    roll: float
    phase: float
    gain: float
    blur: float
    quality: int
    hidden: tuple[int, int]
    """Frames of the pass (from, to) in which somebody walks across in front; equal where nobody does."""


@dataclass(frozen=True)
class Deployment:
    """Composed passes and the watchlist for them. `enrolled` and `distractors` hold one image per identifier,
    `further` the others of those enrolled with several."""

    plan: Plan
    walkers: tuple[Walker, ...]
    passes: tuple[Pass, ...]
    enrolled: dict[str, Path]
    distractors: dict[str, Path]
    further: dict[str, tuple[Path, ...]]

    @property
    def frame_count(self) -> int:
        """Frames from the first to one second after the last pass."""
        return max(w.first_frame + w.length for w in self.walkers) + int(self.plan.rate)

    def photographs(self, identifier: str) -> tuple[Path, ...]:
        """Every photograph of an enrolled walking identity, the first one first."""
        return (self.enrolled[identifier], *self.further.get(identifier, ()))

    def reference_images(self) -> Iterator[tuple[str, Bytes]]:
        """Reference identifier and BGR photograph of every reference, those of walking identities first."""
        for identifier, path in self.enrolled.items():
            yield identifier, np.asarray(cv2.imread(str(path)), np.uint8)
        for identifier, path in self.distractors.items():
            yield identifier, bordered(path)

    def truth(self, clip: str) -> Truth:
        """Ground truth in the demo's form."""
        plan = self.plan
        return Truth(clip, plan.width, plan.height, plan.rate, self.frame_count, self.passes)

    def frames(self) -> Iterator[Bytes]:
        """Every frame in order, (height, width, 3) BGR; each is a fresh array."""
        background = _background(self.plan)
        heads: dict[int, Floats] = {}
        for number in range(self.frame_count):
            picture = background.copy()
            present = [i for i, w in enumerate(self.walkers) if w.first_frame <= number < w.first_frame + w.length]
            for gone in heads.keys() - set(present):
                del heads[gone]
            for index in sorted(present, key=lambda i: _place(self.walkers[i], number, self.plan)[2]):
                if index not in heads:
                    heads[index] = _head(self.walkers[index].still)
                _draw(picture, self.walkers[index], heads[index], number, self.plan)
            yield picture

    def write_clip(self, path: Path) -> None:
        """Write the frames to an .mp4 file (H.264), or as JPEG into a folder, and truth.json beside them."""
        if path.suffix == ".mp4":
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_video(self, path)
        else:
            path.mkdir(parents=True, exist_ok=True)
            for number, picture in enumerate(self.frames()):
                cv2.imwrite(str(path / f"{number:06d}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 88])
        write_truth(self.truth(path.name), path.parent / "truth.json")

    def write_references(self, folder: Path) -> Path:
        """Write every reference image and an enrolment list; returns the list's path."""
        (folder / "images").mkdir(parents=True, exist_ok=True)
        listed = folder / "watchlist.csv"
        with listed.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(_COLUMNS)
            for identifier, picture in self.reference_images():
                others = (np.asarray(cv2.imread(str(path)), np.uint8) for path in self.further.get(identifier, ()))
                names = []
                for number, one in enumerate((picture, *others)):
                    names.append(f"images/{identifier}{f'-{number}' if number else ''}.jpg")
                    cv2.imwrite(str(folder / names[-1]), one, [cv2.IMWRITE_JPEG_QUALITY, 95])
                rows.writerow([identifier, ";".join(names), "suspect-serious-offence", "research data set",
                               "research", "measurement", "2026-01-01", "benchmark", "2036-12-31"])  # fmt: skip
        return listed


_UPRIGHT = 10.0  # degrees; beyond, a head needs as much room to the sides as above and below


def compose(plan: Plan) -> Deployment:
    """Choose identities, references and walks. Raises ValueError where the stills do not suffice for the plan."""
    rng = np.random.default_rng([plan.seed, 21])
    stills = walking_stills(plan.held_out_only)
    mated = round(plan.passes * plan.mated_share)
    several = [name for name, found in stills.items() if len(found) > 1]
    if mated > len(several) or plan.passes > len(stills) or plan.references < mated:
        raise ValueError(
            f"{plan.passes} passes, {mated} mated, {plan.references} references do not fit {len(stills)} identities, "
            f"{len(several)} of them with two photographs: ask for fewer, more references, or held_out_only=False"
        )
    known = [several[i] for i in rng.permutation(len(several))[:mated]]
    others = sorted(set(stills) - set(known))
    strangers = [others[i] for i in rng.permutation(len(others))[: plan.passes - mated]]
    enrolled, further, pairs = {}, {}, []
    for number, identity in enumerate(known):
        first, second, *rest = rng.permutation(len(stills[identity]))
        enrolled[f"REF-{number:05d}"] = stills[identity][first].path
        further[f"REF-{number:05d}"] = tuple(stills[identity][i].path for i in rest[: plan.references_each - 1])
        pairs.append((stills[identity][second], f"REF-{number:05d}"))
    walking: list[tuple[Still, str | None]] = [*pairs]
    walking += [(stills[name][int(rng.integers(len(stills[name])))], None) for name in strangers]
    filling = distractor_paths(plan.references - mated, rng)
    distractors = {f"REF-{mated + i:05d}": path for i, path in enumerate(filling)}
    order = [walking[i] for i in rng.permutation(len(walking))]
    walkers = _schedule([still for still, _ in order], plan, rng)
    passes = tuple(
        _truth_of(f"pass-{i:04d}", walker, reference, plan)
        for i, (walker, (_, reference)) in enumerate(zip(walkers, order, strict=True))
    )
    return Deployment(plan, tuple(walkers), passes, enrolled, distractors, further)


def _schedule(stills: list[Still], plan: Plan, rng: np.random.Generator) -> list[Walker]:
    """Give each still the lane that falls free first: at most `at_once` faces, none on top of another by chance."""
    free = [int(v) for v in rng.integers(0, int(3 * plan.rate), plan.at_once)]
    walkers = []
    for still in stills:
        lane = int(np.argmin(free))
        length = int(rng.uniform(2.0, 4.0) * plan.rate)
        walkers.append(_walker(still, free[lane], length, lane, plan, rng))
        free[lane] += length + int(rng.uniform(0.3, 1.2) * plan.rate)
    return walkers


def _walker(still: Still, start: int, length: int, lane: int, plan: Plan, rng: np.random.Generator) -> Walker:
    across = (lane + 0.5) / plan.at_once
    hidden = (0, 0)
    if rng.random() < plan.occluded_share:
        begin = int(rng.uniform(0.2, 0.7) * length)
        hidden = (begin, begin + int(rng.uniform(0.3, 0.6) * plan.rate))
    walker = Walker(
        still=still,
        first_frame=start,
        length=length,
        lane=across + float(rng.uniform(-0.1, 0.1)) / plan.at_once,
        drift=float(rng.uniform(-0.12, 0.12)) / plan.at_once,
        widths=(plan.smallest_face * float(rng.uniform(0.9, 1.1)), plan.largest_face * float(rng.uniform(0.8, 1.0))),
        roll=float(rng.uniform(-5, 5)),
        phase=float(rng.uniform(0, 6.28)),
        gain=float(rng.uniform(0.45, 1.1)),
        blur=float(rng.choice([0.0, 0.0, 0.6, 1.0, 1.6])),
        quality=int(rng.integers(35, 90)),
        hidden=hidden,
    )
    # Drawn last and apart: with a share of nothing, everything else is as it would be.
    tilt = np.random.default_rng([plan.seed, 23, start, lane])
    if tilt.random() >= plan.tilted_share:
        return walker
    return replace(walker, roll=float(tilt.uniform(-plan.greatest_tilt, plan.greatest_tilt)))


def _place(walker: Walker, frame: int, plan: Plan) -> tuple[float, float, float, float]:
    """The face's centre x, y and width (pixels) and its roll (degrees) in a frame."""
    since = frame - walker.first_frame
    share = since / max(walker.length - 1, 1)
    small, large = walker.widths
    # Distance falls evenly, so the width grows as one over it.
    width = 1 / ((1 - share) / small + share / large)
    step = walker.phase + 2 * np.pi * 1.8 * since / plan.rate
    near = (width - small) / (large - small)
    x = plan.width * (walker.lane + walker.drift * (2 * near - 1)) + 0.02 * width * np.sin(step / 2)
    y = plan.height * (0.28 + 0.30 * near) + 0.03 * width * np.sin(step)
    return float(x), float(y), width, walker.roll + 3.0 * float(np.sin(step / 2))


def _truth_of(pass_id: str, walker: Walker, reference: str | None, plan: Plan) -> Pass:
    last = walker.first_frame + walker.length - 1
    numbers = sorted({*range(walker.first_frame, last, 5), last})
    boxes = []
    for number in numbers:
        x, y, width, _ = _place(walker, number, plan)
        height = width * walker.still.box[3] / walker.still.box[2]
        boxes.append(Box(number, x - width / 2, y - height / 2, width, height))
    return Pass(pass_id, walker.still.identity, reference, walker.first_frame, last, tuple(boxes))


def _head(still: Still) -> Floats:
    """The photograph with the soft mask as a fourth channel, (250, 250, 4) float32, colours premultiplied."""
    picture = still.read()
    x, y, width, height = still.box
    centre = (x + width / 2, y + height * 0.46)
    axes = (width * (0.5 + _MARGIN * 0.62), height * (0.5 + _MARGIN * 0.42))
    mask = np.zeros(picture.shape[:2], np.uint8)
    cv2.ellipse(mask, (centre, (2 * axes[0], 2 * axes[1]), 0), 255, -1)
    # Photographs were turned upright once: what lay outside them is black, and must not be pasted.
    missing = (picture.max(axis=2) < 3).astype(np.uint8)
    missing = cv2.morphologyEx(missing, cv2.MORPH_OPEN, np.ones((9, 9), np.uint8))
    mask[cv2.dilate(missing, np.ones((7, 7), np.uint8)) > 0] = 0
    mask[[0, -1]], mask[:, [0, -1]] = 0, 0
    alpha = cv2.GaussianBlur(mask, (0, 0), 0.045 * width).astype(np.float32)[..., None] / 255
    return np.concatenate([picture * alpha, alpha], axis=2).astype(np.float32)


def _draw(picture: Bytes, walker: Walker, head: Floats, number: int, plan: Plan) -> None:
    """Paste a head into the frame, in place, and spoil it as the walker says."""
    x, y, width, roll = _place(walker, number, plan)
    left, top, face_width, face_height = walker.still.box
    scale = width / face_width
    middle = (left + face_width / 2, top + face_height / 2)
    matrix = np.asarray(cv2.getRotationMatrix2D(middle, roll, scale), np.float64)
    reach_x, reach_y = int(width * (0.5 + _MARGIN)) + 8, int(width * face_height / face_width * (0.5 + _MARGIN)) + 8
    if abs(roll) > _UPRIGHT:
        reach_x = reach_y = max(reach_x, reach_y)
    x0, y0 = max(int(x) - reach_x, 0), max(int(y) - reach_y, 0)
    x1, y1 = min(int(x) + reach_x, plan.width), min(int(y) + reach_y, plan.height)
    matrix[:, 2] += np.array([x - x0 - middle[0], y - y0 - middle[1]])
    # Area averaging first: a photograph three times too large would alias.
    half = 0.5 if scale < 0.55 else 1.0
    source = cv2.resize(head, None, fx=half, fy=half, interpolation=cv2.INTER_AREA) if half < 1 else head
    matrix[:, :2] /= half
    layer = cv2.warpAffine(source, matrix, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
    if walker.blur:
        layer = cv2.GaussianBlur(layer, (0, 0), walker.blur * max(width / 90, 0.5))
    light = walker.gain * (1 + 0.12 * float(np.sin(walker.phase + 0.07 * number)))
    area = picture[y0:y1, x0:x1]
    mixed = area * (1 - layer[..., 3:]) + layer[..., :3] * light
    spoilt = cv2.imencode(".jpg", np.clip(mixed, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, walker.quality])[
        1
    ]
    area[:] = np.asarray(cv2.imdecode(spoilt, cv2.IMREAD_COLOR), np.uint8)
    since = number - walker.first_frame
    if walker.hidden[0] <= since < walker.hidden[1]:
        _occlude(picture, (x, y, width), (since - walker.hidden[0] + 0.5) / (walker.hidden[1] - walker.hidden[0]))


def _occlude(picture: Bytes, face: tuple[float, float, float], share: float) -> None:
    """Somebody's dark back crosses before the face, from its left to its right."""
    x, y, width = face
    centre = x + (share - 0.5) * 2.6 * width
    top, bottom = int(max(y - 1.1 * width, 0)), int(y + 1.4 * width)
    left, right = int(max(centre - 0.75 * width, 0)), int(centre + 0.75 * width)
    cv2.rectangle(picture, (left, top + int(0.5 * width)), (right, bottom), (52, 46, 44), -1)
    cv2.ellipse(
        picture,
        (int(centre), top + int(0.5 * width)),
        (int(0.75 * width), int(0.5 * width)),
        0,
        180,
        360,
        (40, 38, 40),
        -1,
    )


def _background(plan: Plan) -> Bytes:
    if plan.background is None:
        picture = draw_street(np.random.default_rng([plan.seed, 22]))
    else:
        video = cv2.VideoCapture(str(plan.background))
        found, frame = video.read()
        video.release()
        if not found:
            raise ValueError(f"no picture in {plan.background}: give a picture or a video that OpenCV reads")
        picture = np.asarray(frame, np.uint8)
    return np.asarray(cv2.resize(picture, (plan.width, plan.height), interpolation=cv2.INTER_CUBIC), np.uint8)


def _write_video(deployment: Deployment, path: Path) -> None:
    import av

    plan = deployment.plan
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(plan.rate).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = plan.width, plan.height, "yuv420p"
        stream.options = {"crf": "21", "preset": "veryfast"}
        for picture in deployment.frames():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode(None))
