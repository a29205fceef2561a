"""Every type that crosses a file, in the order of the data path. All are frozen.

Arrays inside a record are views of memory its maker owns; a consumer that needs them longer copies them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from appliance.limits import LIMITS

Image = npt.NDArray[np.uint8]  # (height, width, 3), BGR as OpenCV decodes
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Frame:
    """One picture of one camera. `time` is UTC seconds, `clock` is the monotonic reading at capture."""

    camera: str
    number: int
    time: float
    clock: float
    image: Image


@dataclass(frozen=True)
class Face:
    """One detected face in frame pixels.

    `box` is (4,) x, y, width, height; `landmarks` is (5, 2): right eye, left eye, nose, right and left
    mouth corner (the subject's right is first); `score` is the detector's, 0 to 1.
    """

    box: Floats
    landmarks: Floats
    score: float


@dataclass(frozen=True)
class Quality:
    """What makes a face worth comparing. All but `interocular` (pixels) and `yaw` run from 0 to 1.

    `yaw` is a signed proxy from the landmarks: 0 is frontal, about 1 is a half profile. `value` joins them.
    """

    interocular: float
    sharpness: float
    yaw: float
    exposure: float
    value: float


@dataclass(frozen=True)
class Sighting:
    """A face of a track in one frame, cut to an aligned chip while the frame was still there."""

    track: int
    frame: int
    time: float
    clock: float
    chip: Image  # aligned to the embedder's landmarks, BGR
    picture: Image  # the face as an officer sees it, at most LIMITS.chip_side a side
    quality: Quality


@dataclass(frozen=True)
class Probe:
    """A track's template: quality-weighted mean of its best sightings' templates, unit length.

    `agreeing` holds the single templates, (n, length), so that a decision can ask for agreement.
    """

    camera: str
    track: int
    template: Floats
    agreeing: Floats
    best: Sighting
    time: float  # UTC seconds of the frame that made or improved it
    frame: int  # that frame's number
    seen: int  # frames the track has lasted
    duration: float  # seconds from its first frame


@dataclass(frozen=True)
class Candidate:
    """A reference that resembles a probe. `score` is the exact cosine of the two templates."""

    reference: int  # row in the watchlist
    reference_identifier: str
    category: str
    score: float
    threshold: float


class Record(BaseModel):
    """Base of everything that is serialised: frozen, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Models(Record):
    """SHA-256 digests of the two packs that made and will compare a template."""

    detector: str = Field(pattern=r"^[0-9a-f]{64}$")
    embedder: str = Field(pattern=r"^[0-9a-f]{64}$")


class Header(Record):
    """What anyone may read on a sealed container; the seal and the signature both cover it."""

    kind: Literal["alert", "health", "receipt", "watchlist", "dossier"]
    id: str = Field(max_length=64)
    unit: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,38}$")
    deployment: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    created: float  # UTC seconds
    expires: float  # UTC seconds; after this it is of no use to anyone
    sender: str = Field(max_length=128)  # key id of the signer
    recipient: str = Field(max_length=128)  # key id of the only key that opens it
    chain: str = Field(default="", max_length=64)  # alerts: as inside, so that the courier can tell the next sealer
    sequence: int = Field(default=0, ge=0)  # alerts: as inside


class Alert(Record):
    """A decision of the machine that asks for one of a human. Times are UTC seconds."""

    alert_id: str = Field(max_length=64)
    unit: str
    deployment: str
    camera: str = Field(max_length=64)
    captured: float  # when the chip was taken: the best of the track's faces
    observed: float  # when the frame was taken that completed the decision
    frame: int = Field(ge=0)  # that frame's number since the camera started
    decided: float
    reference_identifier: str = Field(max_length=LIMITS.reference_identifier)
    category: str = Field(max_length=LIMITS.category)
    score: float
    threshold: float
    quality: float
    interocular: float
    frames: int
    track_seconds: float
    models: Models
    watchlist: str = Field(pattern=r"^[0-9a-f]{64}$")  # digest of the sealed file that was in use
    chain: str = Field(max_length=64)  # one unbroken run of sequence numbers
    sequence: int = Field(ge=1)
    previous: str = Field(pattern=r"^[0-9a-f]{64}$")  # SHA-256 of the previous sealed alert, zeros for the first
    chip: str | None = Field(default=None, max_length=LIMITS.chip_bytes * 4 // 3 + 8)  # base64 JPEG


class StageTimes(Record):
    """Median milliseconds a frame spends in each stage since the last report."""

    capture: float = 0.0
    detect: float = 0.0
    track: float = 0.0
    extract: float = 0.0
    identify: float = 0.0
    seal: float = 0.0


class CameraHealth(Record):
    """One camera's counts since the unit started."""

    name: str
    state: Literal["starting", "running", "reconnecting", "ended", "failed"]
    frames: int
    dropped: int
    fps: float
    message: str = Field(default="", max_length=300)


class Health(Record):
    """Counts and times; identifies nobody."""

    unit: str
    deployment: str
    time: float
    uptime: float
    state: Literal["armed", "disarmed", "ended"]
    cameras: tuple[CameraHealth, ...]
    faces: int
    tracks: int
    probes: int
    alerts: int
    queued: int
    stages: StageTimes
    resident_bytes: int
    temperature: float | None = None
    watchlist_entries: int
    watchlist_recall: float
    compared: int | None = None  # tracks of which at least one face was compared; None from a unit that does not tell
    blue_passes: int = 0  # volunteers of the blue list that the field team saw pass
    blue_found: int = 0  # of these, how many were followed by an alert
    false_alerts: int = 0  # alerts that were adjudicated as false, as the field team was told
    beacon: Literal["lit", "dark", "none"] = "none"  # none: no beacon is configured
    sandbox: tuple[str, ...] = Field(default=(), max_length=20)  # what the vision process has given up, in words

    @property
    def searches(self) -> int:
        """Passes that an FPIR is a share of: tracks compared, or all tracks where only those are known."""
        return self.tracks if self.compared is None else self.compared


class CourierState(Record):
    """What a courier leaves on its retained `/state` topic. Not signed: a hint for the eye, never evidence."""

    format: Literal[1] = 1
    unit: str = Field(max_length=39)
    state: Literal["online", "offline"]
    time: float
    software: str = Field(max_length=40)
    vision: bool = False  # the vision process is connected to the courier
    queued: int = 0
    expired: int = 0  # envelopes that reached their end of use before the broker took them
    refused: int = 0  # times the broker refused an envelope
