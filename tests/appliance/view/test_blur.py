"""What is covered cannot be brought back, and the detector's misses are covered too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.recognition import packs
from appliance.recognition.align import chip
from appliance.recognition.detect import Detector
from appliance.recognition.embed import Embedder
from appliance.records import Face, Floats, Image
from appliance.view import blur
from appliance.view.blur import Veil
from demo.run import ASSETS
from provisioning.truth import Box, read_truth
from tests.support import workbench

SCORE = 0.6


def noise(seed: int, height: int = 180, width: int = 320) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def face(x: float, y: float, width: float, score: float = 0.9) -> Face:
    """A detected face; nobody asks for its landmarks here."""
    return Face(np.array([x, y, width, width * 1.3], np.float32), np.zeros((5, 2), np.float32), score)


@settings(max_examples=40)
@given(
    box=st.tuples(st.floats(-40, 330), st.floats(-40, 190), st.floats(1, 200), st.floats(1, 200)),
    size=st.sampled_from([(180, 320), (97, 231), (720, 1280)]), seed=st.integers(0, 9),
)  # fmt: skip
def test_pictures_that_differ_only_under_a_patch_come_out_the_same(
    box: tuple[float, float, float, float], size: tuple[int, int], seed: int
) -> None:
    """To the byte, wherever the box lies: so nothing at all of a covered face is left, and there is nothing to undo."""
    first, other = noise(seed, *size), noise(seed, *size)
    x, y, width, height = box
    left, top, right, bottom = int(np.ceil(x)), int(np.ceil(y)), int(x + width), int(y + height)
    other[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = 77
    boxes = np.array([box], np.float32)
    assert np.array_equal(blur.flattened(first, boxes), blur.flattened(other, boxes))


@pytest.mark.parametrize("size", [(1080, 1920), (720, 1280), (360, 640), (720, 406)])
def test_the_whole_picture_is_made_small(size: tuple[int, int]) -> None:
    """At most 480 pixels, and at most three eighths of what the camera gave."""
    shown = Veil(SCORE).cover(noise(1, *size), [], 0.0)
    assert max(shown.shape[:2]) <= min(480, round(max(size) * 3 / 8))


def test_the_frame_itself_is_left_as_it_is() -> None:
    """Quality is measured on it after the picture is made."""
    image = noise(2)
    before = image.copy()
    Veil(SCORE).cover(image, [face(50, 50, 60)], 0.0)
    assert np.array_equal(image, before)


def covered(shown: Image, box: tuple[float, float, float, float], size: tuple[int, int]) -> float:
    """The share of the middle of a face that is patch; `size` is the frame's height and width."""
    x, y, width, height = (v * shown.shape[1] / size[1] for v in box)
    part = shown[max(int(y + 0.15 * height), 0) : int(y + 0.85 * height) + 1,
                 max(int(x + 0.15 * width), 0) : int(x + 0.85 * width) + 1]  # fmt: skip
    return float((part == np.array(blur.COLOUR)).all(axis=2).mean()) if part.size else 1.0


def test_a_face_the_detector_loses_stays_covered_where_it_goes() -> None:
    """Somebody walks through the picture and is not found for half a second: the patch walks along, growing."""
    veil, white = Veil(SCORE), np.full((720, 1280, 3), 255, np.uint8)
    for step in range(10):
        veil.cover(white, [face(100 + 20 * step, 300, 60)], step / 10)
    for step in range(10, 15):
        shown = veil.cover(white, [], step / 10)
        assert covered(shown, (100 + 20 * step, 300, 60, 78), (720, 1280)) == 1.0, step
    assert covered(veil.cover(white, [], 3.0), (380, 300, 60, 78), (720, 1280)) == 0.0, "and is gone in the end"


def test_what_is_only_suspected_is_covered_too() -> None:
    """A quarter of the score that a face is believed at."""
    white = np.full((720, 1280, 3), 255, np.uint8)
    shown = Veil(SCORE).cover(white, [face(600, 300, 60, score=SCORE * blur.SUSPECT)], 0.0)
    assert covered(shown, (600, 300, 60, 78), (720, 1280)) == 1.0


def test_what_the_detector_misses_near_its_threshold_is_covered() -> None:
    """The demo's street, too dark and noisy: at its usual score the detector loses many of the faces."""
    detector = Detector(packs.load("lamp-detector"), smallest_face=16, score=SCORE * blur.SUSPECT, threads=2)
    walks = read_truth(ASSETS / "truth.json").passes
    grain = np.random.default_rng(1).normal(0, 32, (720, 1280, 3)).astype(np.float32)
    capture, veil = cv2.VideoCapture(str(ASSETS / "street.mp4")), Veil(SCORE)
    white = np.full((720, 1280, 3), 255, np.uint8)
    found: list[float] = []
    believed: list[bool] = []
    for number in range(200):
        image = np.asarray(capture.read()[1], np.uint8)
        if number % 5 or number < 30:
            continue
        spoilt = np.clip(image * np.float32(0.5) + np.roll(grain, number, axis=0), 0, 255).astype(np.uint8)
        faces = detector.detect(spoilt)
        shown = veil.cover(white, faces, number / 15)
        for box in inside([walk.at(number) for walk in walks]):
            found.append(covered(shown, box, (720, 1280)))
            believed.append(any(_near(f.box, box) for f in faces if f.score >= SCORE))
    assert len(found) > 90
    assert np.mean(believed) < 0.85, "the picture is bad enough for this test"
    assert np.mean(np.array(found) > 0.9) >= 0.95


def inside(boxes: Sequence[Box | None]) -> list[tuple[float, float, float, float]]:
    """Those that lie in the picture as a whole."""
    there = [(b.x, b.y, b.width, b.height) for b in boxes if b is not None]
    return [b for b in there if b[0] >= 0 and b[1] >= 0 and b[0] + b[2] <= 1280 and b[1] + b[3] <= 720]


def _near(one: Floats, other: tuple[float, float, float, float]) -> bool:
    shift = np.abs(one[:2] + one[2:] / 2 - np.array(other[:2]) - np.array(other[2:]) / 2)
    return bool((shift < np.array(other[2:]) / 2).all())


@dataclass(frozen=True)
class Portrait:
    """A portrait, its face, and whose it is."""

    image: Image
    face: Face
    name: str


def portraits() -> list[Portrait]:
    detector, found = Detector(packs.load("lamp-detector"), smallest_face=40), []
    for path in workbench.portraits():
        image = np.asarray(cv2.imread(str(path)), np.uint8)
        for one in detector.detect(image)[:1]:
            found.append(Portrait(image, one, name_of(path)))
    return found


def name_of(path: Path) -> str:
    """REF-0018-2.jpg shows REF-0018."""
    return path.stem.rsplit("-", 1)[0]


def template(embedder: Embedder, image: Image, landmarks: Floats) -> Floats:
    cut = chip(image, landmarks, embedder.landmarks, embedder.width, embedder.height)
    return np.asarray(embedder.embed(cut[None])[0])


def test_a_covered_face_has_no_more_to_do_with_its_own_template_than_with_a_strangers() -> None:
    """The real embedder, and landmarks nobody who sees only the picture has: the same score for everybody."""
    embedder, shown = Embedder(packs.load("lamp-embedder")), portraits()
    originals = np.stack([template(embedder, p.image, p.face.landmarks) for p in shown])
    blurred = []
    for one in shown:
        large = cv2.copyMakeBorder(one.image, 400, 400, 400, 400, cv2.BORDER_REFLECT)
        moved = Face(one.face.box + np.array([400, 400, 0, 0], np.float32), one.face.landmarks + np.float32(400), 0.9)
        small = Veil(SCORE).cover(np.asarray(large, np.uint8), [moved], 0.0)
        blurred.append(template(embedder, small, moved.landmarks * np.float32(small.shape[1] / large.shape[1])))
    scores = np.stack(blurred) @ originals.T
    names = np.array([p.name for p in shown])
    own, others = names[:, None] == names[None], names[:, None] != names[None]
    spread = float(scores[others].std())
    assert abs(float(scores[own].mean() - scores[others].mean())) < 0.25 * spread
    first = names[scores.argmax(axis=1)] == names
    assert first.mean() <= 0.15, "nobody is found among 22 portraits but by chance"
    clear = originals @ originals.T
    assert float(clear[others].max()) < 0.95, "while clear pictures are told apart"
