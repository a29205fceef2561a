"""From tracks to probes: only a track's best few faces are aligned and embedded, and their mean is its template.

What is held of a track (chips, templates) is held here and nowhere else, in arrays of this module's own, and
zeroed when the track ends: a face without a match leaves nothing behind in memory either.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import cv2
import numpy as np

from appliance.limits import LIMITS
from appliance.recognition.align import chip as aligned
from appliance.recognition.embed import Embedder, unit
from appliance.recognition.quality import assess
from appliance.recognition.track import Track, TrackState
from appliance.records import Face, Floats, Frame, Image, Probe, Quality, Sighting


@dataclass(frozen=True)
class ExtractRules:
    """Which faces of a track are worth an embedding."""

    keep: int = 5  # templates a track's mean is made of
    least_interocular: float = 14.0  # pixels; smaller faces cannot be compared honestly
    least_quality: float = 0.15
    greatest_yaw: float = 1.0
    gain: float = 1.12  # a full set changes only for a face this many times better than its worst
    spacing: float = 0.12  # seconds between embedded faces of a track: neighbours tell the same


@dataclass
class _Memory:
    """The best faces of one track so far."""

    sightings: list[Sighting] = field(default_factory=list)
    templates: list[Floats] = field(default_factory=list)
    embedded_at: float = float("-inf")

    def erase(self) -> None:
        for sighting in self.sightings:
            _erase(sighting)
        for template in self.templates:
            template.fill(0)
        self.sightings.clear()
        self.templates.clear()


class Extractor:
    """Probes from the tracks of one camera. Not thread-safe."""

    def __init__(self, camera: str, embedder: Embedder, rules: ExtractRules | None = None) -> None:
        self._camera, self._embedder, self._rules = camera, embedder, rules or ExtractRules()
        self._memories: dict[int, _Memory] = {}
        self.compared = 0  # tracks of which at least one face was embedded

    def extract(self, frame: Frame, tracks: list[Track]) -> list[Probe]:
        """New or improved probes of one frame: at most one for each track that was seen in it."""
        probes = []
        for track in tracks:
            if track.face is None or track.state is not TrackState.CONFIRMED:
                continue
            probe = self._one(frame, track, track.face)
            if probe is not None:
                probes.append(probe)
        return probes

    def forget(self, tracks: list[Track]) -> None:
        """Zero and drop everything held of ended tracks."""
        for track in tracks:
            memory = self._memories.pop(track.number, None)
            if memory is not None:
                memory.erase()

    def _one(self, frame: Frame, track: Track, face: Face) -> Probe | None:
        memory = self._memories.setdefault(track.number, _Memory())
        quality = assess(frame.image, face)
        if not self._is_worth_it(memory, quality, frame.clock):
            return None
        self.compared += not memory.sightings
        sighting = self._cut(frame, track, face, quality)
        template = self._embedder.embed(sighting.chip[None])[0]
        memory.embedded_at = frame.clock
        self._keep(memory, sighting, template)
        return self._probe(track, memory, frame)

    def _is_worth_it(self, memory: _Memory, quality: Quality, clock: float) -> bool:
        rules = self._rules
        if quality.interocular < rules.least_interocular or abs(quality.yaw) > rules.greatest_yaw:
            return False
        if quality.value < rules.least_quality or clock - memory.embedded_at < rules.spacing:
            return False
        if len(memory.sightings) < rules.keep:
            return True
        return quality.value > rules.gain * min(s.quality.value for s in memory.sightings)

    def _keep(self, memory: _Memory, sighting: Sighting, template: Floats) -> None:
        if len(memory.sightings) >= self._rules.keep:
            worst = min(range(len(memory.sightings)), key=lambda i: memory.sightings[i].quality.value)
            _erase(memory.sightings.pop(worst))
            memory.templates.pop(worst).fill(0)
        memory.sightings.append(sighting)
        memory.templates.append(template)

    def _cut(self, frame: Frame, track: Track, face: Face, quality: Quality) -> Sighting:
        embedder = self._embedder
        chip = aligned(frame.image, face.landmarks, embedder.landmarks, embedder.width, embedder.height)
        return Sighting(
            track.number, frame.number, frame.time, frame.clock, chip, picture_of(frame.image, face), quality
        )

    def _probe(self, track: Track, memory: _Memory, frame: Frame) -> Probe:
        templates = np.stack(memory.templates)
        best = max(memory.sightings, key=lambda s: s.quality.value)
        weights = np.array([s.quality.value for s in memory.sightings], np.float32)
        return Probe(
            camera=self._camera, track=track.number, template=pooled(templates, weights), agreeing=templates, best=best,
            time=frame.time, frame=frame.number, seen=track.seen, duration=frame.clock - track.started,
        )  # fmt: skip


def pooled(templates: Floats, weights: Floats) -> Floats:
    """The weighted mean of templates (n, length), scaled to unit length: (length,)."""
    return cast(Floats, unit((weights[:, None] * templates).sum(axis=0, keepdims=True))[0])


def picture_of(image: Image, face: Face) -> Image:
    """The face as an officer will see it: the box with a margin, at most LIMITS.chip_side pixels a side. A copy."""
    x, y, width, height = (float(v) for v in face.box)
    half = max(width, height) * 0.65
    cx, cy = x + width / 2, y + height / 2
    x0, y0 = max(int(cx - half), 0), max(int(cy - half), 0)
    region = image[y0 : max(int(cy + half), y0 + 1), x0 : max(int(cx + half), x0 + 1)]
    longest = max(region.shape[:2])
    if longest <= LIMITS.chip_side:
        return cast(Image, region.copy())
    factor = LIMITS.chip_side / longest
    size = (max(1, int(region.shape[1] * factor)), max(1, int(region.shape[0] * factor)))
    return cast(Image, cv2.resize(region, size, interpolation=cv2.INTER_AREA))


def _erase(sighting: Sighting) -> None:
    sighting.chip.fill(0)
    sighting.picture.fill(0)
