"""The whole path, from a camera to an opened alert, through real keys, real processes and a real broker."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from appliance.recognition import packs
from appliance.recognition.detect import Detector
from appliance.records import Image
from control.receive.inbox import Opened
from demo import rehearsal
from demo.run import ASSETS, SETTINGS
from demo.score import score
from provisioning.truth import read_truth
from tests.support.paths import SHARED

WALKING = SHARED / "data" / "clips" / "face-demographics-walking-and-pause.gif"
FAR_AWAY = SHARED / "data" / "clips" / "face-demographics-walking.gif"
ENTRY = {
    "category": "wanted-on-warrant", "source": "frame of the clip", "lawful_basis": "test", "rationale": "test",
    "image_date": "2026-01-01", "reviewer": "test", "expiry": "2036-12-31",
}  # fmt: skip


def said(_: Opened) -> None:
    """Nothing to show in a test."""


def frames_of(path: Path) -> list[Image]:
    """Every frame of a clip."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while (answer := capture.read())[0]:
        frames.append(np.asarray(answer[1], np.uint8))
    return frames


@pytest.mark.timeout(240)
def test_the_demo_finds_its_mated_passes_and_nobody_else(tmp_path: Path) -> None:
    """The clip of made-up people, every frame, with the built-in packs and their calibrated threshold."""
    prepared = rehearsal.prepare(tmp_path)
    rehearsal.enrol(prepared, ASSETS / "watchlist.csv")
    rehearsal.seal_list(prepared, "DEMO-1", fpir=1e-3)
    outcome = rehearsal.run(prepared, ASSETS / "street.mp4", said, settings=SETTINGS)
    result = score(read_truth(ASSETS / "truth.json"), outcome.opened)
    assert result.mated >= 3
    assert result.missed == 0
    assert result.false == 0
    assert result.alerts == result.mated, "one alert for each mated pass, none repeated"
    assert outcome.refused == 0
    sequence = [one.alert.sequence for one in outcome.opened if one.alert is not None]
    assert sequence == list(range(1, len(sequence) + 1))


@pytest.mark.skipif(not WALKING.exists(), reason="needs ../shared/data/clips (not part of the repository)")
@pytest.mark.parametrize("place", [0, 1, 2], ids=["left", "middle", "right"])
def test_one_of_three_people_is_enrolled_and_alerts_exactly_once(tmp_path: Path, place: int) -> None:
    """Three people walk towards the camera; one is enrolled from a frame of the clip; the rest of it is scanned."""
    frames = frames_of(WALKING)
    chosen = 30
    faces = Detector(packs.load("lamp-detector"), smallest_face=24).detect(frames[chosen])
    box = sorted((f.box for f in faces), key=lambda b: float(b[0]))[place]
    (tmp_path / "portraits").mkdir()
    cv2.imwrite(str(tmp_path / "portraits" / "REF-1.png"), portrait(frames[chosen], box))
    rest = tmp_path / "rest"
    rest.mkdir()
    for number, frame in enumerate(frames):
        if number != chosen:
            cv2.imwrite(str(rest / f"{number:04d}.png"), frame)
    prepared = rehearsal.prepare(tmp_path / "deployment")
    rehearsal.enrol(prepared, tmp_path / "portraits", defaults=ENTRY)
    rehearsal.seal_list(prepared, "CLIP-1", fpir=1e-3)
    outcome = rehearsal.run(prepared, rest, said, settings="[detect]\nsmallest_face = 26\n", fps=12.5)
    assert len(outcome.opened) == 1
    alert = outcome.opened[0].alert
    assert alert is not None
    assert alert.reference_identifier == "REF-1"
    assert outcome.summary["tracks"] == 3


@pytest.mark.skipif(not FAR_AWAY.exists(), reason="needs ../shared/data/clips (not part of the repository)")
def test_faces_too_small_to_compare_honestly_are_not_compared(tmp_path: Path) -> None:
    """Faces of 12 to 18 pixels: whoever stands on the list, no probe is made of them."""
    prepared = rehearsal.prepare(tmp_path)
    rehearsal.enrol(prepared, ASSETS / "watchlist.csv")
    rehearsal.seal_list(prepared, "FAR-1", fpir=1e-3)
    outcome = rehearsal.run(prepared, FAR_AWAY, said, settings="[detect]\nsmallest_face = 12\n")
    assert outcome.summary["frames"] == 35
    assert outcome.summary["probes"] == 0
    assert outcome.summary["alerts"] == 0


def portrait(frame: Image, box: np.ndarray) -> Image:
    """The head with a margin, enlarged as a technician would crop it."""
    x, y, width, height = (float(v) for v in box)
    x0, y0 = max(int(x - 0.6 * width), 0), max(int(y - 0.6 * height), 0)
    crop = frame[y0 : int(y + 1.6 * height), x0 : int(x + 1.6 * width)]
    return np.asarray(cv2.resize(crop, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC), np.uint8)
