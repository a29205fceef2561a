"""What a camera's frames come from: video file, folder of images, RTSP, USB/V4L2, or a GStreamer pipeline.

Each source is a generator of (image, steady seconds). Live sources stamp frames with the monotonic clock; files with
their own media time, so that motion is right however fast they are read. Every image is checked before it goes on.
"""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import cv2
import numpy as np

from appliance.camera_kinds import exists, kind_of, shown
from appliance.errors import CaptureError
from appliance.limits import LIMITS
from appliance.records import Image

Shots = Iterator[tuple[Image, float]]
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_RTSP_TIMEOUT = 5.0  # seconds to connect, and to wait for a packet
_WHOLE = 0.97  # share of the announced frames at which a file counts as whole: some containers only estimate
_V4L2_FAILURES = 30  # reads in a row without a picture before the camera counts as gone


def open_source(source: str, fps: float, report: Callable[[str], None] = print) -> Shots:
    """Open a source; raises CaptureError at once where it cannot be.

    `fps` is for folders, which have no clock; `report` is told of pictures that are left out.
    """
    kind = kind_of(source)
    if kind == "rtsp":
        return _rtsp(source)
    if kind == "v4l2":
        return _opencv_live(_device_number(source), cv2.CAP_V4L2, source)
    if kind == "gstreamer":
        return _opencv_live(source, cv2.CAP_GSTREAMER, shown(source))
    if kind == "folder":
        return _folder(Path(source).expanduser(), fps, report)
    if "://" in source and not exists(Path(source).expanduser()):
        raise CaptureError(f"{shown(source)}: not an address this unit reads; use rtsp:// or rtsps://")
    return _video(Path(source).expanduser())


def checked(image: object) -> Image:
    """A picture fit for the data path: uint8, three channels, of sane size. Raises CaptureError."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim not in (2, 3) or image.size == 0:
        raise CaptureError("a frame without pixels; check the camera's cable and settings")
    height, width = image.shape[:2]
    if min(height, width) < LIMITS.frame_least:
        raise CaptureError(
            f"a frame of {width} x {height} pixels, too small to hold a face; check the camera's settings"
        )
    if _too_large(width, height):
        raise CaptureError(
            f"a frame of {width} x {height} pixels, more than {LIMITS.frame_pixels // 1_000_000} megapixels; "
            "set the camera to a lower resolution"
        )
    if image.ndim == 2 or image.shape[2] == 1:
        return cast(Image, cv2.cvtColor(image, cv2.COLOR_GRAY2BGR))
    return cast(Image, image if image.shape[2] == 3 else cv2.cvtColor(image, cv2.COLOR_BGRA2BGR))


def _too_large(width: int, height: int) -> bool:
    """Whether a picture has more pixels than a frame may have."""
    return max(width, height) > LIMITS.frame_side or width * height > LIMITS.frame_pixels


def _device_number(source: str) -> int:
    """N of /dev/videoN, through whatever link. Raises CaptureError."""
    name = Path(source).resolve().name if not source.isdigit() else f"video{source}"
    found = re.fullmatch(r"video(\d+)", name)
    if found is None:
        raise CaptureError(f"{source}: no camera there; is it plugged in? ls -l /dev/v4l/by-id shows those that are")
    return int(found[1])


def _video(path: Path) -> Shots:
    if not path.is_file():
        raise CaptureError(f"{path}: no such file or camera; check the name in the config")
    if path.stat().st_size == 0:
        raise CaptureError(f"{path}: an empty file; copy it again")
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise CaptureError(f"{path}: not a video this machine can decode; convert it to MP4 (H.264) or MJPEG")
    fps = capture.get(cv2.CAP_PROP_FPS)
    fps = fps if 0.1 <= fps <= 1000 else 25.0
    return _frames_of(capture, path, fps)


def _frames_of(capture: cv2.VideoCapture, path: Path, fps: float) -> Shots:
    number, announced = 0, capture.get(cv2.CAP_PROP_FRAME_COUNT)
    try:
        while True:
            good, image = capture.read()
            if not good:
                break
            yield checked(image), number / fps
            number += 1
    finally:
        capture.release()
    if number == 0:
        raise CaptureError(f"{path}: holds no frame that can be decoded; copy it again or convert it")
    if number < announced * _WHOLE:
        raise CaptureError(
            f"{path}: ended after {number} of {announced:.0f} frames: cut short or damaged; copy it again"
        )


def _folder(folder: Path, fps: float, report: Callable[[str], None]) -> Shots:
    names = sorted((p for p in folder.iterdir() if p.suffix.lower() in PICTURES), key=_natural)
    if not names:
        raise CaptureError(f"{folder}: no pictures ({', '.join(PICTURES)}) in this folder")
    return _pictures(names, fps, report)


def _pictures(names: list[Path], fps: float, report: Callable[[str], None]) -> Shots:
    for number, path in enumerate(names):
        try:
            image = checked(read_picture(path))
        except CaptureError as error:
            report(f"{error}; left out, going on with the next")
            continue
        yield image, number / fps


def read_picture(path: Path) -> Image:
    """Decode one picture after its size was bounded. Raises CaptureError."""
    try:
        size = path.stat().st_size
        if not 0 < size <= LIMITS.image_bytes:
            raise CaptureError(f"{path}: {size} bytes; a picture has between 1 and {LIMITS.image_bytes}")
        content = path.read_bytes()
        _bound_png(path, content)
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error) as error:
        raise CaptureError(f"{path}: cannot be read ({error}); copy it again or remove it") from error
    if image is None:
        raise CaptureError(f"{path}: not a picture this machine can decode; copy it again or remove it")
    return cast(Image, image)


def _bound_png(path: Path, content: bytes) -> None:
    """Refuse a PNG by its header: a few megabytes of it can fill gigabytes. Raises CaptureError."""
    if len(content) < 24 or not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return
    width, height = struct.unpack(">II", content[16:24])  # IHDR is always the first chunk
    if _too_large(width, height):
        raise CaptureError(f"{path}: {width} x {height} pixels, more than a frame may have; make it smaller")


def _natural(path: Path) -> list[tuple[int, str]]:
    """frame_2 before frame_10."""
    return [(int(p), "") if p.isdigit() else (0, p) for p in re.split(r"(\d+)", path.name)]


def _opencv_live(source: int | str, backend: int, name: str) -> Shots:
    capture = cv2.VideoCapture(source, backend)
    if not capture.isOpened():
        advice = "is it plugged in, and may this user read it (group video)?"
        if backend == cv2.CAP_GSTREAMER:
            advice = "OpenCV from the package registry has no GStreamer; on a Jetson use the system's OpenCV"
        raise CaptureError(f"{name}: cannot be opened; {advice}")
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    return _live_frames(capture, name)


def _live_frames(capture: cv2.VideoCapture, name: str) -> Shots:
    failures = 0
    try:
        while failures < _V4L2_FAILURES:
            good, image = capture.read()
            if not good:
                failures += 1
                time.sleep(0.02)
                continue
            failures = 0
            yield checked(image), time.monotonic()
    finally:
        capture.release()
    raise CaptureError(f"{name}: gives no pictures any more; check its cable")


def _rtsp(url: str) -> Shots:
    try:
        import av
        import av.error
    except ImportError as error:
        raise CaptureError("RTSP cameras need PyAV; install it with: pip install 'bluelamp[rtsp]'") from error
    address = shown(url)  # a password in the address must not reach a log
    try:
        container = av.open(url, options={"rtsp_transport": "tcp"}, timeout=(_RTSP_TIMEOUT, _RTSP_TIMEOUT))
    except (av.error.FFmpegError, OSError) as error:
        raise CaptureError(
            f"{address}: cannot be reached ({error.strerror}); check address, network, password"
        ) from error
    if not container.streams.video:
        container.close()
        raise CaptureError(f"{address}: has no video stream; check the path in the address")
    return _rtsp_frames(container, address)


def _rtsp_frames(container: object, address: str) -> Shots:
    import av.container
    import av.error

    assert isinstance(container, av.container.InputContainer)
    container.streams.video[0].thread_type = "AUTO"
    try:
        for frame in container.decode(video=0):
            yield checked(frame.to_ndarray(format="bgr24")), time.monotonic()
    except (av.error.FFmpegError, OSError) as error:
        raise CaptureError(f"{address}: the stream broke off ({error.strerror})") from error
    finally:
        container.close()
    raise CaptureError(f"{address}: the camera ended the stream")
