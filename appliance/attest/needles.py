"""What to look for: the clip is run through the unit's own stages, and their very bytes become needles.

A needle is a run of consecutive bytes: of one row of pixels, of a JPEG's compressed part, of a template's numbers. It
has at least SHORTEST bytes. If each byte of unrelated data carried but one bit of surprise (rows of pixels carry three
and more), the chance that they match one of n needles somewhere in m bytes would be n m / 2**SHORTEST.
"""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from appliance.attest.kit import ENCODINGS, Canary, Encoding, Kind, Needle, Settings
from appliance.attest.search import Searcher
from appliance.capture import sources
from appliance.formats.watchlist import Watchlist
from appliance.recognition.align import chip as aligned
from appliance.recognition.decide import Decider, DecideRules
from appliance.recognition.detect import Detector
from appliance.recognition.embed import Embedder
from appliance.recognition.extract import Extractor, ExtractRules, picture_of
from appliance.recognition.identify import Identifier
from appliance.recognition.jpeg import jpeg
from appliance.recognition.packs import Pack
from appliance.recognition.runtime import tensor_of
from appliance.recognition.track import Tracker, TrackRules
from appliance.records import Face, Floats, Frame, Image, Probe

NEEDLE = 96  # bytes of a full needle: 32 pixels of colour, 24 numbers of single precision
SHORTEST = 72  # bytes; what is shorter is not taken
FACES = 4  # faces of a track that needles are cut from, if not said otherwise: the first two and the last two
_ROWS = (0.4, 0.5, 0.65)  # of a picture's height: eyes, nose, mouth
_JPEG_HEAD = 640  # bytes of a JPEG that are tables, alike in all


@dataclass
class _Track:
    """One canary while the clip is read: the pieces its needles are cut from."""

    alert: list[Needle] = field(default_factory=list)  # of the picture in its alert; empty where none was made
    faces: list[list[Needle]] = field(default_factory=list)


@dataclass(frozen=True)
class Target:
    """One thing to search: a needle of a canary, as it is or in an encoding."""

    canary: Canary
    kind: Kind
    encoding: Encoding
    blob: bytes


def tracks(clip: Path, detector: Detector, pack: Pack, embedder: Embedder, content: Watchlist,
           settings: Settings, moments: int = FACES) -> tuple[Canary, ...]:  # fmt: skip
    """The faces that walk past in the clip, with needles of so many moments of each. `pack` is the embedder's.

    Raises CaptureError where the clip cannot be read.
    """
    tracker = Tracker(TrackRules(**settings.track.model_dump()))
    extractor = Extractor("canary", embedder, ExtractRules(**settings.extract.model_dump()))
    identifier, decider = Identifier(content), Decider(DecideRules(**settings.decide.model_dump()))
    found: dict[int, _Track] = defaultdict(_Track)
    for number, (image, clock) in enumerate(sources.open_source(str(clip), 10.0)):
        frame = Frame("canary", number, 0.0, clock, image)
        alive, ended = tracker.update(detector.detect(image), clock)
        faces = {t.number: t.face for t in alive if t.face is not None}
        for probe in extractor.extract(frame, alive):
            track = found[probe.track]
            # A clock that stands far apart for each track: a repeated alert is still a match here.
            chosen = decider.decide(probe, identifier.identify(probe), content.templates, probe.track * 1e6)
            if chosen is not None:
                track.alert += _of_jpeg(probe.best.picture)
            track.faces.append(list(_of_face(image, faces[probe.track], probe, pack, embedder)))
        extractor.forget(ended)
    extractor.forget(tracker.finish())
    return tuple(_of_tracks(found, moments))


def references(names: Sequence[str], halves: npt.NDArray[np.float16], opened: Floats) -> tuple[Canary, ...]:
    """The watchlist's entries with their needles: `halves` as they are sealed, `opened` as the unit opens them.

    Both are (entries, length).
    """
    found = []
    for number, (name, half, single) in enumerate(zip(names, halves, opened, strict=True)):
        sealed = _windows("template float16", [half.astype("<f2").tobytes()[:NEEDLE]])
        needles = tuple(dict.fromkeys((*_of_template(single), *sealed)))
        found.append(Canary(name=f"{name} ({number})"[:64], role="reference", matched=False, needles=needles))
    return tuple(found)


def targets(known: Sequence[Canary]) -> list[Target]:
    """Every needle in every encoding that is searched, each bytes once; of equal bytes the first canary's."""
    every: dict[bytes, Target] = {}
    for canary in known:
        for needle in canary.needles:
            for encoding, blob in encoded(needle.blob):
                every.setdefault(blob, Target(canary, needle.kind, encoding, blob))
    return list(every.values())


def encoded(blob: bytes) -> Iterator[tuple[Encoding, bytes]]:
    """The encodings in which bytes are searched: as they are, base64 at its three alignments, hexadecimal."""
    raw, text, digits = ENCODINGS
    yield raw, blob
    for phase in range(3):
        whole = blob[phase : phase + (len(blob) - phase) // 3 * 3]
        yield text, base64.b64encode(whole)
    yield digits, blob.hex().encode()


def chance(count: int, size: int) -> float:
    """Upper bound of the chance that unrelated data match: `count` needles in `size` bytes, one bit a byte."""
    return min(1.0, count * float(size) * 2.0**-SHORTEST)


def _of_tracks(found: dict[int, _Track], moments: int) -> Iterator[Canary]:
    for number, track in sorted(found.items()):
        first = moments // 2
        chosen = [*track.faces[:first], *track.faces[first:][-(moments - first) :]]
        needles = tuple(dict.fromkeys(n for face in (*chosen, track.alert) for n in face))
        if needles:
            yield Canary(name=f"track {number}", role="track", matched=bool(track.alert), needles=needles)


def _of_face(image: Image, face: Face, probe: Probe, pack: Pack, embedder: Embedder) -> Iterator[Needle]:
    chip = aligned(image, face.landmarks, embedder.landmarks, embedder.width, embedder.height)
    picture = picture_of(image, face)
    x, y, width, height = (int(v) for v in face.box)
    box = image[max(y, 0) : y + height, max(x, 0) : x + width]
    for name, pixels in (("frame", box), ("chip", chip), ("picture", picture)):
        yield from _of_pixels(name, np.ascontiguousarray(pixels))
    yield from _windows("chip float32", _row_bytes(tensor_of(pack, chip[None])[0]))
    yield from _of_jpeg(picture)
    yield from _of_template(probe.agreeing[-1])
    yield from _of_template(probe.template)


def _of_pixels(name: str, pixels: Image) -> Iterator[Needle]:
    grey = cast(Image, cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY))
    for colour, made in (("bgr", pixels), ("rgb", pixels[..., ::-1]), ("grey", grey)):
        yield from _windows(cast(Kind, f"{name} {colour}"), _row_bytes(made))


def _of_jpeg(picture: Image) -> Iterator[Needle]:
    blob = jpeg(picture)
    yield from _windows("jpeg", [blob[at : at + NEEDLE] for at in range(_JPEG_HEAD, len(blob), 600)][:4])


def _of_template(template: Floats) -> Iterator[Needle]:
    widest = max(float(np.abs(template).max()), 1e-9)
    whole = np.rint(template * 127), np.rint(template / widest * 127)
    yield from _windows("template float32", [template.astype("<f4").tobytes()[:NEEDLE]])
    yield from _windows("template float16", [template.astype("<f2").tobytes()[:NEEDLE]])
    yield from _windows("template int8", [w.astype(np.int8).tobytes()[:NEEDLE] for w in whole])


def _row_bytes(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]] | Floats) -> list[bytes]:
    """The middle of some rows, as it lies in memory."""
    height, width = pixels.shape[:2]
    each = int(np.prod(pixels.shape[2:], dtype=int)) * pixels.itemsize
    count = min(NEEDLE // each, width)
    left = (width - count) // 2
    return [np.ascontiguousarray(pixels[int(height * r), left : left + count]).tobytes() for r in _ROWS]


def _windows(kind: Kind, blobs: Sequence[bytes]) -> Iterator[Needle]:
    """Those that cannot be met by chance: long enough, and varied enough to be looked up."""
    for blob in blobs:
        if len(blob) < SHORTEST or len(set(blob)) < 12:
            continue
        try:
            Searcher([text for _, text in encoded(blob)])
        except ValueError:
            continue
        yield Needle(kind=kind, data=base64.b64encode(blob).decode())
