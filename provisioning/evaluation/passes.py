"""Rates for each pass of somebody before a camera, from a clip with ground truth, through the unit's own stages.

A pass is found when any probe of its track would raise an alert for its own reference, by the rules of
appliance.recognition.decide and before any other. The frames of a pass hang together, so passes are counted, never
frames. A track that belongs to no pass (a false face) counts as a non-mated search of its own: on a street it would
alert like any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from appliance.errors import CaptureError
from appliance.recognition.decide import DecideRules, supported
from appliance.recognition.detect import Detector
from appliance.recognition.embed import Embedder
from appliance.recognition.extract import Extractor
from appliance.recognition.packs import Pack
from appliance.recognition.track import Tracker
from appliance.records import Face, Floats, Frame, Image, Probe
from provisioning.evaluation import identification, intervals, population
from provisioning.evaluation.dataset import Dataset
from provisioning.evaluation.embeddings import Templates
from provisioning.evaluation.identification import Trials
from provisioning.evaluation.intervals import Share
from provisioning.truth import Box, Pass, Truth

USABLE = 5  # frames that make a pass count as seen well enough
CAMERA = "evaluation"
RULES = DecideRules()  # of an alert, as a unit has them where its configuration says nothing else


@dataclass
class Seen:
    """What the stages made of one pass: how many faces were compared, and `reached` (m,), the greatest threshold at
    which each reference would have raised an alert in any of its probes (see appliance.recognition.decide)."""

    pass_id: str
    identity: str
    reference_identifier: str | None
    usable: int = 0
    reached: Floats | None = None


@dataclass(frozen=True)
class Passes:
    """All passes of a clip before references of `identifiers`; `strays` are tracks that belong to none."""

    seen: tuple[Seen, ...]
    strays: tuple[Floats, ...]
    identifiers: tuple[str, ...]

    @property
    def references(self) -> int:
        """Length of the list."""
        return len(self.identifiers)

    def tpir(self, threshold: float, usable: int = 0, of: frozenset[str] | None = None) -> Share | None:
        """Share of mated passes (of at least `usable` compared faces, and of references in `of`) that raise an alert
        for their own reference, with no other reference reaching more; None without any."""
        found = self.found(threshold, usable, of)
        return intervals.clopper_pearson(int(found.sum()), len(found)) if len(found) else None

    def found(self, threshold: float, usable: int = 0, of: frozenset[str] | None = None) -> npt.NDArray[np.bool_]:
        """For each such pass, in order, whether it raised that alert."""
        mated = [s for s in self.seen if s.reference_identifier is not None and s.usable >= usable]
        return np.array([self._found(s, threshold) for s in mated if of is None or s.reference_identifier in of], bool)

    def fpir(self, threshold: float) -> Share | None:
        """Share of non-mated passes and stray tracks that raise an alert for anybody."""
        reached = [s.reached for s in self.seen if s.reference_identifier is None] + list(self.strays)
        events = sum(r is not None and float(r.max()) >= threshold for r in reached)
        return intervals.clopper_pearson(events, len(reached)) if reached else None

    def trials(self, usable: int = 0) -> Trials:
        """The open-set test with passes (of at least `usable` compared faces) as probes, at any list size.

        Every pass is a non-mated probe, its own reference left out, as every still is in the test on stills.
        """
        seen = [s for s in self.seen if s.usable >= usable]
        scores = np.stack([self._all(s) for s in seen])
        mated = np.full(len(seen), np.nan, np.float32)
        for row, entry in enumerate(seen):
            if entry.reference_identifier in self.identifiers:
                place = self.identifiers.index(entry.reference_identifier)
                mated[row], scores[row, place] = scores[row, place], -np.inf
        above = np.count_nonzero(scores > mated[:, None], axis=1).astype(np.int64)
        keep = min(identification.KEPT, self.references - 1)
        names = {name: number for number, name in enumerate(dict.fromkeys(s.identity for s in seen))}
        identities = np.array([names[s.identity] for s in seen], np.int64)
        return Trials(identities, -np.sort(-scores, axis=1)[:, :keep], self.references - 1, mated, above)

    def _all(self, entry: Seen) -> Floats:
        return np.full(self.references, -1.0, np.float32) if entry.reached is None else entry.reached.copy()

    def _found(self, entry: Seen, threshold: float) -> bool:
        if entry.reached is None or entry.reference_identifier not in self.identifiers:
            return False
        own = entry.reached[self.identifiers.index(entry.reference_identifier)]
        return bool(own >= threshold and own >= entry.reached.max())


@dataclass(frozen=True)
class References:
    """A list to search: `templates` (m, length), unit length, one an identifier.

    `stills` is the most photographs that one of them is fused from; `fused` the identifiers that have that many.
    `raised` (m,) is by how much each one's own threshold is above the list's.
    """

    templates: Floats
    identifiers: tuple[str, ...]
    stills: int = 1
    fused: frozenset[str] = frozenset()
    raised: Floats | None = None


def lists(
    enrolled: Dataset, templates: Templates, raised: Callable[[Floats], Floats] | None = None
) -> list[References]:
    """The list with the first photograph of each identifier alone and, where any has several, with all of them fused.

    Photographs in which no face was found are left out. `raised` gives (m,) of templates (m, length), see References.
    """
    usable = np.nonzero(templates.found)[0]
    places = [usable[enrolled.identities[usable] == i] for i in np.unique(enrolled.identities[usable])]
    names = tuple(enrolled.stills[rows[0]].identity for rows in places)
    most = max((len(rows) for rows in places), default=0)
    fused = frozenset(name for name, rows in zip(names, places, strict=True) if len(rows) == most)
    made = {
        count: population.fused(templates.plain, tuple(rows[:count] for rows in places))
        for count in dict.fromkeys((1, most))
        if most
    }
    return [
        References(rows, names, count, fused, None if raised is None else raised(rows)) for count, rows in made.items()
    ]


@dataclass
class _Tracked:
    """A track so far: votes for the pass it belongs to, and what its probes reached together."""

    votes: dict[str, int] = field(default_factory=dict)
    usable: int = 0
    reached: list[Floats] = field(default_factory=list)

    def add(self, probe: Probe, listed: Sequence[References]) -> None:
        """Take in one probe."""
        reached = [_reached(probe, one) for one in listed]
        self.usable = max(self.usable, len(probe.agreeing))
        self.reached = [np.maximum(a, b) for a, b in zip(self.reached or reached, reached, strict=True)]


def run(
    frames: Iterable[Image],
    truth: Truth,
    detector: Pack,
    embedder: Pack,
    listed: Sequence[References],
    smallest_face: float = 40.0,
) -> list[Passes]:
    """Run detection, tracking and extraction over the frames once, and search every probe in every list."""
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
            tracks.setdefault(probe.track, _Tracked()).add(probe, listed)
        extractor.forget(ended)
    return [_collected(truth, tracks, number, one.identifiers) for number, one in enumerate(listed)]


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


def _reached(probe: Probe, listed: References) -> Floats:
    """(m,) the greatest threshold of the list at which the probe would raise an alert for each reference."""
    agreed = supported(probe.agreeing @ listed.templates.T, RULES)
    plain = np.minimum(listed.templates @ probe.template, agreed)
    return np.asarray(np.maximum(plain if listed.raised is None else plain - listed.raised, -1.0), np.float32)


def _collected(truth: Truth, tracks: dict[int, _Tracked], number: int, identifiers: tuple[str, ...]) -> Passes:
    seen = {p.pass_id: Seen(p.pass_id, p.identity, p.reference_identifier) for p in truth.passes}
    strays = []
    for track in (t for t in tracks.values() if t.reached):
        reached = track.reached[number]
        if not track.votes:
            strays.append(reached)
            continue
        entry = seen[max(track.votes, key=lambda k: track.votes[k])]
        entry.usable = max(entry.usable, track.usable)
        entry.reached = reached if entry.reached is None else np.maximum(entry.reached, reached)
    return Passes(tuple(seen.values()), tuple(strays), identifiers)
