"""The aiming view's pictures: cameras through the detector, every face covered, and words about what is wrong.

One thread turns through the cameras; each has its newest sight and no older one. There is no file, no socket and no
watchlist here. A recording starts over when it ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import cv2
import numpy as np

from appliance.capture import light as scene
from appliance.capture.camera import Camera
from appliance.capture.light import Scene
from appliance.capture.mailbox import Bell
from appliance.config import CameraPart, UnitConfig
from appliance.errors import BluelampError, CaptureError
from appliance.recognition import packs
from appliance.recognition.detect import Detector
from appliance.recognition.quality import assess
from appliance.recognition.track import Tracker, TrackState
from appliance.records import Face, Frame, Image
from appliance.view import aim, blur
from appliance.view.aim import Look, Recent, Share, Verdict, Wanted
from appliance.view.blur import Veil

_INTERVAL = 0.15  # seconds between two pictures of a camera: enough to aim by, and it leaves a small computer air
_SCENE_SECONDS = 1.0  # how often focus and light are measured
_JPEG = 70  # per cent quality
_USUAL = (720, 1280)  # height and width of a usual frame


class ViewError(BluelampError):
    """The aiming view cannot run now."""


@dataclass(frozen=True)
class Spot:
    """A face in the picture: its box in shares of the picture's width and height, and how it was judged."""

    x: float
    y: float
    width: float
    height: float
    look: Look


@dataclass(frozen=True)
class Sight:
    """What is shown of one moment: `jpeg` is small and without faces; `size` is the camera's own."""

    camera: str
    number: int
    jpeg: bytes
    size: tuple[int, int]
    spots: tuple[Spot, ...]
    share: Share
    scene: Scene
    verdict: Verdict


@dataclass
class _Station:
    """One camera and what is remembered of it: figures of half a minute, boxes of a second."""

    part: CameraPart
    camera: Camera
    veil: Veil
    tracker: Tracker = field(default_factory=Tracker)
    recent: Recent = field(default_factory=Recent)
    scene: Scene | None = None
    scene_due: float = 0.0
    frame_due: float = 0.0
    shown: int = 0


class Feed:
    """Runs from `start` to `stop`. Raises CaptureError or PackError on creation."""

    def __init__(self, config: UnitConfig, names: Sequence[str] = (), say: Callable[[str], None] = print) -> None:
        pack = packs.load(config.models.detector)
        # At its largest: what is too small to be found even then has too few pixels in the small picture (blur.py).
        self._detector = Detector(pack, pack.detector.smallest_face, config.detect.score * blur.SUSPECT,
                                  threads=config.models.threads)  # fmt: skip
        self._detector.detect(np.zeros((*_USUAL, 3), np.uint8))  # opened now, while this process may still do so
        self.wanted = Wanted.of(config)
        self._score, self._say = config.detect.score, say
        self._bell, self._stop = Bell(), threading.Event()
        chosen = [c for c in config.camera if not names or c.name in names]
        if not chosen or len(chosen) < len(set(names)):
            known = ", ".join(c.name for c in config.camera)
            raise CaptureError(f"no camera {', '.join(names)}; in the config there are: {known}")
        self._stations = {part.name: self._station(part) for part in chosen}
        self._changed = threading.Condition()
        self._sights: dict[str, Sight] = {}
        self._failure: BluelampError | None = None
        self._thread = threading.Thread(target=self._run, name="aiming", daemon=True)

    @property
    def cameras(self) -> tuple[str, ...]:
        """Their names, in the config's order."""
        return tuple(self._stations)

    @property
    def ended(self) -> bool:
        """Whether no further picture will come."""
        return not self._thread.is_alive()

    @property
    def failed(self) -> BluelampError | None:
        """What ended the feed before `stop`, if anything did."""
        return self._failure

    def start(self) -> None:
        """Begin to look."""
        for station in self._stations.values():
            station.camera.start()
        self._thread.start()

    def stop(self) -> None:
        """Let the cameras go and forget the last pictures."""
        self._stop.set()
        self._bell.ring()
        self._thread.join(10.0)
        for station in self._stations.values():
            station.camera.stop()
        with self._changed:
            self._sights.clear()
            self._changed.notify_all()

    def wait(self, camera: str, after: int, seconds: float) -> Sight | None:
        """The newest sight of a camera, if it is newer than number `after` or comes within `seconds`."""

        def newer() -> bool:
            sight = self._sights.get(camera)
            return sight is not None and sight.number != after

        with self._changed:
            self._changed.wait_for(lambda: newer() or self._stop.is_set(), seconds)
            return self._sights.get(camera) if newer() else None

    def _station(self, part: CameraPart) -> _Station:
        return _Station(part, self._camera(part), Veil(self._score))

    def _camera(self, part: CameraPart) -> Camera:
        return Camera(part.name, part.source, self._bell, pace="real", fps=part.fps, report=self._say)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                turned = [self._turn(station) for station in self._stations.values()]
                if not any(turned):
                    self._bell.wait(_INTERVAL / 3)
        except BluelampError as error:
            self._failure = error

    def _turn(self, station: _Station) -> bool:
        """Show a camera's newest frame where it is time for one."""
        now = time.monotonic()
        if now < station.frame_due:
            return False
        frame = station.camera.take()
        if frame is None:
            if station.camera.finished:
                self._again(station)
            return False
        station.frame_due = now + _INTERVAL
        sight = self._sight(station, frame, now)
        with self._changed:
            self._sights[station.part.name] = sight
            self._changed.notify_all()
        return True

    def _again(self, station: _Station) -> None:
        if station.camera.failed:
            raise CaptureError(f"camera {station.part.name} failed; see the message above")
        station.camera = self._camera(station.part)
        station.veil, station.tracker = Veil(self._score), Tracker()
        station.camera.start()

    def _sight(self, station: _Station, frame: Frame, now: float) -> Sight:
        if station.scene is None or now >= station.scene_due:
            station.scene, station.scene_due = scene.look(frame.image), now + _SCENE_SECONDS
        suspected = self._detector.detect(frame.image)
        tracks, _ = station.tracker.update([f for f in suspected if f.score >= self._score], frame.clock)
        spots = {t.number: self._spot(frame.image, t.face) for t in tracks if t.face is not None}
        passing = {t.number for t in tracks if t.state is TrackState.CONFIRMED}
        station.recent.add({n: spot.look for n, spot in spots.items() if n in passing}, now)
        share = station.recent.share(now)
        station.shown += 1
        height, width = frame.image.shape[:2]
        covered = station.veil.cover(frame.image, suspected, frame.clock)
        frame.image.fill(0)  # the only picture with faces; nothing else holds it
        return Sight(
            station.part.name, station.shown, encoded(covered), (width, height), tuple(spots.values()), share,
            station.scene, aim.verdict(share, station.scene, self.wanted),
        )  # fmt: skip

    def _spot(self, image: Image, face: Face) -> Spot:
        height, width = image.shape[:2]
        x, y, wide, high = (float(v) for v in face.box)
        look = aim.judge(face, assess(image, face), aim.level(image, face), self.wanted)
        return Spot(x / width, y / height, wide / width, high / height, look)


def encoded(image: Image) -> bytes:
    """A picture as JPEG."""
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG])
    return cast(bytes, np.asarray(data).tobytes())
