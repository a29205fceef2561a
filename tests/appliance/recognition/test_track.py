"""Tracks: a face keeps its track while it can be seen, and for a moment while it cannot."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from appliance.recognition.motion import BoxMotion
from appliance.recognition.track import Tracker, TrackRules, TrackState, overlap
from appliance.records import Face

FPS = 15.0


def face(x: float, y: float, size: float = 60.0) -> Face:
    box = np.array([x, y, size, size * 1.2], np.float32)
    landmarks = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]], np.float32) * size + box[:2]
    return Face(box, landmarks, 0.9)


def test_a_track_is_tentative_until_it_was_seen_often_enough() -> None:
    tracker = Tracker(TrackRules(confirm_after=3))
    states = []
    for i in range(4):
        alive, _ = tracker.update([face(100 + 3 * i, 100)], i / FPS)
        states.append(alive[0].state)
    assert states == [TrackState.TENTATIVE, TrackState.TENTATIVE, TrackState.CONFIRMED, TrackState.CONFIRMED]


def test_walking_behind_another_for_half_a_second_keeps_both_tracks() -> None:
    """Two people cross; the rear one is hidden for 8 frames of 15 a second."""
    tracker = Tracker()
    first_ids: dict[str, int] = {}
    for i in range(60):
        clock = i / FPS
        front, rear = face(200 + 6 * i, 200, 70), face(560 - 6 * i, 195, 60)
        hidden = 26 <= i < 34
        alive, ended = tracker.update([front] if hidden else [front, rear], clock)
        assert not ended
        for track in alive:
            if track.face is front and "front" not in first_ids:
                first_ids["front"] = track.number
            if track.face is rear and "rear" not in first_ids:
                first_ids["rear"] = track.number
    last = {id(t.face): t.number for t in alive}
    assert last[id(front)] == first_ids["front"]
    assert last[id(rear)] == first_ids["rear"]
    assert tracker.count == 2


def test_a_track_ends_when_its_face_stays_away() -> None:
    tracker = Tracker(TrackRules(lost_seconds=1.0))
    for i in range(5):
        tracker.update([face(100, 100)], i / FPS)
    _, ended_early = tracker.update([], 4 / FPS + 0.9)
    _, ended = tracker.update([], 4 / FPS + 1.1)
    assert ended_early == []
    assert [t.state for t in ended] == [TrackState.ENDED]
    alive, _ = tracker.update([face(100, 100)], 3.0)
    assert alive[0].number == 2, "who returns later is a new track: nothing links the two"


def test_a_face_elsewhere_does_not_take_over_a_track() -> None:
    tracker = Tracker()
    for i in range(5):
        tracker.update([face(100, 100)], i / FPS)
    alive, _ = tracker.update([face(600, 100)], 5 / FPS)
    assert sorted(t.number for t in alive if t.face is not None) == [2]


def test_finish_ends_everything() -> None:
    tracker = Tracker()
    tracker.update([face(0, 0), face(300, 0)], 0.0)
    assert len(tracker.finish()) == 2
    assert tracker.finish() == []


def test_the_filter_follows_a_steady_walk() -> None:
    motion = BoxMotion(face(0, 0).box, 0.0)
    for i in range(1, 30):
        motion.update(face(5 * i, 2 * i).box, i / FPS)
    expected = motion.predict(35 / FPS)
    assert abs(expected[0] - 5 * 35) < 6
    assert abs(expected[1] - 2 * 35) < 4


@given(st.lists(st.tuples(*[st.floats(-50, 50), st.floats(-50, 50), st.floats(1, 80), st.floats(1, 80)]), min_size=1))
def test_overlap_is_symmetric_and_one_with_itself(boxes: list[tuple[float, float, float, float]]) -> None:
    array = np.array(boxes, np.float32)
    shares = overlap(array, array)
    assert np.allclose(shares, shares.T, atol=1e-4)
    assert np.allclose(np.diag(shares), 1.0, atol=1e-3)
    assert shares.min() >= 0
