"""Cameras: files give every frame, live pictures give the newest, and whatever is broken says so in one line."""

from __future__ import annotations

import struct
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from appliance.camera_kinds import kind_of, shown
from appliance.capture.camera import Camera
from appliance.capture.mailbox import Bell, Mailbox
from appliance.capture.sources import checked, open_source, read_picture
from appliance.errors import CaptureError
from appliance.records import Frame


def make_clip(path: Path, frames: int = 20, size: tuple[int, int] = (96, 64)) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, size)
    for i in range(frames):
        writer.write(np.full((size[1], size[0], 3), i * 10 % 256, np.uint8))
    writer.release()
    return path


def frame(number: int) -> Frame:
    return Frame("gate", number, 0.0, 0.0, np.zeros((16, 16, 3), np.uint8))


def taken(camera: Camera, bell: Bell, seconds: float = 10.0) -> list[Frame]:
    got, deadline = [], time.monotonic() + seconds
    camera.start()
    while time.monotonic() < deadline:
        one = camera.take()
        if one is not None:
            got.append(one)
        elif camera.finished:
            break
        else:
            bell.wait(0.05)
    camera.stop()
    return got


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("rtsp://10.0.0.2/stream", "rtsp"), ("/dev/video2", "v4l2"), ("0", "v4l2"), ("clip.mp4", "video"),
        ("nvarguscamerasrc ! video/x-raw ! appsink", "gstreamer"), ("/", "folder"),
        ("/dev/v4l/by-id/usb-Maker_Camera-video-index0", "v4l2"), ("/dev/null", "v4l2"), ("/dev/../clip.mp4", "video"),
    ],
)  # fmt: skip
def test_a_source_says_what_it_is(source: str, kind: str) -> None:
    assert kind_of(source) == kind


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("rtsp://admin:Tr0ub4/dor@host/", "rtsp://host"), ("rtsp://admin:secret@10.0.0.2:554/live", "rtsp://10.0.0.2:554"),
        ("RTSPS://u:p@ss@[fe80::1]:322/x?password=q", "RTSPS://[fe80::1]:322"), ("rtsp://host/?password=p@ss", "rtsp://..."),
        ("rtsp://admin:123/4@host", "rtsp://..."), ("rtsp://host:554/user=a&password=b", "rtsp://host:554"),
        ("http://u:secret@host/video", "http://host"), ("clip.mp4", "clip.mp4"), ("/dev/video0", "/dev/video0"),
        ("rtspsrc location=rtsp://u:secret@host ! appsink", "the GStreamer pipeline (rtspsrc)"),
    ],
)  # fmt: skip
def test_an_address_is_shown_without_user_password_and_path(source: str, text: str) -> None:
    assert shown(source) == text


@pytest.mark.parametrize("source", ["rtsp://admin:Tr0ub4/dor@127.0.0.1:1/x", "http://admin:Tr0ub4/dor@127.0.0.1:1/x"])
def test_a_camera_that_cannot_be_reached_does_not_tell_its_password(source: str) -> None:
    with pytest.raises(CaptureError) as caught:
        next(open_source(source, 10.0))
    assert "127.0.0.1:1" in str(caught.value)
    assert "admin" not in str(caught.value)
    assert "dor" not in str(caught.value)


def test_an_existing_path_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "2026").mkdir()
    (tmp_path / "van-07 gate!.mp4").write_bytes(b"x")
    assert (kind_of("2026"), kind_of("van-07 gate!.mp4")) == ("folder", "video")
    assert kind_of(str(tmp_path / "gone!.mp4")) == "video", "a name from the root is no pipeline"


def test_a_picture_that_is_too_large_is_refused_by_its_header(tmp_path: Path) -> None:
    good = cv2.imencode(".png", np.zeros((64, 64, 3), np.uint8))[1].tobytes()
    path = tmp_path / "huge.png"
    path.write_bytes(good[:16] + struct.pack(">II", 30_000, 30_000) + good[24:])
    with pytest.raises(CaptureError, match="30000 x 30000 pixels"):
        read_picture(path)
    path.write_bytes(good)
    assert read_picture(path).shape == (64, 64, 3)


def test_a_camera_under_any_name_is_a_camera(tmp_path: Path) -> None:
    """Through a link too, or it would be read without an order; a clip on a memory disk stays a clip."""
    (tmp_path / "clip.mp4").symlink_to("/dev/null")
    assert kind_of(str(tmp_path / "clip.mp4")) == "v4l2"
    with pytest.raises(CaptureError, match="no camera there; is it plugged in"):
        open_source(str(tmp_path / "clip.mp4"), 1)


def test_a_file_gives_every_frame_with_its_media_time(tmp_path: Path) -> None:
    bell = Bell()
    got = taken(Camera("gate", str(make_clip(tmp_path / "a.avi")), bell), bell)
    assert [f.number for f in got] == list(range(20))
    assert [round(f.clock, 3) for f in got[:3]] == [0.0, 0.1, 0.2]


def test_a_file_at_real_pace_drops_frames_a_slow_reader_misses(tmp_path: Path) -> None:
    bell = Bell()
    camera = Camera("gate", str(make_clip(tmp_path / "a.avi")), bell, pace="real")
    camera.start()
    while camera.health().state != "running":
        time.sleep(0.01)
    time.sleep(0.6)
    newest = camera.take()
    dropped = camera.health().dropped
    camera.stop()
    assert newest is not None
    assert newest.number >= 4, "the newest frame wins"
    assert dropped >= 3


def test_the_mailbox_keeps_the_newest_and_counts_the_rest() -> None:
    box = Mailbox(Bell())
    for i in range(5):
        assert box.put(frame(i), wait=False)
    newest = box.take()
    assert newest is not None
    assert newest.number == 4
    assert box.dropped == 4
    assert box.take() is None


def test_a_waiting_file_is_released_when_the_mailbox_closes() -> None:
    box = Mailbox(Bell())
    box.put(frame(0), wait=True)
    results: list[bool] = []
    thread = threading.Thread(target=lambda: results.append(box.put(frame(1), wait=True)))
    thread.start()
    box.close()
    thread.join(5)
    assert results == [False]


def test_a_folder_is_read_in_its_natural_order(tmp_path: Path) -> None:
    for i in (10, 2, 1):
        cv2.imwrite(str(tmp_path / f"shot_{i}.png"), np.full((32, 32, 3), i, np.uint8))
    values = [int(image[0, 0, 0]) for image, _ in open_source(str(tmp_path), 10.0)]
    assert values == [1, 2, 10]


def test_what_is_not_there_or_not_a_video_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "noise.mp4").write_bytes(b"this is not a video" * 100)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder").mkdir()
    for name, words in (
        ("missing.mp4", "no such file or camera"), ("noise.mp4", "not a video this machine can decode"),
        ("empty.mp4", "an empty file"), ("folder", "no pictures"),
    ):  # fmt: skip
        with pytest.raises(CaptureError, match=words):
            Camera("gate", str(tmp_path / name), Bell())


def test_a_video_cut_short_gives_what_it_has_and_says_so(tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "a.avi", frames=60, size=(320, 240))
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    said: list[str] = []
    bell = Bell()
    camera = Camera("gate", str(cut), bell, report=said.append)
    got = taken(camera, bell)
    assert 5 < len(got) < 60
    assert camera.failed
    assert len(said) == 1
    assert "cut short" in said[0]


def test_a_broken_picture_in_a_folder_is_skipped_and_told(tmp_path: Path) -> None:
    for i in range(3):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((32, 32, 3), i, np.uint8))
    (tmp_path / "1.png").write_bytes(b"broken")
    said: list[str] = []
    bell = Bell()
    got = taken(Camera("gate", str(tmp_path), bell, report=said.append), bell)
    assert [int(f.image[0, 0, 0]) for f in got] == [0, 2]
    assert len(said) == 1
    assert "1.png" in said[0]


@pytest.mark.parametrize(
    ("shape", "words"),
    [((0, 0, 3), "without pixels"), ((4, 4, 3), "too small"), ((10_000, 10_000, 3), "megapixels")],
)
def test_frames_of_impossible_size_are_refused(shape: tuple[int, int, int], words: str) -> None:
    image = np.broadcast_to(np.zeros(1, np.uint8), shape)
    with pytest.raises(CaptureError, match=words):
        checked(image)


def test_grey_and_transparent_frames_become_colour() -> None:
    assert checked(np.zeros((32, 32), np.uint8)).shape == (32, 32, 3)
    assert checked(np.zeros((32, 32, 4), np.uint8)).shape == (32, 32, 3)


def test_a_camera_that_is_not_plugged_in_is_tried_again_with_backoff() -> None:
    said: list[str] = []
    bell = Bell()
    camera = Camera("gate", "/dev/video97", bell, report=said.append)
    camera.start()
    deadline = time.monotonic() + 10
    while len(said) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    state = camera.health().state
    camera.stop()
    assert len(said) >= 2
    assert "is it plugged in" in said[0]
    assert "trying again in" in said[0]
    assert state == "reconnecting"


def test_a_password_in_an_address_does_not_reach_a_message() -> None:
    pytest.importorskip("av")
    with pytest.raises(CaptureError) as caught:
        next(open_source("rtsp://user:secret@127.0.0.1:9/stream", 10.0))
    assert "secret" not in str(caught.value)
