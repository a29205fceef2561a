"""The two kinds of array the demo draws with."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


def floats(values: ArrayLike) -> Floats:
    """Values as a float32 array: OpenCV's drawing and warping want no other."""
    return np.asarray(values, np.float32)
