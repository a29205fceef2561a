"""What is left of a face when the head tilts: photographs turned in the plane, found, aligned, embedded.

Protocol. One held-out photograph of LFW an identity, the first; its edge is repeated outwards and the whole is turned
about the face. The truth is YuNet's face in the upright photograph (`steady_face`), turned with it. A turned face
counts as found if a detection of the unit's threshold lies within 0.4 face widths of where it is. Its template agrees
if it still scores the operating threshold or more with the template of the upright photograph, found by the same
detector. The landmark error is that of `detector_measure`, against the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from appliance.recognition import calibration
from appliance.recognition.align import chip
from appliance.recognition.embed import Embedder
from appliance.recognition.packs import load
from models.training.chips import Picture
from models.training.detector_labels import YuNet
from models.training.detector_measure import UNIT_THRESHOLD, Find, landmark_error
from models.training.detector_net import Floats, decode
from models.training.scenes import load_album
from models.training.teacher import read_picture
from models.training.turned import View

ANGLES = (0, 15, 25, 30, 45, 60)
_EDGE = 60  # pixels repeated outwards on each side
_NEAR = 0.4  # face widths
_POINT = (10_000, 1 / 6000)  # references, FPIR
_LEAST_SCORE = 0.7
_SIZES = (0.85, 1.0, 1.2)
_MOST_SPREAD = 0.15  # of the distance between the eyes: beyond, YuNet saw different faces or none

Template = Callable[[Picture, Floats], Floats]
"""From a picture and landmarks (5, 2) to a template of unit length."""


@dataclass
class Turned:
    """What was measured at one angle: one entry a photograph; errors of the found ones only."""

    found: list[bool] = field(default_factory=list)
    agrees: list[bool] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        """Shares, and the mean and median landmark error."""
        errors = np.array(self.errors or [np.nan])
        return {
            "photographs": len(self.found),
            "found": float(np.mean(self.found)),
            "template_agrees": float(np.mean(self.agrees)),
            "landmark_error": float(errors.mean()),
            "landmark_error_median": float(np.median(errors)),
        }


def unit_template(name: str = "lamp-embedder") -> tuple[Template, float]:
    """Templates as the unit makes them with an embedder pack, and its threshold for 1 in 6,000 with 10,000 references.

    Raises PackError where the pack is not calibrated.
    """
    pack = load(name)
    embedder = Embedder(pack)

    def template(picture: Picture, points: Floats) -> Floats:
        aligned = chip(picture, points, embedder.landmarks, embedder.width, embedder.height)
        return np.asarray(embedder.embed(aligned[None])[0], np.float32)

    return template, calibration.load(pack).threshold_for(*_POINT)


def upright(count: int) -> Iterator[tuple[Picture, Floats]]:
    """Held-out photographs with their edge repeated, and YuNet's face (15,) in each; at most ``count``."""
    yunet, given = YuNet(), 0
    for portrait in load_album(held=True).portraits:
        if given == count or not portrait.file.name.endswith("_0001.jpg"):
            continue
        wide = cv2.copyMakeBorder(read_picture(portrait.file), _EDGE, _EDGE, _EDGE, _EDGE, cv2.BORDER_REPLICATE)
        picture = np.asarray(wide, dtype=np.uint8)
        face = steady_face(picture, yunet)
        if face is not None:
            given += 1
            yield picture, face


def turn(picture: Picture, face: Floats, angle: float) -> tuple[Picture, Floats]:
    """The picture turned about the face by ``angle`` degrees, and the face's middle and landmarks there, (6, 2)."""
    middle = face[:2] + face[2:4] / 2
    matrix = cv2.getRotationMatrix2D((float(middle[0]), float(middle[1])), angle, 1.0)
    view = View(matrix.astype(np.float32), picture.shape[1], picture.shape[0])
    return view.picture(picture), view.points(np.vstack([middle, face[4:14].reshape(5, 2)]))


def measure_turns(
    find: Find, template: Template, threshold: float, count: int, angles: Sequence[float] = ANGLES
) -> dict[float, dict[str, float]]:
    """Figures by angle, in degrees; ``angles`` begins with 0, which the others are compared with."""
    tallies = {angle: Turned() for angle in angles}
    for picture, face in upright(count):
        first: Floats | None = None
        for angle in angles:
            seen, truth = turn(picture, face, angle)
            row = _at(find(seen), truth[0], _NEAR * float(face[2]))
            tally = tallies[angle]
            tally.found.append(row is not None)
            made = None if row is None else template(seen, row[4:14].reshape(5, 2))
            first = made if angle == angles[0] else first
            tally.agrees.append(made is not None and first is not None and float(made @ first) >= threshold)
            if row is not None:
                wanted = row.copy()
                wanted[4:14] = truth[1:].ravel()
                tally.errors.append(landmark_error(wanted, row))
    return {angle: tally.figures() for angle, tally in tallies.items()}


def _at(faces: Floats, middle: Floats, near: float) -> Floats | None:
    """The face of the unit's threshold nearest to ``middle``, if near enough."""
    faces = faces[faces[:, 14] >= UNIT_THRESHOLD]
    if not len(faces):
        return None
    offset = np.linalg.norm(faces[:, :2] + faces[:, 2:4] / 2 - middle, axis=1)
    return np.asarray(faces[int(offset.argmin())], np.float32) if offset.min() <= near else None


def steady_face(picture: Picture, yunet: YuNet) -> Floats | None:
    """(15,) of the face nearest to the middle: the mean of YuNet's answers to several sizes and to mirror images."""
    answers = []
    for size in _SIZES:
        scaled = np.asarray(cv2.resize(picture, None, fx=size, fy=size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        for mirrored in (False, True):
            seen = np.ascontiguousarray(scaled[:, ::-1]) if mirrored else scaled
            face = _middle_face(decode(yunet.grids(seen), _LEAST_SCORE), seen)
            if face is None:
                return None
            answers.append((_unmirrored(face, seen.shape[1]) if mirrored else face) / _scales(size))
    faces = np.stack(answers)
    eyes = float(np.linalg.norm(faces[:, 6:8] - faces[:, 4:6], axis=1).mean())
    spread = float(np.linalg.norm((faces - faces.mean(0))[:, 4:14].reshape(-1, 5, 2), axis=2).mean())
    return np.asarray(faces.mean(0), np.float32) if spread < _MOST_SPREAD * eyes else None


def _scales(size: float) -> npt.NDArray[np.float32]:
    return np.array([size] * 14 + [1.0], np.float32)


def _middle_face(faces: Floats, picture: Picture) -> Floats | None:
    if not len(faces):
        return None
    offset = faces[:, :2] + faces[:, 2:4] / 2 - np.array(picture.shape[1::-1]) / 2
    return np.asarray(faces[int(np.linalg.norm(offset, axis=1).argmin())], np.float32)


def _unmirrored(face: Floats, width: int) -> Floats:
    back = face.copy()
    back[0] = width - face[0] - face[2]
    points = face[4:14].reshape(5, 2)[[1, 0, 2, 4, 3]]
    back[4:14] = np.column_stack([width - 1 - points[:, 0], points[:, 1]]).ravel()
    return back
