"""Quality orders faces as a person would; a track is embedded a few times, and leaves nothing when it ends."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
import pytest

from appliance.limits import LIMITS
from appliance.recognition.align import chip, similarity
from appliance.recognition.embed import Embedder, unit
from appliance.recognition.extract import Extractor, ExtractRules, picture_of
from appliance.recognition.quality import assess
from appliance.recognition.track import Tracker
from appliance.records import Face, Floats, Frame, Image

POINTS = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]], np.float32)


class FakeEmbedder:
    """Stands in through the embedder's interface: a template from the chip's mean colour. Counts its work."""

    width, height, length = 32, 32, 8
    landmarks: Floats = POINTS * 32

    def __init__(self) -> None:
        self.count = 0

    def embed(self, chips: Image) -> Floats:
        self.count += len(chips)
        means = chips.reshape(len(chips), -1).mean(axis=1)
        return unit(np.stack([np.cos(means * k / 50.0) for k in range(self.length)], 1).astype(np.float32))


def drawn(size: int = 80, canvas: int = 320, noise: int = 40, seed: int = 0) -> tuple[Image, Face]:
    """A picture with a textured square where a face is said to be."""
    rng = np.random.default_rng(seed)
    image = np.full((canvas, canvas, 3), 120, np.uint8)
    x = y = (canvas - size) // 2
    image[y : y + size, x : x + size] = rng.integers(120 - noise, 120 + noise, (size, size, 3), np.uint8)
    box = np.array([x, y, size, size], np.float32)
    return image, Face(box, POINTS * size + box[:2], 0.9)


def test_a_larger_face_is_worth_more() -> None:
    values = [assess(*drawn(size)).value for size in (30, 60, 120)]
    assert values == sorted(values)
    assert assess(*drawn(100)).interocular == pytest.approx(40.0)


def test_blur_and_darkness_cost() -> None:
    image, face = drawn()
    clear = assess(image, face)
    blurred = assess(cast(Image, cv2.GaussianBlur(image, (0, 0), 4)), face)
    dark = assess((image // 8).astype(np.uint8), face)
    assert blurred.sharpness < clear.sharpness
    assert blurred.value < clear.value
    assert dark.exposure < clear.exposure
    assert dark.value < clear.value


def test_a_turned_head_costs_on_either_side() -> None:
    image, face = drawn()
    turned = []
    for shift in (-20, 0, 20):
        points = face.landmarks.copy()
        points[2, 0] += shift
        turned.append(assess(image, Face(face.box, points, 0.9)))
    assert turned[0].yaw < -0.5 < 0.5 < turned[2].yaw
    assert turned[1].value > max(turned[0].value, turned[2].value)


def test_a_face_outside_the_picture_does_not_raise() -> None:
    image, _ = drawn()
    outside = Face(np.array([-200, -200, 50, 50], np.float32), POINTS * 50 - 200, 0.9)
    assert assess(image, outside).value == 0.0
    assert picture_of(image, outside).size > 0


def test_alignment_puts_the_points_where_they_belong() -> None:
    rng = np.random.default_rng(2)
    angle, scale = 0.4, 2.5
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    source = rng.uniform(0, 100, (5, 2)).astype(np.float32)
    target = (source @ turn.T + [7, -3]).astype(np.float32)
    matrix = similarity(source, target)
    assert np.allclose(source @ matrix[:, :2].T + matrix[:, 2], target, atol=1e-2)


def test_a_very_large_face_is_not_aliased() -> None:
    """Fine stripes shrink to grey, as they would to the eye, and not to coarse stripes."""
    image = np.zeros((800, 800, 3), np.uint8)
    image[:, ::2] = 255
    points = POINTS * 700 + 50
    small = chip(image, points.astype(np.float32), POINTS * 32, 32, 32)
    assert small[8:24, 8:24].std() < 20


def frames(count: int, step: float = 1 / 15) -> list[Frame]:
    image, _ = drawn(90)
    return [Frame("gate", i, i * step, i * step, image) for i in range(count)]


def test_a_track_is_embedded_a_few_times_and_not_in_every_frame() -> None:
    embedder, tracker = FakeEmbedder(), Tracker()
    extractor = Extractor("gate", cast(Embedder, embedder), ExtractRules(keep=5))
    _, face = drawn(90)
    probes = []
    for frame in frames(60):
        tracks, _ = tracker.update([face], frame.clock)
        probes += extractor.extract(frame, tracks)
    assert 2 <= embedder.count <= 6, "60 frames of the same face"
    assert probes[-1].agreeing.shape == (5, embedder.length)
    assert np.linalg.norm(probes[-1].template) == pytest.approx(1.0, abs=1e-5)


def test_nothing_of_a_track_is_left_when_it_ends() -> None:
    embedder, tracker = FakeEmbedder(), Tracker()
    extractor = Extractor("gate", cast(Embedder, embedder))
    _, face = drawn(90)
    held = []
    for frame in frames(20):
        tracks, _ = tracker.update([face], frame.clock)
        held += [p.best for p in extractor.extract(frame, tracks)]
    assert held[-1].chip.any()
    assert held[-1].picture.any()
    extractor.forget(tracker.finish())
    assert not any(s.chip.any() or s.picture.any() for s in held), "chips are zeroed where they stood"


def test_small_and_turned_faces_are_not_embedded() -> None:
    embedder, tracker = FakeEmbedder(), Tracker()
    extractor = Extractor("gate", cast(Embedder, embedder), ExtractRules(least_interocular=14))
    image, face = drawn(30)
    for i in range(10):
        tracks, _ = tracker.update([face], i / 15)
        assert extractor.extract(Frame("gate", i, 0.0, i / 15, image), tracks) == []
    assert embedder.count == 0


def test_the_picture_for_an_officer_is_bounded() -> None:
    image, face = drawn(600, canvas=1000)
    assert max(picture_of(image, face).shape[:2]) <= LIMITS.chip_side
