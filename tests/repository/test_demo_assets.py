"""What the demo ships is whole: the clip decodes, truth fits it, the portraits exist, all of it is small."""

from __future__ import annotations

import csv
from datetime import date

import cv2
import numpy as np
import pytest

from provisioning.truth import Truth, read_truth
from tests.support.paths import ROOT

ASSETS = ROOT / "demo" / "assets"


@pytest.fixture(scope="module")
def truth() -> Truth:
    return read_truth(ASSETS / "truth.json")


@pytest.fixture(scope="module")
def listed() -> list[dict[str, str]]:
    with (ASSETS / "watchlist.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_clip_decodes_to_as_many_frames_as_truth_says(truth: Truth) -> None:
    video = cv2.VideoCapture(str(ASSETS / truth.clip))
    count = 0
    while video.grab():
        count += 1
    assert count == truth.frames
    assert (video.get(cv2.CAP_PROP_FRAME_WIDTH), video.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (truth.width, truth.height)
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(truth.rate)


def test_the_clip_decodes_with_pyav_too(truth: Truth) -> None:
    av = pytest.importorskip("av", reason="PyAV belongs to the rtsp extra")
    with av.open(str(ASSETS / truth.clip)) as container:
        frame = next(container.decode(video=0))
        assert (frame.width, frame.height) == (truth.width, truth.height)


def test_every_box_lies_in_the_picture_and_within_its_pass(truth: Truth) -> None:
    for entry in truth.passes:
        assert 0 <= entry.first_frame < entry.last_frame < truth.frames
        assert entry.boxes[0].frame == entry.first_frame
        assert entry.boxes[-1].frame == entry.last_frame
        for box in entry.boxes:
            assert box.x >= 0 and box.y >= 0
            assert box.x + box.width <= truth.width and box.y + box.height <= truth.height


def test_faces_grow_from_distant_to_near_and_few_walk_at_once(truth: Truth) -> None:
    for entry in truth.passes:
        assert entry.boxes[0].width < 60 < 110 < entry.boxes[-1].width
    at_once = [sum(p.first_frame <= f <= p.last_frame for p in truth.passes) for f in range(truth.frames)]
    assert max(at_once) <= 6


def test_everybody_walks_once_and_three_to_five_are_on_the_watchlist(
    truth: Truth, listed: list[dict[str, str]]
) -> None:
    identities = [entry.identity for entry in truth.passes]
    assert len(set(identities)) == len(identities) >= 24
    mated = [entry.reference_identifier for entry in truth.passes if entry.mated]
    assert 3 <= len(mated) == len(set(mated)) <= 5
    assert set(mated) < {row["reference_identifier"] for row in listed}


def test_the_enrolment_list_is_complete_and_in_order(listed: list[dict[str, str]]) -> None:
    assert 12 <= len(listed) <= 24
    assert len({row["reference_identifier"] for row in listed}) == len(listed)
    for row in listed:
        assert all(row.values())
        assert date.fromisoformat(row["image_date"]) < date.fromisoformat(row["expiry"])


def test_every_portrait_decodes_and_belongs_to_the_list(listed: list[dict[str, str]]) -> None:
    named = {image for row in listed for image in row["image"].split(";")}
    assert named == {f"portraits/{path.name}" for path in (ASSETS / "portraits").iterdir()}
    for image in named:
        picture = cv2.imread(str(ASSETS / image))
        assert picture is not None
        assert picture.shape == (320, 320, 3)


def test_the_poster_is_a_small_picture_with_something_in_it() -> None:
    picture = cv2.imread(str(ASSETS / "poster.jpg"))
    assert picture is not None
    assert float(np.std(picture)) > 20
    assert (ASSETS / "poster.jpg").stat().st_size < 80_000


def test_the_assets_are_small_and_hold_no_face_model() -> None:
    files = [path for path in ASSETS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 6_000_000
    assert (ASSETS / "street.mp4").stat().st_size < 4_000_000
    assert {path.suffix for path in files} <= {".mp4", ".json", ".csv", ".jpg", ".md"}
