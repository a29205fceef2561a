"""A face chip as a JPEG of bounded size."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np

from appliance.limits import LIMITS
from appliance.records import Image

_JPEG_QUALITIES = (90, 80, 70, 55, 40)


def jpeg(picture: Image, most: int = LIMITS.chip_bytes) -> bytes:
    """A JPEG of at most `most` bytes: quality first, then size is given up."""
    while True:
        for quality in _JPEG_QUALITIES:
            _, blob = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
            if len(blob) <= most:
                return bytes(blob)
        size = (max(1, picture.shape[1] * 3 // 4), max(1, picture.shape[0] * 3 // 4))
        picture = cast(Image, np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA)))
