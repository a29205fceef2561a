"""The aiming view says in words why faces are unusable, by the rules that count when scanning."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from appliance.capture import light as scene
from appliance.capture.light import Scene
from appliance.config import CameraPart, UnitConfig
from appliance.recognition import packs
from appliance.recognition.detect import Detector
from appliance.recognition.quality import assess
from appliance.records import Face, Image, Quality
from appliance.view import aim
from appliance.view.aim import Look, Recent, Share, Wanted
from demo.run import ASSETS

WANTED = Wanted(width=60.0, interocular=14.0, yaw=1.0, quality=0.15)
FINE = Scene(width=1280, height=720, level=120.0, contrast=50.0, burnt=0.0, blur=1.2)


def face(width: float = 80.0) -> Face:
    """A face of some width."""
    return Face(np.array([10, 10, width, width * 1.3], np.float32), np.zeros((5, 2), np.float32), 0.9)


def quality(**changes: float) -> Quality:
    """A good face's figures, some of them changed."""
    return dataclasses.replace(Quality(interocular=35.0, sharpness=0.7, yaw=0.0, exposure=1.0, value=0.8), **changes)


def share_of(*looks: Look) -> Share:
    """Each look somebody else's, who is gone by now."""
    recent = Recent()
    recent.add(dict(enumerate(looks)), 0.0)
    return recent.share(2.0)


@pytest.mark.parametrize(
    ("width", "figures", "level", "faults"),
    [
        (80, {}, 120, ()),
        (31, {}, 120, ("small",)),
        (80, {"interocular": 11.0}, 120, ("small",)),
        (80, {"yaw": -1.3}, 120, ("turned",)),
        (80, {"exposure": 0.6}, 30, ("dark",)),
        (80, {"exposure": 0.4}, 230, ("bright",)),
        (80, {"exposure": 0.3}, 120, ("pale",)),
        (80, {"sharpness": 0.1}, 120, ("blurred",)),
        (80, {"value": 0.1}, 120, ("poor",)),
        (31, {"sharpness": 0.1}, 20, ("small", "dark", "blurred")),
    ],
)
def test_each_reason_is_named(width: float, figures: dict[str, float], level: float, faults: tuple[str, ...]) -> None:
    look = aim.judge(face(width), quality(**figures), level, WANTED)
    assert look.faults == faults
    assert look.usable is (not faults)


def test_small_faces_are_answered_with_both_widths() -> None:
    small = aim.judge(face(31), quality(), 120, WANTED)
    verdict = aim.verdict(share_of(small, small), FINE, WANTED)
    assert not verdict.good
    assert verdict.lines[0] == "move closer or zoom: faces are 31 px wide, 60 are wanted"
    assert verdict.lines[-1] == "0 of 2 who passed had a usable face"


def test_eyes_too_close_are_answered_with_their_distance() -> None:
    near = aim.judge(face(80), quality(interocular=11.0), 120, WANTED)
    assert aim.verdict(share_of(near), FINE, WANTED).lines[0].endswith("11 px between the eyes, 14 are needed")


@pytest.mark.parametrize(("yaw", "side"), [(1.4, "right"), (-1.4, "left")])
def test_turned_faces_are_answered_with_the_side(yaw: float, side: str) -> None:
    turned = aim.judge(face(), quality(yaw=yaw), 120, WANTED)
    assert f"turned to the picture's {side}" in aim.verdict(share_of(turned), FINE, WANTED).lines[0]


def test_the_picture_comes_before_its_faces() -> None:
    """A lens out of focus is put right first: it may be why the faces are soft."""
    soft = aim.judge(face(), quality(sharpness=0.1), 120, WANTED)
    lines = aim.verdict(share_of(soft), dataclasses.replace(FINE, blur=4.0), WANTED).lines
    assert "out of focus" in lines[0]
    assert "faces are blurred" in lines[1]


def test_a_fault_of_few_faces_is_not_worth_a_word() -> None:
    """People do turn their heads: one in ten is no reason to move a camera."""
    good, turned = aim.judge(face(), quality(), 120, WANTED), aim.judge(face(), quality(yaw=1.4), 120, WANTED)
    verdict = aim.verdict(share_of(*[good] * 9, turned), FINE, WANTED)
    assert verdict.good
    assert verdict.lines == ("good: 9 of 10 who passed had a usable face",)


def test_nobody_there_is_said() -> None:
    verdict = aim.verdict(share_of(), FINE, WANTED)
    assert not verdict.good
    assert verdict.lines == ("no face in the last 30 s: wait until somebody passes",)


def test_faces_are_forgotten_after_half_a_minute() -> None:
    recent, look = Recent(), aim.judge(face(), quality(), 120, WANTED)
    recent.add({1: look}, 0.0)
    recent.add({2: look}, 29.0)
    assert recent.share(29.0).seen == 2
    recent.add({}, 31.0)
    assert recent.share(31.0).seen == 1


def test_somebody_who_comes_nearer_is_judged_by_the_best_look() -> None:
    """Far off every face is small: that alone is no reason to move a camera."""
    recent = Recent()
    far, near = (aim.judge(face(width), quality(), 120, WANTED) for width in (25, 70))
    recent.add({1: far}, 0.0)
    assert recent.share(0.0).seen == 0
    recent.add({1: near}, 3.0)
    recent.add({1: far}, 4.0)
    assert (recent.share(4.0).seen, recent.share(4.0).usable) == (1, 1)


def test_somebody_who_stays_far_off_is_judged_after_a_while() -> None:
    recent, far = Recent(), aim.judge(face(25), quality(), 120, WANTED)
    for second in range(7):
        recent.add({1: far}, float(second))
    assert aim.verdict(recent.share(6.0), FINE, WANTED).lines[0].startswith("move closer or zoom: faces are 25 px wide")


def test_what_counts_here_counts_when_scanning() -> None:
    """The rules are read from the same configuration that detection and extraction are made of."""
    config = UnitConfig.model_validate({
        "unit": {"keys": "k", "watchlist": "w", "state": "s"}, "camera": [CameraPart(name="gate", source="0")],
        "detect": {"smallest_face": 72}, "extract": {"least_interocular": 20, "greatest_yaw": 0.8},
    })  # fmt: skip
    assert Wanted.of(config) == Wanted(width=72, interocular=20, yaw=0.8, quality=0.15)


def street(number: int) -> Image:
    """A frame of the demo's street."""
    capture = cv2.VideoCapture(str(ASSETS / "street.mp4"))
    capture.set(cv2.CAP_PROP_POS_FRAMES, number)
    return np.asarray(capture.read()[1], np.uint8)


def test_on_the_demo_street_every_spoilt_picture_gets_its_word() -> None:
    """Real faces through the real detector: dark, soft and far away are each found out."""
    frame, wanted = street(120), Wanted(width=36.0, interocular=14.0, yaw=1.0, quality=0.15)
    detector = Detector(packs.load("lamp-detector"), smallest_face=20)

    def told(image: Image) -> aim.Verdict:
        looks = [aim.judge(f, assess(image, f), aim.level(image, f), wanted) for f in detector.detect(image)]
        assert looks, "faces are found in each"
        return aim.verdict(share_of(*looks), scene.look(image), wanted)

    assert not any("dark" in line or "blurred" in line for line in told(frame).lines)
    assert any("faces are dark" in line for line in told(frame // 5).lines)
    assert any("faces are blurred" in line for line in told(cv2.GaussianBlur(frame, (0, 0), 4)).lines)
    assert "36 are wanted" in told(cv2.resize(frame, None, fx=0.35, fy=0.35, interpolation=cv2.INTER_AREA)).lines[0]
