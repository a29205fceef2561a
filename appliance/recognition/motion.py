"""Constant-velocity Kalman filter of a box: centre, width and height, each with its own speed.

The four numbers are filtered apart, so each needs a 2 x 2 covariance only and a step is a dozen products.
Noise is in shares of the box's height, so that near and far faces are treated alike. Method: Kalman (1960), as
used for boxes by Wojke et al. (2017).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from appliance.records import Floats

Doubles = npt.NDArray[np.float64]
_MEASURE = 0.05  # share of the height: the standard deviation of a detected box
_ACCELERATE = 1.5  # heights per second squared: how suddenly people change pace
_FIRST_SPEED = 1.0  # heights per second: what a new face may already be moving at


class BoxMotion:
    """State of one box. Times are steady seconds and never run backwards."""

    def __init__(self, box: Floats, clock: float) -> None:
        self._value: Doubles = _centred(box)
        self._speed: Doubles = np.zeros(4)
        scale = self._value[3]
        self._variance: Doubles = np.full(4, (_MEASURE * scale) ** 2)  # of the value
        self._crossing: Doubles = np.zeros(4)  # covariance of value and speed
        self._speed_variance: Doubles = np.full(4, (_FIRST_SPEED * scale) ** 2)
        self._clock = clock

    def predict(self, clock: float) -> Floats:
        """The box (x, y, width, height) expected at `clock`; the filter itself stays where it is."""
        step = max(clock - self._clock, 0.0)
        return _cornered(self._value + step * self._speed)

    def update(self, box: Floats, clock: float) -> None:
        """Move to `clock` and take in a detected box."""
        self._advance(max(clock - self._clock, 0.0))
        self._clock = max(clock, self._clock)
        noise = (_MEASURE * self._value[3]) ** 2
        gain = self._variance / (self._variance + noise)
        speed_gain = self._crossing / (self._variance + noise)
        surprise = _centred(box) - self._value
        self._value = self._value + gain * surprise
        self._speed = self._speed + speed_gain * surprise
        self._speed_variance = self._speed_variance - speed_gain * self._crossing
        self._crossing = (1.0 - gain) * self._crossing
        self._variance = (1.0 - gain) * self._variance

    def _advance(self, step: float) -> None:
        push = (_ACCELERATE * max(self._value[3], 1.0)) ** 2
        self._value = self._value + step * self._speed
        self._value[2:] = np.maximum(self._value[2:], 1.0)
        self._variance = self._variance + 2 * step * self._crossing + step**2 * self._speed_variance
        self._variance = self._variance + push * step**4 / 4
        self._crossing = self._crossing + step * self._speed_variance + push * step**3 / 2
        self._speed_variance = self._speed_variance + push * step**2


def _centred(box: Floats) -> Doubles:
    x, y, width, height = (float(v) for v in box)
    return np.array([x + width / 2, y + height / 2, max(width, 1.0), max(height, 1.0)])


def _cornered(value: Doubles) -> Floats:
    width, height = max(value[2], 1.0), max(value[3], 1.0)
    return np.array([value[0] - width / 2, value[1] - height / 2, width, height], np.float32)
