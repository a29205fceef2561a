"""Cover every face in a picture, and whatever might be one, so that nothing of it is left.

A Gaussian blur can be undone and a mosaic can be matched (Hill et al., "On the (in)effectiveness of mosaicing and
blurring", 2016). Here the pixels are replaced: a covered patch has one colour whatever was under it, so two pictures
that differ only there come out the same to the byte. What is left of a face is where it is and how large.

Covered is what the detector gives a score far below the one that is believed, with a wide margin, and for a while
also where a face that was seen should be now: a detector's misses come and go from frame to frame. Last, the whole
picture is made so small that a face too small to be found has too few pixels to be known by. What remains: a face that
the detector does not suspect at all, as one turned far away or behind a hand, is seen, small, on the unit's own screen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import cv2
import numpy as np

from appliance.recognition.track import Tracker, TrackRules
from appliance.records import Face, Floats, Image

SIDE = 480  # pixels, the longer side of what is shown, and at most SHARE of the frame's own
# The built-in detector finds faces of 16 pixels in a picture of 1280; at 3/8 of that they have 6. Measured on the
# demo's portraits: at 6 pixels the right one of 22 is the nearest in 18 % and no template comes near a threshold.
SHARE = 3 / 8
SUSPECT = 1 / 4  # of the score that faces are believed at: covered in the frame where the detector suspects one
_FOLLOW = 1 / 2  # of that score: covered for a while after it too
COLOUR = (52, 44, 40)  # BGR, a dark slate, whatever was there
_MARGIN = 0.35  # of the box's longer side, added on each side: hair, chin, neck, and the box's own error
_DRIFT = 0.5  # of the longer side a second: how much wider a patch grows while its face is not seen
_HOLD = 0.8  # seconds a patch stays after its face was last seen


class Veil:
    """The faces of one camera, remembered as boxes for a moment. `score` is what faces are believed at, 0 to 1. Not
    thread-safe."""

    def __init__(self, score: float) -> None:
        self._follow = score * _FOLLOW
        self._tracker = Tracker(TrackRules(confirm_after=1, lost_seconds=_HOLD, reach=1.5))

    def cover(self, image: Image, faces: Sequence[Face], clock: float) -> Image:
        """A small copy of one frame (height, width, 3) uint8 BGR without faces; `clock` is its steady second.

        `faces` are all the detector suspects. The frame itself is left as it is.
        """
        tracks, _ = self._tracker.update([f for f in faces if f.score >= self._follow], clock)
        boxes = [_widened(t.motion.predict(clock), clock - t.last_seen) for t in tracks]
        boxes += [_widened(f.box, 0.0) for f in faces]  # the filter's box may lag behind the face's own
        return flattened(image, np.array(boxes, np.float32).reshape(-1, 4))


def flattened(image: Image, boxes: Floats) -> Image:
    """The picture made small, with one colour in every one of `boxes` (n, 4): x, y, width, height."""
    height, width = image.shape[:2]
    scale = min(SHARE, SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cast(Image, cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    for x, y, wide, high in boxes * np.float32(scale):
        # A pixel of the small picture holds light of its neighbours: one more on each side.
        left, top = max(int(x) - 1, 0), max(int(y) - 1, 0)
        small[top : max(int(np.ceil(y + high)) + 1, 0), left : max(int(np.ceil(x + wide)) + 1, 0)] = COLOUR
    return small


def _widened(box: Floats, unseen: float) -> Floats:
    x, y, width, height = (float(v) for v in box)
    more = max(width, height) * (_MARGIN + _DRIFT * unseen)
    return np.array([x - more, y - more, width + 2 * more, height + 2 * more], np.float32)
