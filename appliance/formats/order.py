"""The deployment order: the signed manifest without which a unit does not scan.

A DSSE document with several signers (envelope.py). The record says everything a signer takes responsibility for, and
refuses by itself what no signature can allow: an FPIR above 1 in 1,000, alerts kept longer than a day, a missing
impact assessment. What the unit then checks before it scans is numbered in arming.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, field_validator, model_validator
from securesystemslib.signer import Key

from appliance.errors import SealError
from appliance.limits import LIMITS
from appliance.records import Models, Record
from appliance.times import utc
from appliance.trust import envelope
from appliance.trust.keys import Roster

KIND = "order"
GREATEST_FPIR = 0.001  # 1 in 1,000 (Bridges; requirement 11): no order may allow more
_ROUNDING = 1e-9  # relative: a threshold found for a rate gives that rate back only to a few ends of a float
SIGNAGE = (
    "Signs stand where people can still choose another way, at every approach",
    "The vehicle is marked and in plain view",
    "Officers at the signs have leaflets and can answer questions",
    "The deployment was announced to the public beforehand",
    "Cameras see the place of this order and no private entrance or window",
)
Digest = r"^[0-9a-f]{64}$"
Name = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
Degrees = tuple[float, float]  # latitude, longitude, WGS 84


def exceeds(rate: float, limit: float) -> bool:
    """Whether a projected rate is above its limit. A rate equal to the limit is within it."""
    return rate > limit * (1 + _ROUNDING)


class OrderError(SealError):
    """An order, or the arming under it, is refused; the text says why and what to do."""


class Place(Record):
    """Where: a name people know, and a polygon of (latitude, longitude). It may not cross the 180th meridian."""

    name: str = Field(min_length=3, max_length=200)
    polygon: tuple[Degrees, ...] = Field(min_length=3, max_length=200)

    @field_validator("polygon")
    @classmethod
    def _on_earth(cls, polygon: tuple[Degrees, ...]) -> tuple[Degrees, ...]:
        for latitude, longitude in polygon:
            if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
                raise ValueError(f"({latitude}, {longitude}) is not a place: write latitude, longitude in degrees")
        if max(p[1] for p in polygon) - min(p[1] for p in polygon) > 180:
            raise ValueError("the polygon crosses the 180th meridian; split the place")
        return polygon


class UnitList(Record):
    """One unit's sealed watchlist: digest of the file, digest of its content (listing.py), size."""

    unit: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,38}$")
    watchlist: str = Field(pattern=Digest)
    content: str = Field(pattern=Digest)
    version: int = Field(ge=1)
    entries: int = Field(ge=1)


class Assessments(Record):
    """References of the documents that must exist before (requirement 25)."""

    impact_assessment: str = Field(min_length=3, max_length=300)  # DPIA
    policy_document: str = Field(min_length=3, max_length=300)  # appropriate policy document, DPA 2018 s. 42
    equality_assessment: str = Field(min_length=3, max_length=300)


class Retention(Record):
    """How long the control room keeps what it is sent (requirements 15 and 19)."""

    alert_hours: float = Field(default=24, gt=0, le=24)
    confirmed_days: float = Field(default=30, gt=0, le=30)


class Order(Record):
    """All of it. Times are UTC seconds."""

    format: Literal[1] = 1
    deployment: str = Field(pattern=Name)
    purpose: str = Field(min_length=20, max_length=2000)
    authorised_by: str = Field(min_length=3, max_length=200)
    place: Place
    not_before: float
    not_after: float
    drafted: float
    lists: tuple[UnitList, ...] = Field(min_length=1, max_length=64)
    models: Models
    preflight: str = Field(pattern=Digest)
    performance: str = Field(pattern=Digest)  # the report by group for these models
    threshold: float = Field(ge=-1, le=1)
    greatest_fpir: float = Field(gt=0, le=GREATEST_FPIR)
    projected_fpir: float = Field(ge=0, le=1)
    footfall: int = Field(ge=1, le=100_000_000)
    assessments: Assessments
    retention: Retention = Retention()
    adjudicators: int = Field(default=1, ge=1, le=2)
    signage: tuple[str, ...] = Field(default=SIGNAGE, min_length=1, max_length=40)
    entries: int = Field(default=10_000, ge=1, le=LIMITS.watchlist_entries)
    hours_before: float = Field(default=24, gt=0)
    later_versions: int = Field(default=0, ge=0, le=1000)
    chips: bool = True
    fpir_disarms: bool = True  # whether the unit stops itself when live FPIR proves to be above the greatest
    blue_list: str = Field(default="blue-list", max_length=LIMITS.category)

    @property
    def projected_alerts(self) -> float:
        """False alerts to expect: projected FPIR times footfall (requirement 11)."""
        return self.projected_fpir * self.footfall

    def for_unit(self, unit: str) -> UnitList | None:
        """The list of a unit, or None where the order is not for it."""
        return next((u for u in self.lists if u.unit == unit), None)

    @field_validator("signage")
    @classmethod
    def _items_say_something(cls, signage: tuple[str, ...]) -> tuple[str, ...]:
        if any(not 5 <= len(item) <= 300 for item in signage) or len(set(signage)) != len(signage):
            raise ValueError("every item of the signage checklist has 5 to 300 characters and stands once")
        return signage

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Order:
        if not self.not_before < self.not_after:
            raise ValueError("the window ends before it begins")
        if exceeds(self.projected_fpir, self.greatest_fpir):
            raise ValueError(f"projected FPIR {self.projected_fpir:.2g} is above the greatest allowed, "
                             f"{self.greatest_fpir:.2g}: raise the threshold or shorten the list")  # fmt: skip
        if len({u.unit for u in self.lists}) != len(self.lists):
            raise ValueError("a unit has two lists")
        if any(u.entries > self.entries for u in self.lists):
            raise ValueError(f"a list is longer than the {self.entries} entries this order allows")
        return self


def read(blob: bytes, authorities: Sequence[Key], quorum: int) -> Order:
    """Verify form, signatures and quorum, then parse. Raises OrderError."""
    try:
        return envelope.read(blob, KIND, Order, authorities, quorum)
    except SealError as error:
        raise OrderError(str(error)) from error


def signers(blob: bytes) -> list[str]:
    """Key ids on an order, nothing verified."""
    return list(envelope.parse(blob, KIND).signatures)


def shown(blob: bytes, roster: Roster) -> list[tuple[str, str]]:
    """An order as people read it, unverified: signers are named, not vouched for."""
    names = {a.signing_key().keyid: a.name for a in roster.authorities}
    ids = envelope.parse(blob, KIND).signatures
    signed_by = [names.get(keyid, f"unknown key {keyid[:12]}...") for keyid in ids]
    return words(envelope.unverified(blob, KIND, Order), signed_by)


def words(current: Order, signed_by: Sequence[str]) -> list[tuple[str, str]]:
    """What an order says, in rows of a name and words."""
    lists = (f"{u.unit}: {u.entries} entries, version {u.version}, file {u.watchlist[:12]}..." for u in current.lists)
    documents, retention = current.assessments, current.retention
    rows = [
        ("deployment", current.deployment), ("purpose", current.purpose), ("authorised by", current.authorised_by),
        ("signed by", ", ".join(signed_by) or "nobody"),
        ("place", f"{current.place.name} (polygon of {len(current.place.polygon)} corners)"),
        ("from", utc(current.not_before)), ("until", utc(current.not_after)), ("units", "; ".join(lists)),
        ("threshold", f"{current.threshold:.3f}"), ("false alerts to expect", _expected(current)),
        ("adjudicators", f"{current.adjudicators} before any intervention"),
        ("kept", f"alerts {retention.alert_hours:g} h, confirmed ones {retention.confirmed_days:g} days"),
        ("face pictures in alerts", "yes" if current.chips else "no"),
        ("later list versions", str(current.later_versions)),
        ("live FPIR too high", "alarm and disarm" if current.fpir_disarms else "alarm"),
        ("impact assessment", documents.impact_assessment), ("policy document", documents.policy_document),
        ("equality assessment", documents.equality_assessment),
        ("models", f"detector {current.models.detector[:12]}..., embedder {current.models.embedder[:12]}..."),
        ("pre-flight", current.preflight[:12] + "..."), ("report by group", current.performance[:12] + "..."),
    ]  # fmt: skip
    return rows + [("signage" if i == 0 else "", item) for i, item in enumerate(current.signage)]


def _expected(current: Order) -> str:
    rate = 1 / max(current.projected_fpir, 1e-12)
    return (
        f"{current.projected_alerts:.2f} among {current.footfall} faces (1 in {rate:,.0f}; at most 1 in "
        f"{1 / current.greatest_fpir:,.0f} is allowed)"
    )
