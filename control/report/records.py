"""The deployment report as data: what report.json holds and what the page and the table are made from.

Counts, rates, times and digests. No identifier of a reference, an alert or a member, no note, no picture.
"""

from __future__ import annotations

from appliance.formats.published import Published
from appliance.rates import Share
from appliance.records import Models, Record
from control.report.agreement import Agreement
from control.report.cells import Cell


class Setting(Record):
    """What the order said. Times are UTC seconds; rates are a face's chance of a false alert."""

    deployment: str
    order: str  # SHA-256 of the signed order
    purpose: str
    place: str
    not_before: float
    not_after: float
    units: int
    references: int
    threshold: float
    models: Models
    adjudicators: int
    projected_fpir: float
    greatest_fpir: float
    alert_hours: float
    confirmed_days: float


class Flow(Record):
    """What became of the watchlist's alerts; volunteers and decoys are counted apart."""

    arrived: int
    same: int  # judged the same
    not_same: int
    withdrawn: int  # too old before they were decided
    undecided: int  # still open
    confirmed: int  # of those judged the same
    mistaken: int
    not_found: int
    awaited: int  # what followed is not recorded yet
    unrecorded: int  # what followed was not recorded before the alert was erased
    true: int  # judged the same, and not found to be a mistake
    false: int  # judged not the same, or a mistake
    engaged: int  # somebody was approached by officers


class Machine(Record):
    """How often the machine was right. Faces are tracks: one walk of one human past one camera."""

    faces: int
    compared: int  # faces of which at least one picture was good enough to be compared
    raised: int  # alerts by the units' own count, volunteers among them
    volunteers_arrived: int  # alerts of the blue list
    volunteers_false: int  # of these, false: a stranger was taken for a volunteer
    tpir: Share  # of volunteers' logged passes
    fpir: Share  # false alerts, of faces compared less volunteers' passes and confirmed alerts
    fpir_at_worst: Share  # if everything that was not decided were false
    right: Share  # alerts that were true, of those decided


class Decoys(Record):
    """Pairs known not to be of one human being, and every answer that was given and not taken back."""

    shown: int
    answered: int
    same: Share  # answers
    possibly: int
    led_on: Share  # decoys that enough members called the same


class Humans(Record):
    """How people judged."""

    answers: dict[str, int]  # by verdict, decoys left out
    rulings: int
    disputed: int  # alerts on which answers differed, or were uncertain
    taken_back: int
    agreement: Agreement
    decoys: Decoys


class Spread(Record):
    """Seconds: quantiles of so many readings (linear interpolation); None where there are none."""

    readings: int
    median: float | None
    p90: float | None
    p99: float | None


class Times(Record):
    """Seconds from the capture of the face compared. Alerts that seem to come from the future are left out."""

    to_alert: Spread
    to_shown: Spread
    to_decision: Spread
    judging: Spread  # from the moment a pair was shown to a member
    left_out: int


class Group(Record):
    """One attribute of mistaken alerts, as officers wrote it down. Never inferred from a face."""

    attribute: str
    cells: tuple[Cell, ...]


class Deletion(Record):
    """A unit's signed receipt. `digest` is its SHA-256; None where only its arrival is known."""

    digest: str
    arrived: float
    unit: str | None
    reason: str | None
    ended: float | None
    keys: int | None
    files: int | None
    entries: int | None


class Kept(Record):
    """What is still here, and what was erased."""

    alerts_erased: int
    alerts_kept: int
    erasures: int
    references_erased: float | None
    receipts: tuple[Deletion, ...]


class Report(Record):
    """All of it. `final`: the window is over, nothing is undecided or awaited."""

    format: int = 1
    made: float
    final: bool
    setting: Setting
    flow: Flow
    machine: Machine
    humans: Humans
    times: Times
    groups: tuple[Group, ...]
    kept: Kept
    published: tuple[Published, ...]
    remarks: tuple[str, ...]
