"""A one-slot mailbox between a camera's thread and the vision loop: the newest frame wins, drops are counted."""

from __future__ import annotations

import threading

from appliance.records import Frame


class Bell:
    """Wakes the vision loop when any camera has something for it."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._rung = False

    def ring(self) -> None:
        """Something is there."""
        with self._condition:
            self._rung = True
            self._condition.notify()

    def wait(self, timeout: float) -> None:
        """Until rung, or until `timeout` seconds have passed."""
        with self._condition:
            self._condition.wait_for(lambda: self._rung, timeout)
            self._rung = False


class Mailbox:
    """Holds one frame. A live camera replaces it; a file waits until it is taken."""

    def __init__(self, bell: Bell) -> None:
        self._condition = threading.Condition()
        self._frame: Frame | None = None
        self._closed = False
        self._bell = bell
        self.dropped = 0

    def put(self, frame: Frame, wait: bool) -> bool:
        """Leave a frame: replacing an untaken one, or (`wait`) after it was taken. False once closed."""
        with self._condition:
            if wait:
                self._condition.wait_for(lambda: self._frame is None or self._closed)
            elif self._frame is not None:
                self.dropped += 1
            if self._closed:
                return False
            self._frame = frame
        self._bell.ring()
        return True

    def take(self) -> Frame | None:
        """The frame, if there is one; the slot is empty afterwards."""
        with self._condition:
            frame, self._frame = self._frame, None
            self._condition.notify()
            return frame

    @property
    def empty(self) -> bool:
        """True when there is nothing to take."""
        return self._frame is None

    def wake(self) -> None:
        """Let the vision loop look again, as when a camera has ended."""
        self._bell.ring()

    def close(self) -> None:
        """Refuse further frames, drop the one inside and wake whoever waits."""
        with self._condition:
            self._closed, self._frame = True, None
            self._condition.notify_all()
        self._bell.ring()
