"""Cameras: one thread each, one interface for all of them.

Live cameras: the newest frame wins and drops are counted, so a slow unit lags by one frame and never more; a camera
that goes away is tried again with backoff. Files: every frame, as fast as they are taken; with `pace = "real"` they
behave like a camera.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from appliance.camera_kinds import kind_of
from appliance.capture.mailbox import Bell, Mailbox
from appliance.capture.sources import Shots, open_source
from appliance.errors import CaptureError
from appliance.records import CameraHealth, Frame

Pace = Literal["fast", "real"]
State = Literal["starting", "running", "reconnecting", "ended", "failed"]
_BACKOFF = (0.5, 1.0, 2.0, 5.0, 10.0)  # seconds between attempts


class Camera:
    """One camera. Raises CaptureError on creation where a file or folder cannot be opened at all."""

    def __init__(
        self, name: str, source: str, bell: Bell, *, pace: Pace = "fast", fps: float = 10.0,
        report: Callable[[str], None] = print,
    ) -> None:  # fmt: skip
        self.name = name
        self._source, self._fps, self._report = source, fps, report
        self.live = kind_of(source) in ("rtsp", "v4l2", "gstreamer")
        self._paced = pace == "real" and not self.live
        self._mailbox = Mailbox(bell)
        self._stop = threading.Event()
        self._state: State = "starting"
        self._message = ""
        self._frames = 0
        self._started = time.monotonic()
        self._asked: float | None = None  # since when the thread has been inside the source, waiting for it
        # A file that is not there is the operator's mistake and is told at once; a camera may come back.
        self._first: Shots | None = None if self.live else open_source(source, fps, self._told)
        self._thread = threading.Thread(target=self._run, name=f"camera-{name}", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._started = time.monotonic()
        self._thread.start()

    def take(self) -> Frame | None:
        """The newest untaken frame, or None. Never waits."""
        return self._mailbox.take()

    @property
    def finished(self) -> bool:
        """True once no frame will come any more."""
        return self._state in ("ended", "failed") and not self._thread.is_alive()

    @property
    def failed(self) -> bool:
        """True where the source broke for good."""
        return self._state == "failed"

    def stuck_for(self, now: float) -> float:
        """Seconds (steady) the thread has been inside its source without an answer; infinite where it broke down.

        A pause it makes itself, between two attempts or for a clip's own speed, is none.
        """
        if self._thread.ident is None or self.finished:
            return 0.0
        if not self._thread.is_alive():
            return 0.0 if self._stop.is_set() else float("inf")
        asked = self._asked
        return 0.0 if asked is None else now - asked

    @property
    def reported(self) -> bool:
        """Whether it gave a picture, or said why it gives none."""
        return self._state != "starting"

    def stop(self) -> None:
        """Stop reading; frames not yet taken are dropped."""
        self._stop.set()
        self._mailbox.close()
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)

    def health(self) -> CameraHealth:
        """Counts since the start."""
        elapsed = max(time.monotonic() - self._started, 1e-3)
        return CameraHealth(
            name=self.name, state=self._state, frames=self._frames, dropped=self._mailbox.dropped,
            fps=round(self._frames / elapsed, 2), message=self._message[:300],
        )  # fmt: skip

    def _told(self, message: str) -> None:
        self._message = message
        self._report(f"camera {self.name}: {message}")

    def _run(self) -> None:
        attempt = 0
        while not self._stop.is_set():
            before = self._frames
            try:
                with self._asking():
                    shots, self._first = self._first or open_source(self._source, self._fps, self._told), None
                self._read(shots)
                self._state = "ended"
                break
            except CaptureError as error:
                if not self.live:
                    self._state = "failed"
                    self._told(str(error))
                    break
                attempt = 0 if self._frames > before else attempt
                self._wait_to_retry(attempt, error)
                attempt += 1
        self._drain()

    def _drain(self) -> None:
        """Let the last frame of a file be taken before the camera counts as finished."""
        while not self._stop.is_set() and not self.live and not self._mailbox.empty:
            time.sleep(0.005)
        self._mailbox.wake()

    def _wait_to_retry(self, attempt: int, error: CaptureError) -> None:
        pause = _BACKOFF[min(attempt, len(_BACKOFF) - 1)]
        self._state = "reconnecting"
        self._told(f"{error}; trying again in {pause:g} s")
        self._stop.wait(pause)

    def _read(self, shots: Shots) -> None:
        began = time.monotonic()
        for image, clock in self._answers(shots):
            if self._stop.is_set():
                return
            if self._paced:
                self._stop.wait(max(0.0, began + clock - time.monotonic()))
            self._state = "running"
            frame = Frame(self.name, self._frames, time.time(), clock, image)
            self._frames += 1
            if not self._mailbox.put(frame, wait=not (self.live or self._paced)):
                return

    def _answers(self, shots: Shots) -> Shots:
        while True:
            with self._asking():
                shot = next(shots, None)
            if shot is None:
                return
            yield shot

    @contextmanager
    def _asking(self) -> Iterator[None]:
        self._asked = time.monotonic()
        try:
            yield
        finally:
            self._asked = None
