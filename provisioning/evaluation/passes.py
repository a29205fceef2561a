"""Rates for each pass of somebody before a camera, from a clip with ground truth, through the unit's own stages.

A pass is found when any probe of its track reaches the threshold with its own reference first. The frames of a pass
hang together, so passes are counted, never frames. A track that belongs to no pass (a false face) counts as a
non-mated search of its own: on a street it would alert like any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import cv2
import numpy as np

from appliance.detect import Detector
from appliance.embed import Embedder
from appliance.errors import CaptureError
from appliance.extract import Extractor
from appliance.packs import Pack
from appliance.records import Face, Floats, Frame, Image, Probe
from appliance.track import Tracker
from provisioning.evaluation import intervals
from provisioning.evaluation.intervals import Share
from provisioning.truth import Box, Pass, Truth

USABLE = 5  # frames that make a pass count as seen well enough
CAMERA = "evaluation"


@dataclass
class Seen:
    """What the stages made of one pass: greatest scores over its probes, and how many faces were compared.

    `own` is the greatest score of its own reference in a probe in which that reference came first.
    """

    pass_id: str
    reference_identifier: str | None
    usable: int = 0
    own: float = -1.0
    other: float = -1.0


@dataclass(frozen=True)
class Passes:
    """All passes of a clip, and the greatest score of each track that belongs to none."""

    seen: tuple[Seen, ...]
    strays: tuple[float, ...]
    references: int

    def tpir(self, threshold: float, usable: int = 0) -> Share | None:
        """Share of mated passes (of at least `usable` compared faces) that were found; None without any."""
        mated = [s for s in self.seen if s.reference_identifier is not None and s.usable >= usable]
        return intervals.clopper_pearson(sum(s.own >= threshold for s in mated), len(mated)) if mated else None

    def fpir(self, threshold: float) -> Share | None:
        """Share of non-mated passes and stray tracks that reach the threshold with anybody."""
        scores = [s.other for s in self.seen if s.reference_identifier is None] + list(self.strays)
        return intervals.clopper_pearson(sum(s >= threshold for s in scores), len(scores)) if scores else None


@dataclass
class _Tracked:
    """A track so far: votes for the pass it belongs to, and its probes' outcomes as (faces, reference, score)."""

    votes: dict[str, int] = field(default_factory=dict)
    outcomes: list[tuple[int, str, float]] = field(default_factory=list)


def run(
    frames: Iterable[Image],
    truth: Truth,
    detector: Pack,
    embedder: Pack,
    references: Floats,
    identifiers: list[str],
    smallest_face: float = 40.0,
) -> Passes:
    """Run detection, tracking, extraction and comparison over the frames. `references` is (m, length), unit length."""
    find, embed = Detector(detector, smallest_face), Embedder(embedder)
    tracker, extractor = Tracker(), Extractor(CAMERA, embed)
    tracks: dict[int, _Tracked] = {}
    places = _Places(truth)
    for number, image in enumerate(frames):
        clock = number / truth.rate
        alive, ended = tracker.update(find.detect(image), clock)
        for track in alive:
            if track.face is not None and (owner := places.owner(number, track.face)):
                votes = tracks.setdefault(track.number, _Tracked()).votes
                votes[owner] = votes.get(owner, 0) + 1
        for probe in extractor.extract(Frame(CAMERA, number, clock, clock, image), alive):
            tracks.setdefault(probe.track, _Tracked()).outcomes.append(_outcome(probe, references, identifiers))
        extractor.forget(ended)
    return _collected(truth, tracks, len(references))


def frames_of(clip: Path) -> Iterator[Image]:
    """Every frame of a video file, or of a folder of numbered images. Raises CaptureError."""
    if clip.is_dir():
        for path in sorted(clip.glob("*.jpg")):
            image = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if image is None:
                raise CaptureError(f"{path}: not an image that can be read; write the frames again")
            yield cast(Image, image)
        return
    video = cv2.VideoCapture(str(clip))
    if not video.isOpened():
        raise CaptureError(f"{clip}: cannot be opened as a video; check the path and the format")
    while True:
        more, image = video.read()
        if not more:
            break
        yield cast(Image, image)
    video.release()


class _Places:
    """Where each pass's face stands in any frame: ground truth gives some boxes, the rest lie between."""

    def __init__(self, truth: Truth) -> None:
        self._passes = truth.passes

    def owner(self, number: int, face: Face) -> str | None:
        """The pass whose face a detected one is: the nearest within half its width."""
        middle = face.box[:2] + face.box[2:] / 2
        found: tuple[float, str] | None = None
        for entry in self._passes:
            if entry.first_frame <= number <= entry.last_frame and (box := _box_at(entry, number)):
                away = (
                    float(np.hypot(middle[0] - box.x - box.width / 2, middle[1] - box.y - box.height / 2)) / box.width
                )
                if away < 0.5 and (found is None or away < found[0]):
                    found = away, entry.pass_id
        return found[1] if found else None


def _box_at(entry: Pass, number: int) -> Box | None:
    if not entry.boxes:
        return None
    known = [b.frame for b in entry.boxes]
    columns = (
        np.interp(number, known, [getattr(b, name) for b in entry.boxes]) for name in ("x", "y", "width", "height")
    )
    return Box(number, *(float(c) for c in columns))


def _outcome(probe: Probe, references: Floats, identifiers: list[str]) -> tuple[int, str, float]:
    scores = references @ probe.template
    row = int(scores.argmax())
    return len(probe.agreeing), identifiers[row], float(scores[row])


def _collected(truth: Truth, tracks: dict[int, _Tracked], references: int) -> Passes:
    seen = {p.pass_id: Seen(p.pass_id, p.reference_identifier) for p in truth.passes}
    strays = []
    for track in tracks.values():
        if not track.votes:
            strays += [max(score for _, _, score in track.outcomes)] if track.outcomes else []
            continue
        entry = seen[max(track.votes, key=lambda k: track.votes[k])]
        for usable, identifier, score in track.outcomes:
            entry.usable = max(entry.usable, usable)
            if identifier == entry.reference_identifier:
                entry.own = max(entry.own, score)
            else:
                entry.other = max(entry.other, score)
    return Passes(tuple(seen.values()), tuple(strays), references)
