"""The quality gate of enrolment: exactly one face, large, sharp, frontal and well exposed enough; a score 0 to 100.

A reference is compared with everybody who walks past, so a poor one costs false alerts all day: it is stopped here,
with the reason, rather than enrolled and regretted. (ISO/IEC 29794-5's intent; requirement 23.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from appliance.errors import EnrolmentError
from appliance.recognition import align
from appliance.recognition.detect import Detector
from appliance.recognition.embed import Embedder
from appliance.recognition.packs import Pack
from appliance.recognition.quality import assess
from appliance.records import Face, Floats, Image, Models, Quality
from provisioning.policy import Policy

_SIDE = 960  # pixels; larger images are searched at this size and cut at their own
_SMALLEST = 24.0  # pixels at that size
_SCORE = 0.6  # the detector's; the same as on the unit
_SECOND = 0.6  # a second face at least this share of the first one's width makes the image ambiguous
_BORDER = 0.3  # of the sides; detectors miss faces that fill the picture
_SIZE_LEAST, _SIZE_FULL = 10.0, 60.0  # pixels between the eyes: 60 is where a reference gains no more
_YAW_MOST = 1.1  # beyond, the far eye is hidden


@dataclass(frozen=True)
class Passed:
    """What the gate lets through. `score` is 0 to 100, `template` (length,), unit length."""

    template: Floats
    score: float
    quality: Quality
    warnings: tuple[str, ...]


class Gate:
    """Detector and embedder of one thread, with the policy's limits.

    `largest` takes the largest of several faces instead of refusing the image.
    """

    def __init__(self, detector: Pack, embedder: Pack, policy: Policy, largest: bool = False) -> None:
        self._largest = largest
        self._detector = gate_detector(detector)
        self._embedder = Embedder(embedder)
        self._policy = policy
        self.models = Models(detector=detector.digest, embedder=embedder.digest)

    def template(self, image: Image) -> Passed:
        """The one face of an upright image (height, width, 3) uint8 BGR as a template. Raises EnrolmentError."""
        canvas, face, others = self._only_face(image)
        quality = assess(canvas, face)
        score = score_of(quality)
        self._judge(quality, score)
        part = self._embedder
        chip = align.chip(canvas, face.landmarks, part.landmarks, part.width, part.height)
        warnings = _warnings(quality, score)
        if others:
            warnings = (*warnings, f"{others} other face(s) in the image; the largest was used")
        return Passed(part.embed(chip[None])[0], score, quality, warnings)

    def _only_face(self, image: Image) -> tuple[Image, Face, int]:
        """The canvas a face was found on, the face in its pixels, and how many smaller ones there are."""
        faces = faces_in(self._detector, image)
        if not faces:
            edge = int(_BORDER * max(image.shape[:2]))
            image = np.asarray(cv2.copyMakeBorder(image, edge, edge, edge, edge, cv2.BORDER_REPLICATE), np.uint8)
            faces = faces_in(self._detector, image)
        if not faces:
            raise EnrolmentError("no face found; choose another image, upright and lit")
        faces.sort(key=lambda f: -float(f.box[2]))
        many = [f for f in faces if f.box[2] >= _SECOND * faces[0].box[2]]
        if len(many) > 1 and not self._largest:
            raise EnrolmentError(f"{len(many)} faces found; crop the image to the one that is meant")
        return image, faces[0], len(faces) - 1

    def _judge(self, quality: Quality, score: float) -> None:
        least = self._policy.least_interocular
        if quality.interocular < least:
            raise EnrolmentError(f"face too small: {quality.interocular:.0f} pixels between the eyes, "
                                 f"at least {least:.0f} are needed; use a larger image")  # fmt: skip
        if abs(quality.yaw) > _YAW_MOST:
            raise EnrolmentError("turned away too far; use an image that looks at the camera")
        if score < self._policy.least_quality:
            raise EnrolmentError(f"quality {score:.0f} of 100, at least {self._policy.least_quality:.0f} is needed: "
                                 f"{_weakest(quality)}; use a better image")  # fmt: skip


def faces_in(detector: Detector, image: Image) -> list[Face]:
    """The faces of a picture of any size, in its own pixels; large ones are searched at _SIDE."""
    scale = min(1.0, _SIDE / max(image.shape[:2]))
    small = image
    if scale < 1:
        small = np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    ratio = np.float32(1 / scale)
    return [Face(f.box * ratio, (f.landmarks + 0.5) * ratio - 0.5, f.score) for f in detector.detect(small)]


def gate_detector(detector: Pack) -> Detector:
    """A detector set as the gate sets it."""
    return Detector(detector, smallest_face=_SMALLEST, score=_SCORE)


def score_of(quality: Quality) -> float:
    """0 to 100: the geometric mean of size, sharpness, pose and exposure, so that one bad part is not outvoted."""
    parts = list(_parts(quality).values())
    return round(100 * math.prod(parts) ** (1 / len(parts)), 1)


def _parts(quality: Quality) -> dict[str, float]:
    size = float(np.clip((quality.interocular - _SIZE_LEAST) / (_SIZE_FULL - _SIZE_LEAST), 0, 1))
    pose = float(np.clip(1.25 - abs(quality.yaw), 0, 1))
    return {"small": size, "blurred": quality.sharpness, "turned away": pose, "badly lit": quality.exposure}


def _weakest(quality: Quality) -> str:
    parts = _parts(quality)
    return min(parts, key=lambda name: parts[name])


def _warnings(quality: Quality, score: float) -> tuple[str, ...]:
    found = [f"{name} ({value:.0%})" for name, value in _parts(quality).items() if value < 0.4]
    return tuple([f"quality {score:.0f} of 100: {', '.join(found)}"] if found else [])
