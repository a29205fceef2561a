"""Join the faces of successive frames of one camera into tracks: tentative, confirmed, ended.

Two stages, as in ByteTrack (Zhang et al. 2022): first overlap between predicted and detected boxes; then, for tracks
unseen for some frames, distance in face widths, so that somebody who walked behind another for half a second keeps
the track. A track lives in one camera's picture only and ends there; nothing links one camera's tracks to another's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from appliance.limits import LIMITS
from appliance.recognition.motion import BoxMotion
from appliance.records import Face, Floats


class TrackState(Enum):
    """Tentative until seen often enough, confirmed until lost too long, ended for good."""

    TENTATIVE = "tentative"
    CONFIRMED = "confirmed"
    ENDED = "ended"


@dataclass(frozen=True)
class TrackRules:
    """When a track is believed and when it ends. Times in seconds, distances in face widths."""

    confirm_after: int = 3  # frames
    lost_seconds: float = 1.2
    tentative_lost_seconds: float = 0.4
    least_overlap: float = 0.2
    reach: float = 0.9  # how far from its predicted place a face may reappear
    size_ratio: float = 1.6


@dataclass(eq=False)
class Track:
    """One face through the frames of one camera. `face` is the newest, None in frames where it was not seen."""

    number: int
    motion: BoxMotion = field(repr=False)
    started: float
    last_seen: float
    seen: int = 1
    state: TrackState = TrackState.TENTATIVE
    face: Face | None = None


class Tracker:
    """Tracks of one camera. Feed every frame's faces in order; clocks are steady seconds."""

    def __init__(self, rules: TrackRules | None = None) -> None:
        from scipy.optimize import linear_sum_assignment  # a third of a second to load, and only vision tracks

        self._assign = linear_sum_assignment
        self._rules = rules or TrackRules()
        self._tracks: list[Track] = []
        self._next = 1

    @property
    def count(self) -> int:
        """Tracks started so far."""
        return self._next - 1

    def update(self, faces: Sequence[Face], clock: float) -> tuple[list[Track], list[Track]]:
        """Take in one frame; returns the tracks still alive (those seen have a `face`) and those that ended."""
        for track in self._tracks:
            track.face = None
        free = self._match_by_overlap(list(range(len(faces))), faces, clock)
        free = self._match_by_distance(free, faces, clock)
        for index in free:
            self._start(faces[index], clock)
        ended = [t for t in self._tracks if self._is_lost(t, clock)]
        for track in ended:
            track.state = TrackState.ENDED
        self._tracks = [t for t in self._tracks if t.state is not TrackState.ENDED]
        return list(self._tracks), ended

    def finish(self) -> list[Track]:
        """End every track, as when the camera stops."""
        ended, self._tracks = self._tracks, []
        for track in ended:
            track.state, track.face = TrackState.ENDED, None
        return ended

    def _match_by_overlap(self, free: list[int], faces: Sequence[Face], clock: float) -> list[int]:
        if not free or not self._tracks:
            return free
        boxes = np.stack([f.box for f in faces])
        overlaps = overlap(np.stack([t.motion.predict(clock) for t in self._tracks]), boxes)
        # Among equals the older track keeps its face: it is the better known one.
        rows, columns = self._assign(-overlaps)
        for row, column in zip(rows, columns, strict=True):
            if overlaps[row, column] >= self._rules.least_overlap:
                self._see(self._tracks[row], faces[column], clock)
                free.remove(int(column))
        return free

    def _match_by_distance(self, free: list[int], faces: Sequence[Face], clock: float) -> list[int]:
        waiting = [t for t in self._tracks if t.face is None]
        if not free or not waiting:
            return free
        cost = np.array([[self._distance(t, faces[i], clock) for i in free] for t in waiting])
        rows, columns = self._assign(np.minimum(cost, 1e6))
        taken = set()
        for row, column in zip(rows, columns, strict=True):
            if cost[row, column] <= self._rules.reach:
                self._see(waiting[row], faces[free[column]], clock)
                taken.add(free[column])
        return [i for i in free if i not in taken]

    def _distance(self, track: Track, face: Face, clock: float) -> float:
        """Distance of the centres in widths of the wider box; infinite where the sizes do not go together."""
        expected = track.motion.predict(clock)
        ratio = float(face.box[3] / max(expected[3], 1.0))
        if not 1 / self._rules.size_ratio <= ratio <= self._rules.size_ratio:
            return float("inf")
        shift = (face.box[:2] + face.box[2:] / 2) - (expected[:2] + expected[2:] / 2)
        return float(np.hypot(shift[0], shift[1]) / max(expected[2], face.box[2], 1.0))

    def _see(self, track: Track, face: Face, clock: float) -> None:
        track.motion.update(face.box, clock)
        track.face, track.last_seen = face, clock
        track.seen += 1
        if track.seen >= self._rules.confirm_after:
            track.state = TrackState.CONFIRMED

    def _start(self, face: Face, clock: float) -> None:
        if len(self._tracks) >= LIMITS.tracks:
            return
        track = Track(self._next, BoxMotion(face.box, clock), clock, clock, face=face)
        if self._rules.confirm_after <= 1:
            track.state = TrackState.CONFIRMED
        self._tracks.append(track)
        self._next += 1

    def _is_lost(self, track: Track, clock: float) -> bool:
        confirmed = track.state is TrackState.CONFIRMED
        limit = self._rules.lost_seconds if confirmed else self._rules.tentative_lost_seconds
        return clock - track.last_seen > limit


def overlap(first: Floats, second: Floats) -> Floats:
    """Intersection over union of boxes (n, 4) and (m, 4), both x, y, width, height: (n, m)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, :2] + first[:, None, 2:], second[None, :, :2] + second[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = np.prod(first[:, 2:], axis=1)[:, None] + np.prod(second[:, 2:], axis=1)[None] - shared
    return np.asarray(shared / np.maximum(areas, 1e-6), np.float32)
