"""Where a camera should point: what makes its faces unusable, and what the field team can do about it, in words.

Pure: pixels, figures and a clock reading go in, words come out. Nothing is compared, and nothing here could tell whose
face it is. The rules are those of detection and extraction (config.py): what counts here counts when scanning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

import cv2

from appliance.capture import light as scene
from appliance.capture.light import Scene
from appliance.config import UnitConfig
from appliance.records import Face, Image, Quality

WINDOW = 30.0  # seconds that a camera is judged over
Fault = Literal["small", "turned", "dark", "bright", "pale", "blurred", "poor"]
_DARK, _BRIGHT = 50.0, 205.0  # mean grey levels of a face, as in quality.py
_PALE = 0.5  # exposure figure under which a face has too little contrast, where it is neither dark nor bright
_SOFT = 0.3  # sharpness figure under which a face is blurred; 1 in 100 on the demo's street is
_OFTEN = 0.2  # share of those who passed from which a fault is worth a word
_GOOD = 0.7  # share of usable faces at which a camera stands well: some people do look away
_GONE, _LINGERING = 1.2, 5.0  # seconds unseen, and seconds in view, after which somebody's best look is judged


@dataclass(frozen=True)
class Wanted:
    """What a face must have to be compared: `width` and `interocular` in pixels of the camera, `yaw`, `quality`."""

    width: float
    interocular: float
    yaw: float
    quality: float

    @classmethod
    def of(cls, config: UnitConfig) -> Wanted:
        """From [detect] and [extract]."""
        rules = config.extract
        return cls(config.detect.smallest_face, rules.least_interocular, rules.greatest_yaw, rules.least_quality)


@dataclass(frozen=True)
class Look:
    """One face, judged: `width` and `interocular` in pixels, `level` its mean grey, `yaw` as in Quality."""

    width: float
    interocular: float
    level: float
    yaw: float
    faults: tuple[Fault, ...]

    @property
    def usable(self) -> bool:
        """Worth comparing."""
        return not self.faults


@dataclass(frozen=True)
class Share:
    """Who passed in the last WINDOW seconds, each by the best look at the face: how many were usable, the medians, and
    how many had each fault even then."""

    seen: int
    usable: int
    width: float
    interocular: float
    level: float
    yaw: float
    faults: dict[Fault, int]

    def often(self, fault: Fault) -> bool:
        """Whether a fault is worth a word."""
        return self.seen > 0 and self.faults.get(fault, 0) >= _OFTEN * self.seen


@dataclass(frozen=True)
class Verdict:
    """Whether the camera may stay as it is, and in words what to do; the first line matters most."""

    good: bool
    lines: tuple[str, ...]


def level(image: Image, face: Face) -> float:
    """Mean grey of the part of a face's box that lies in the picture (height, width, 3) uint8 BGR; 0 to 255."""
    x, y, width, height = (round(float(v)) for v in face.box)
    region = image[max(y, 0) : max(y + height, 0), max(x, 0) : max(x + width, 0)]
    return float(cv2.cvtColor(region, cv2.COLOR_BGR2GRAY).mean()) if region.size else 0.0


def judge(face: Face, quality: Quality, level: float, wanted: Wanted) -> Look:
    """What is wrong with one face; `level` is its mean grey, 0 to 255."""
    width, found = float(face.box[2]), list[Fault]()
    if width < wanted.width or quality.interocular < wanted.interocular:
        found.append("small")
    if abs(quality.yaw) > wanted.yaw:
        found.append("turned")
    if level < _DARK:
        found.append("dark")
    elif level > _BRIGHT:
        found.append("bright")
    elif quality.exposure < _PALE:
        found.append("pale")
    if quality.sharpness < _SOFT:
        found.append("blurred")
    if not found and quality.value < wanted.quality:
        found.append("poor")
    return Look(width, quality.interocular, level, quality.yaw, tuple(found))


@dataclass
class _Passer:
    """One track's best look; `first` and `last` are steady seconds."""

    best: Look
    first: float
    last: float

    def counts(self, clock: float) -> bool:
        """Somebody far off comes nearer: whoever was not usable yet is judged when gone, or after a while."""
        return self.best.usable or clock - self.last > _GONE or clock - self.first > _LINGERING


@dataclass
class Recent:
    """Who passed one camera in the last WINDOW seconds: figures only. A track's number says nothing of a person."""

    _passers: dict[int, _Passer] = field(default_factory=dict)

    def add(self, looks: Mapping[int, Look], clock: float) -> None:
        """The looks of one frame by track, at steady second `clock`."""
        for track, look in looks.items():
            passer = self._passers.setdefault(track, _Passer(look, clock, clock))
            passer.last, passer.best = clock, max(passer.best, look, key=_goodness)
        self._passers = {n: p for n, p in self._passers.items() if clock - p.last <= WINDOW}

    def share(self, clock: float) -> Share:
        """What they come to."""
        looks = [p.best for p in self._passers.values() if p.counts(clock)]
        faults: dict[Fault, int] = {}
        for look in looks:
            for fault in look.faults:
                faults[fault] = faults.get(fault, 0) + 1
        middle = [median(values) for values in zip(*((x.width, x.interocular, x.level, x.yaw) for x in looks),
                                                   strict=True)]  # fmt: skip
        width, interocular, grey, yaw = middle or (0.0, 0.0, 0.0, 0.0)
        return Share(len(looks), sum(x.usable for x in looks), width, interocular, grey, yaw, faults)


def _goodness(look: Look) -> tuple[bool, int, float]:
    return look.usable, -len(look.faults), look.width


def verdict(share: Share, found: Scene, wanted: Wanted) -> Verdict:
    """What to do, most important first: the picture before its faces."""
    lines = list(scene.faults(found, wanted.width))
    lines += [words(share, wanted) for fault, words in _WORDS.items() if share.often(fault)]
    if share.seen == 0:
        return Verdict(False, (*lines, "no face in the last 30 s: wait until somebody passes"))
    percent = f"{share.usable} of {share.seen} who passed had a usable face"
    if lines:
        return Verdict(False, (*lines, percent))
    good = share.usable >= _GOOD * share.seen
    return Verdict(good, (f"good: {percent}" if good else f"nearly: {percent}",))


def _small(share: Share, wanted: Wanted) -> str:
    if share.width < wanted.width:
        return f"move closer or zoom: faces are {share.width:.0f} px wide, {wanted.width:.0f} are wanted"
    if share.interocular < wanted.interocular:
        return (f"move closer or zoom: {share.interocular:.0f} px between the eyes, {wanted.interocular:.0f} are "
                "needed")  # fmt: skip
    return f"some faces are too small ({wanted.width:.0f} px are wanted): narrow the view to where people pass"


def _turned(share: Share, wanted: Wanted) -> str:
    side = "right" if share.yaw > 0 else "left"
    return f"faces are turned to the picture's {side}: put the camera where people walk towards it, or further {side}"


_WORDS: dict[Fault, Callable[[Share, Wanted], str]] = {
    "small": _small,
    "dark": lambda share, wanted: f"faces are dark (level {share.level:.0f} of 255): light them from the camera's side",
    "bright": lambda share, wanted: f"faces are too bright (level {share.level:.0f} of 255): expose less",
    "pale": lambda share, wanted: "faces have no contrast: wipe the lens, and turn away from the light behind them",
    "blurred": lambda share, wanted: "faces are blurred: focus on where people pass, or expose shorter",
    "turned": _turned,
    "poor": lambda share, wanted: "faces are a little small, soft and turned at once: move closer first",
}
