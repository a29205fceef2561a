"""Decide, for a track, whether a human should look: threshold, agreement over frames, one alert for each reference.

A pure function of a probe, its candidates and what was already said. The machine never decides more than this.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from appliance.records import Candidate, Floats, Probe


@dataclass(frozen=True)
class DecideRules:
    """What makes an alert, beside the threshold, which comes with the watchlist."""

    least_templates: int = 2  # single faces of the track that were compared
    agreement: float = 0.6  # share of them that must support the candidate by themselves
    support: float = 0.75  # share of the threshold a single face must reach to support
    repeat_seconds: float = 30.0  # the same reference on the same camera is not alerted again within


@dataclass
class Decider:
    """Decisions of one deployment. `now` is a steady clock; nothing else is read from outside."""

    rules: DecideRules = field(default_factory=DecideRules)
    _alerted: set[tuple[str, int, str]] = field(default_factory=set)
    _last: dict[tuple[str, str], float] = field(default_factory=dict)

    def decide(self, probe: Probe, candidates: list[Candidate], templates: Floats, now: float) -> Candidate | None:
        """The candidate to alert for, or None. `templates` are the watchlist's, (entries, length).

        An improved score never repeats an alert: one for a track and reference, and one for a camera and reference
        within `repeat_seconds`, so that a track that broke in two does not alert twice.
        """
        for candidate in candidates:
            if candidate.score < candidate.threshold or not self._agrees(probe, candidate, templates):
                continue
            return candidate if self._is_new(probe, candidate, now) else None
        return None

    def forget(self, camera: str, track: int) -> None:
        """Drop what is remembered of an ended track."""
        self._alerted = {a for a in self._alerted if a[:2] != (camera, track)}

    def _agrees(self, probe: Probe, candidate: Candidate, templates: Floats) -> bool:
        singles = probe.agreeing @ templates[candidate.reference]
        return float(supported(singles[:, None], self.rules)[0]) >= candidate.threshold

    def _is_new(self, probe: Probe, candidate: Candidate, now: float) -> bool:
        track_key = (probe.camera, probe.track, candidate.reference_identifier)
        camera_key = (probe.camera, candidate.reference_identifier)
        recent = now - self._last.get(camera_key, float("-inf")) < self.rules.repeat_seconds
        fresh = track_key not in self._alerted and not recent
        self._alerted.add(track_key)
        if fresh:
            self._last[camera_key] = now
        return fresh


def supported(singles: Floats, rules: DecideRules) -> Floats:
    """(m,) the greatest threshold at which the single faces agree, from their scores (n, m) with m references.

    Below every threshold where too few were compared. An evaluation asks this of every threshold at once.
    """
    if len(singles) < max(rules.least_templates, 1):
        return np.full(singles.shape[1], -np.inf, np.float32)
    # Rounded first: 0.6 of 5 faces are 3, whatever floating point makes of it.
    needed = max(math.ceil(round(rules.agreement * len(singles), 9)), 1)
    least = np.partition(singles, len(singles) - needed, axis=0)[len(singles) - needed]
    return np.asarray(least / np.float32(rules.support), np.float32)
