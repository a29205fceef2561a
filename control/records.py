"""Every type that crosses a file of the control room, frozen. Times are UTC seconds.

An alert from a unit becomes a case here: the machine's question, people's answers, and what followed.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from appliance.formats.order import Order
from appliance.limits import LIMITS
from appliance.records import CourierState, Health, Record

NOTE = 500  # characters of a note that a human types
Role = Literal["viewer", "adjudicator", "supervisor", "auditor"]
Verdict = Literal["not-same", "possibly", "same"]
Outcome = Literal["confirmed", "mistaken", "not-found"]
State = Literal["waiting", "disputed", "engage", "dismissed", "withdrawn", "closed"]
"""waiting: for judgements. disputed: for a supervisor. engage: judged the same, officers may approach. dismissed:
judged not the same. withdrawn: too old before it was judged, or given up. closed: what followed is recorded."""


class Member(Record):
    """A member of staff, as the ledger and the log name them."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{1,38}$")
    role: Role


class Judgement(Record):
    """One human's answer to: are these two pictures of the same human being? `ruling` is a supervisor's last word."""

    by: str
    verdict: Verdict
    at: float
    seconds: float = Field(ge=0)  # from the moment the pair was first shown to this member
    note: str = Field(default="", max_length=NOTE)
    ruling: bool = False


class Engagement(Record):
    """What followed after officers approached. `recorded` are groups as an officer wrote them down, on mistakes."""

    by: str
    outcome: Outcome
    at: float
    followed: str = Field(default="", max_length=NOTE)
    recorded: dict[Literal["sex", "age", "ethnicity"], str] = Field(default_factory=dict)


class CaseFacts(Record):
    """What may be known of an alert at any time, without pictures. `reference_identifier` is empty once erased."""

    alert_id: str
    unit: str
    deployment: str
    camera: str
    category: str
    reference_identifier: str
    captured: float
    observed: float
    received: float
    shown: float | None  # when a human first saw the pair
    stale_after: float  # not acted on from then
    keep_until: float  # crypto-erased from then
    erased: float | None
    quality: float  # 0 to 1
    interocular: float  # pixels
    frames: int
    track_seconds: float
    notes: tuple[str, ...] = ()  # gaps, late arrival, a clock that runs ahead
    has_probe: bool
    state: State
    required: int = Field(ge=1, le=2)  # judgements by different members before anything may be done
    judgements: tuple[Judgement, ...] = ()
    decided: float | None = None
    engagement: Engagement | None = None


class Case(CaseFacts):
    """One alert and all that was decided about it; what people may be blind to at first stands here."""

    decoy: bool
    score: float
    threshold: float


class ReferencePicture(Record):
    """One reference as the control room may show it. `picture` is a JPEG in base64; None where it was deleted."""

    reference_identifier: str = Field(max_length=LIMITS.reference_identifier)
    category: str = Field(max_length=LIMITS.category)
    image_date: str = Field(max_length=10)  # ISO 8601, or empty where it is not known
    quality: float = Field(ge=0, le=100)
    warnings: tuple[str, ...] = Field(default=(), max_length=10)
    picture: str | None = None


class Event(Record):
    """Something that consoles must hear of. `subject` is an alert id, a unit or a member; never a face or a name."""

    sequence: int = Field(ge=1)
    at: float
    kind: Literal["alert", "case", "unit", "refused", "erased", "deployment"]
    subject: str
    detail: str = ""


class Deployment(Record):
    """An order that the control room took in. `digest` is the SHA-256 of the signed document."""

    order: Order
    digest: str
    added: float
    references: int  # pictures that are here for it now
    receipt: str | None = None  # SHA-256 of the unit's signed deletion receipt, once it came


class UnitView(Record):
    """A unit as the fleet page shows it, from its courier's state and its last signed health report."""

    unit: str
    seen: float
    courier: CourierState | None
    health: Health | None
    missing: int = 0  # alerts that its chain shows to be missing
    quarantined: int = 0  # messages of a unit that is not on the roster
