"""How well the detector agrees with YuNet on photographs that its training never saw.

Protocol. In each picture YuNet's faces with a score of 0.7 or more are the reference. A face counts as found at a
threshold if a detection with at least that score overlaps it with an IoU of 0.5 or more. A detection is a *false face*
if no YuNet face of score 0.3 or more overlaps it with an IoU of 0.3 or more. The working threshold is the lowest at
which there is at most one false face in ten held-out photographs; recall is stated there and at the unit's default
of 0.6.
The landmark error of a found face is the mean distance of its five landmarks from YuNet's, over YuNet's distance
between the eyes. Held-out photographs are those whose identity `split` holds out; YuNet sees the same pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track

from models.training.chips import Picture
from models.training.detector_labels import YuNet
from models.training.detector_net import Floats, decode, overlaps, run
from models.training.scenes import Album, Composer, Portrait, load_album
from models.training.sources import shared_folder
from models.training.teacher import read_picture

Find = Callable[[Picture], Floats]
"""From a picture to faces (n, 15): x, y, width, height, five landmarks, score; those of 0.05 and more."""

REFERENCE, DOUBTFUL, LEAST = 0.7, 0.3, 0.05
FOUND, OVERLAPPING = 0.5, 0.3  # IoU
UNIT_THRESHOLD = 0.6
FALSE_RATE = 0.1  # false faces a photograph
LEAST_WIDTH = 32.0  # pixels
_SHIFT = 3  # pixels
_SEED = 20_000  # of the held-out scenes: no training run uses it
_CANVAS = (640, 360)
WIDTHS = (12, 16, 24, 32, 48, 64, 96, 160)
BLURS = (0.5, 1.0, 1.5, 2.0, 3.0)
CLIPS_WITH_FACES = ("face-demographics-walking-and-pause.gif", "face-demographics-walking.gif")


@dataclass
class Tally:
    """What was found over some pictures: one entry a reference face, one score a false face."""

    pictures: int = 0
    widths: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)  # of the detection that found it; 0: none
    errors: list[float] = field(default_factory=list)  # share of the distance between the eyes; nan: not found
    false_faces: list[float] = field(default_factory=list)

    def add(self, reference: Floats, doubtful: Floats, found: Floats) -> None:
        """One picture's faces: YuNet's certain ones, all of YuNet's, and the detector's."""
        self.pictures += 1
        overlap = overlaps(reference, found)
        for row, face in enumerate(reference):
            best = int(overlap[row].argmax()) if len(found) else -1
            hit = best >= 0 and overlap[row, best] >= FOUND
            self.widths.append(float(face[2]))
            self.scores.append(float(found[best, 14]) if hit else 0.0)
            self.errors.append(landmark_error(face, found[best]) if hit else float("nan"))
        alone = overlaps(found, doubtful).max(1, initial=0.0) < OVERLAPPING
        self.false_faces += [float(score) for score in found[alone, 14]]

    def threshold(self, rate: float = FALSE_RATE) -> float:
        """The lowest threshold with at most ``rate`` false faces a picture."""
        allowed = int(rate * self.pictures)
        ranked = sorted(self.false_faces, reverse=True)
        return float(np.nextafter(np.float32(ranked[allowed]), np.float32(1))) if len(ranked) > allowed else LEAST

    def recall(self, threshold: float, least: float = LEAST_WIDTH, most: float = np.inf) -> float | None:
        """Share of reference faces from ``least`` to ``most`` pixels wide that were found; None if there are none."""
        widths = np.array(self.widths)
        chosen = (widths >= least) & (widths < most)
        return float((np.array(self.scores)[chosen] >= threshold).mean()) if chosen.any() else None

    def error(self, least: float = LEAST_WIDTH, middle: Callable[[Floats], Any] = np.mean) -> float | None:
        """Mean (or another ``middle``) landmark error of the found faces."""
        widths, errors = np.array(self.widths), np.array(self.errors)
        chosen = (widths >= least) & ~np.isnan(errors)
        return float(middle(errors[chosen])) if chosen.any() else None

    def false_rate(self, threshold: float) -> float:
        """False faces a picture."""
        return sum(score >= threshold for score in self.false_faces) / max(1, self.pictures)


def landmark_error(reference: Floats, found: Floats) -> float:
    """Mean distance of five landmarks over the reference's distance between the eyes."""
    ours, theirs = found[4:14].reshape(5, 2), reference[4:14].reshape(5, 2)
    eyes = max(1e-6, float(np.linalg.norm(theirs[0] - theirs[1])))
    return float(np.linalg.norm(ours - theirs, axis=1).mean()) / eyes


def compare(find: Find, pictures: Iterable[Picture], yunet: YuNet, sharp: Iterator[Picture] | None = None) -> Tally:
    """Tally of a detector over pictures; with ``sharp``, YuNet looks at those in their stead."""
    tally = Tally()
    for picture in pictures:
        seen = yunet_faces(yunet, picture if sharp is None else next(sharp))
        tally.add(seen[seen[:, 14] >= REFERENCE], seen, find(picture))
    return tally


def yunet_faces(yunet: YuNet, picture: Picture) -> Floats:
    """YuNet's faces of score 0.3 and more."""
    return decode(yunet.grids(picture), DOUBTFUL)


def finder(source: Path) -> Find:
    """Of a checkpoint (``.pt``, in float) or of a model pack's folder, as the unit runs it."""
    if source.suffix == ".pt":
        from models.training.detector_train import load_net

        net = load_net(source)
        return lambda picture: decode(run(net, picture), LEAST)
    from appliance.recognition.detect import Detector
    from appliance.recognition.packs import load

    pack = load(source)
    detector = Detector(pack, smallest_face=pack.detector.smallest_face, score=LEAST)

    def find(picture: Picture) -> Floats:
        faces = [np.concatenate([f.box, f.landmarks.reshape(-1), [f.score]]) for f in detector.detect(picture)]
        return np.asarray(faces, np.float32).reshape(-1, 15)

    return find


@dataclass(frozen=True)
class Sets:
    """The held-out pictures. ``share`` takes every n-th of them where time is short."""

    album: Album
    share: int = 1

    @property
    def _lfw(self) -> list[Portrait]:
        return [p for p in self.album.portraits if p.file.parent.parent.name == "lfw"][:: self.share]

    @property
    def _utk(self) -> list[Portrait]:
        return [p for p in self.album.portraits if p.file.parent.name == "utk"][:: self.share]

    def photographs(self) -> list[Picture]:
        """LFW's as they are, 250 x 250."""
        return [read_picture(p.file) for p in self._lfw]

    def scaled(self, width: float) -> list[Picture]:
        """Every third photograph, resized so that its face is about ``width`` pixels wide."""
        return [_scaled(read_picture(p.file), width / p.box[2]) for p in self._lfw[::3]]

    def scenes(self) -> list[Picture]:
        """Composed of held-out photographs, 640 x 360, faces from 9 to 300 pixels."""
        composer = Composer(self.album, _SEED)
        return [composer.scene(number, *_CANVAS) for number in range(400 // self.share)]

    def backgrounds(self) -> list[Picture]:
        """Frames without faces from the part of the clips that training never saw."""
        return list(self.album.frames)

    def clip(self, name: str) -> list[Picture]:
        """Every fourth frame of a clip with real walking people."""
        clip, frames = cv2.VideoCapture(str(shared_folder() / "data" / "clips" / name)), []
        while (answer := clip.read())[0]:
            frames.append(np.asarray(answer[1], dtype=np.uint8))
        return frames[:: 4 * self.share]

    def labelled(self) -> Iterator[tuple[list[str], Picture]]:
        """UTKFace's, with the data set's own labels: with a border, faces of about 70 pixels."""
        for portrait in self._utk:
            wide = cv2.copyMakeBorder(read_picture(portrait.file), 48, 48, 48, 48, cv2.BORDER_REPLICATE)
            yield utk_groups(portrait.file.name), _scaled(np.asarray(wide, dtype=np.uint8), 70 / portrait.box[2])


def _bar(pictures: Iterable[Any], name: str, total: float | None = None) -> Iterable[Any]:
    """Progress on standard error: standard output is for the figures."""
    return track(pictures, name, total=total, console=Console(stderr=True))


def utk_groups(name: str) -> list[str]:
    """``34_1_2_...`` -> sex, ethnicity and age group, as UTKFace labels them; files labelled otherwise give none."""
    parts = name.split("_")
    if len(parts) < 4 or not all(part.isdigit() for part in parts[:3]):
        return []
    age, sex, ethnicity = (int(part) for part in parts[:3])
    ages = "age 0-17" if age < 18 else "age 18-39" if age < 40 else "age 40-64" if age < 65 else "age 65 and over"
    return [("male", "female")[sex % 2], ("White", "Black", "Asian", "Indian", "other")[min(ethnicity, 4)], ages]


def _scaled(picture: Picture, factor: float) -> Picture:
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, None, fx=factor, fy=factor, interpolation=how), dtype=np.uint8)


def blurred(pictures: list[Picture], sigma: float) -> list[Picture]:
    """Gaussian blur of ``sigma`` pixels."""
    return [np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), dtype=np.uint8) for picture in pictures]


def measure(source: Path, share: int = 1) -> dict[str, Any]:
    """Every figure of the detector's card for a checkpoint or a pack."""
    find, yunet, sets = finder(source), YuNet(), Sets(load_album(held=True), share)
    photographs = compare(find, _bar(sets.photographs(), "photographs"), yunet)
    threshold = photographs.threshold()
    figures: dict[str, Any] = {
        "photographs": {"threshold": threshold, **_figures(photographs, threshold)},
        "yunet_against_itself": _figures(compare(_moved(yunet), sets.photographs()[::4], yunet), UNIT_THRESHOLD),
        "scenes": _figures(compare(find, _bar(sets.scenes(), "scenes"), yunet), threshold),
        "backgrounds": _figures(compare(find, sets.backgrounds(), yunet), threshold),
        "clips": {
            n: _figures(compare(find, _bar(sets.clip(n), "clip"), yunet), threshold, 8) for n in CLIPS_WITH_FACES
        },
    }
    figures["by_width"] = {
        width: _figures(compare(find, _bar(sets.scaled(width), f"{width} px"), yunet), threshold, 0) for width in WIDTHS
    }
    figures["by_blur"] = _by_blur(find, sets.scaled(64), yunet)
    figures["by_group"] = _by_group(find, sets, yunet, threshold)
    return figures


def _figures(tally: Tally, threshold: float, least: float = LEAST_WIDTH) -> dict[str, Any]:
    chosen = [w for w in tally.widths if w >= least]
    return {
        "pictures": tally.pictures,
        "faces": len(chosen),
        "recall": tally.recall(threshold, least),
        "recall_at_unit_threshold": tally.recall(UNIT_THRESHOLD, least),
        "landmark_error": tally.error(least),
        "landmark_error_median": tally.error(least, np.median),
        "false_faces_a_picture": tally.false_rate(threshold),
        "false_faces_a_picture_at_unit_threshold": tally.false_rate(UNIT_THRESHOLD),
    }


def _moved(yunet: YuNet) -> Find:
    """YuNet on the picture moved by three pixels: how far its own landmarks depend on where its cells fall."""

    def find(picture: Picture) -> Floats:
        edged = cv2.copyMakeBorder(picture, _SHIFT, 0, _SHIFT, 0, cv2.BORDER_CONSTANT)
        faces = yunet_faces(yunet, np.asarray(edged, dtype=np.uint8))
        faces[:, [0, 1, *range(4, 14)]] -= _SHIFT
        return faces

    return find


def _by_group(find: Find, sets: Sets, yunet: YuNet, threshold: float) -> dict[str, dict[str, Any]]:
    tallies: dict[str, Tally] = {}
    for groups, picture in _bar(sets.labelled(), "groups", total=len(sets._utk)):
        seen, found = yunet_faces(yunet, picture), find(picture)
        for group in groups:
            tallies.setdefault(group, Tally()).add(seen[seen[:, 14] >= REFERENCE], seen, found)
    return {group: _figures(tallies[group], threshold) for group in sorted(tallies)}


def _by_blur(find: Find, sharp: list[Picture], yunet: YuNet) -> dict[float, dict[str, float | None]]:
    """Recall of the faces that YuNet finds in the sharp picture, of 64 pixels: ours and YuNet's own, both at 0.6."""

    def teacher(picture: Picture) -> Floats:
        return yunet_faces(yunet, picture)

    return {
        sigma: {
            "detector": compare(find, blurred(sharp, sigma), yunet, iter(sharp)).recall(UNIT_THRESHOLD),
            "yunet": compare(teacher, blurred(sharp, sigma), yunet, iter(sharp)).recall(UNIT_THRESHOLD),
        }
        for sigma in BLURS
    }
