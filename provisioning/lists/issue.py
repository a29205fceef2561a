"""A selection becomes a watchlist file, sealed to one unit's key for one deployment, and a signed record of it.

Each deployment of a unit gets a sealing key of its own: the first of the unit's that no other deployment has. What is
sealed to it is gone when the unit destroys it.
"""

from __future__ import annotations

import datetime
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from appliance.errors import EnrolmentError, KeyFileError, PackError, WatchlistError
from appliance.formats import watchlist
from appliance.formats.watchlist import Entry, Manifest
from appliance.identifiers import uuid7
from appliance.limits import LIMITS
from appliance.recognition import calibration, normalise
from appliance.recognition.packs import Pack
from appliance.records import Models, Record
from appliance.storage.files import read_bounded, write_private, write_public
from appliance.times import utc
from appliance.trust import envelope, keys
from appliance.trust.audit import Anchor
from provisioning.base import Base
from provisioning.lists.selection import Selection

KIND = "issued"


class Issued(Record):
    """The base's record of one sealed watchlist: everything but who is on it. Times are UTC seconds."""

    format: Literal[1] = 1
    unit: str
    deployment: str
    version: int
    created: float
    not_before: float
    not_after: float
    sealing_key: str
    sha256: str
    content: str  # digest of references and templates
    previous: str | None  # SHA-256 of the version before
    models: Models
    entries: int
    references: int
    threshold: float
    policy: str  # SHA-256 of the policy in force
    anchor: Anchor  # where the base's audit log stood


@dataclass(frozen=True)
class Window:
    """When a deployment may scan: UTC seconds, the end not included."""

    not_before: float
    not_after: float


@dataclass(frozen=True)
class Thresholds:
    """The list's threshold, those of categories, and those of references that score high against everybody."""

    threshold: float
    by_category: Mapping[str, float]
    by_reference: Mapping[str, float]
    note: str = ""  # what the technician should know about them


def thresholds(
    embedder: Pack,
    detector: Pack,
    size: int,
    *,
    threshold: float | None = None,
    fpir: float | None = None,
    by_category: Mapping[str, float] | None = None,
    by_reference: Mapping[str, float] | None = None,
    selection: Selection | None = None,
) -> Thresholds:
    """An explicit threshold, or the calibrated one for a list of `size` entries at the rate `fpir`.

    With a `selection` and a calibration that normalises by a cohort, references that resemble many people get a
    threshold of their own, higher than the list's or their category's; never lower than one in `by_reference`. Such a
    calibration's thresholds hold only so: without a `selection` it raises EnrolmentError.
    Raises EnrolmentError where neither is given or one is under the calibration's floor, and PackError where a
    calibrated one is wanted and the calibration does not answer.
    """
    if threshold is None and fpir is None:
        raise EnrolmentError("give --threshold, or --fpir to take it from the pack's calibration (1/6000, for example)")
    record, note = _calibration(embedder, detector, needed=threshold is None)
    if threshold is None and record is not None and fpir is not None:
        threshold = record.threshold_for(size, fpir)
    own = dict(by_reference or {})
    if record is not None and selection is None and record.normalisation.kind != "none":
        raise EnrolmentError("this calibration raises references' own thresholds: they must be given with the list")
    if record is not None and selection is not None:
        for name, value in _by_cohort(embedder, record, selection, threshold or 0.0, by_category or {}).items():
            own[name] = max(value, own.get(name, value))
    _plausible("threshold", threshold or 0.0)
    for name, value in (by_category or {}).items():
        _plausible(f"category threshold of {name}", value)
    chosen = Thresholds(threshold or 0.0, dict(by_category or {}), own, note)
    low = min((chosen.threshold, *chosen.by_category.values(), *chosen.by_reference.values()))
    if record is not None and low < record.floor:
        raise EnrolmentError(f"threshold {low:.3f} is under the calibration's floor {record.floor:.3f}; raise it")
    return chosen


def _plausible(what: str, value: float) -> None:
    """Refuse a threshold that no score, a cosine, can reach or miss. NaN is refused too."""
    if not -1 <= value <= 1:
        raise EnrolmentError(f"{what}: {value:g} lies outside -1 to 1, the range of scores; write one such as 0.6")


def _by_cohort(
    embedder: Pack,
    record: calibration.Calibration,
    selection: Selection,
    threshold: float,
    by_category: Mapping[str, float],
) -> dict[str, float]:
    """Thresholds that the calibration's cohort raises, by reference identifier: of the highest of its templates."""
    rule, cohort = record.normalisation, calibration.load_cohort(embedder, record)
    if cohort is None:
        return {}
    levels = normalise.level(selection.templates, cohort, rule.nearest)
    found: dict[str, float] = {}
    for row, more in zip(selection.rows, normalise.raised(levels, rule.usual, rule.reference_weight), strict=True):
        if more > 0:
            value = min(1.0, by_category.get(row.category, threshold) + float(more))
            found[row.reference_identifier] = max(value, found.get(row.reference_identifier, value))
    return found


def _calibration(embedder: Pack, detector: Pack, needed: bool) -> tuple[calibration.Calibration | None, str]:
    """The record of this pair of packs; without one an explicit threshold may be issued, but no order will arm it."""
    try:
        record = calibration.load(embedder)
        if record.detector != detector.digest:
            raise PackError(f"{embedder.folder}: calibrated with another detector pack; calibrate this pair")
    except PackError as error:
        if needed:
            raise
        return None, f"no floor is known for this threshold, and no order will arm it: {error}"
    return record, ""


def issue(
    base: Base,
    selection: Selection,
    *,
    unit: str,
    deployment: str,
    window: Window,
    limits: Thresholds,
    out: Path,
    now: float | None = None,
) -> Issued:
    """Seal a selection to a unit for a deployment, write it to `out`, and record it. The version counts by itself.

    Raises EnrolmentError, KeyFileError or WatchlistError where policy forbids it; nothing is written then.
    """
    now = time.time() if now is None else now
    _allowed(base, selection, window, now)
    identity = base.keys.roster.unit(unit)
    if identity is None:
        raise KeyFileError(f"{unit}: no such unit on the roster; admit it with: bluelamp-provision keys admit")
    before = newest(base, unit, deployment)
    _same_deployment(base, before, unit, deployment, window, selection)
    sealing = _sealing_key(base, identity, deployment)
    manifest = _manifest(selection, limits, unit, deployment, window, now, before)
    blob = watchlist.make(manifest, selection.templates, uuid7(now), sealing.public(), sealing.id, [base.keys.signer])
    record = _record(base, manifest, selection, sealing.id, blob, before)
    _remember(base, record, selection)
    write_private(out, blob)
    return record


def records(base: Base) -> list[Issued]:
    """Every record, verified, oldest first. Raises SealError for one that was altered."""
    found = [read(base, p) for p in sorted((base.folder / "issued").glob("*.json"))]
    return sorted(found, key=lambda r: (r.created, r.version))


def read(base: Base, path: Path) -> Issued:
    """One record, its signature checked. An authority key that was rotated since still counts for what it signed."""
    blob = read_bounded(path, LIMITS.config_bytes)
    return envelope.read(blob, KIND, Issued, base.all_signers())


def newest(base: Base, unit: str, deployment: str) -> Issued | None:
    """The newest version for a unit and deployment, or None."""
    found = [r for r in records(base) if (r.unit, r.deployment) == (unit, deployment)]
    return max(found, key=lambda r: r.version, default=None)


def members(base: Base, record: Issued) -> list[tuple[str, str]]:
    """Who was on a list, by identifier and category only (requirement 16); the images may be long gone."""
    with base.store() as store:
        value = store.get(KIND, record.sha256)
    if value is None:
        raise EnrolmentError(f"{record.deployment}: its membership is not in the store; restore store.sqlite's backup")
    return [(line.split("\t")[0], line.split("\t")[1]) for line in value.decode().splitlines()]


def _allowed(base: Base, selection: Selection, window: Window, now: float) -> None:
    policy, hours = base.policy, (window.not_after - window.not_before) / 3600
    if not window.not_before < window.not_after:
        raise EnrolmentError("the window ends before it begins; check --from and --until")
    if window.not_after <= now:
        raise EnrolmentError("the window is over already; check --until and this machine's clock")
    if hours > policy.window_hours:
        raise EnrolmentError(
            f"the window has {hours:.1f} hours, policy.toml allows {policy.window_hours:g}; shorten it"
        )
    early = (window.not_before - now) / 3600
    if early > policy.hours_before:
        at = utc(window.not_before - policy.hours_before * 3600)
        raise EnrolmentError(
            f"a list is made at most {policy.hours_before:g} hours before its window; issue it after {at}"
        )
    if len(selection.rows) > policy.entries:
        raise EnrolmentError(
            f"{len(selection.rows)} entries, the policy allows {policy.entries}; choose categories, or have the "
            "authority raise 'entries' in policy.toml"
        )
    last = datetime.datetime.fromtimestamp(window.not_after, datetime.timezone.utc).date()
    if gone := sorted({r.reference_identifier for r in selection.rows if r.expired(last)}):
        raise EnrolmentError(f"{', '.join(gone[:5])}: expire before the window ends; review them or leave them out")


def _same_deployment(
    base: Base, before: Issued | None, unit: str, deployment: str, window: Window, selection: Selection
) -> None:
    """A deployment has one window and one pair of packs, for all its units and versions (requirement 3)."""
    for other in (r for r in records(base) if r.deployment == deployment):
        if (other.not_before, other.not_after) != (window.not_before, window.not_after):
            times = f"{utc(other.not_before)} to {utc(other.not_after)}"
            raise EnrolmentError(
                f"deployment {deployment} was issued for another window ({times}); a new window is a new deployment"
            )
    if before is not None and before.models != selection.models:
        raise EnrolmentError(
            f"deployment {deployment} was issued to {unit} for other model packs; use those, or a new deployment"
        )


def _sealing_key(base: Base, identity: keys.Identity, deployment: str) -> keys.SealingKey:
    used = {r.sealing_key: r.deployment for r in records(base) if r.unit == identity.name}
    for key in identity.sealing:
        if used.get(key.id) == deployment:
            return key
    for key in identity.sealing:
        if key.id not in used:
            return key
    raise KeyFileError(
        f"{identity.name}: all its {len(identity.sealing)} deployment keys are used; run 'bluelamp-unit keys request' "
        "there and admit it again"
    )


def _manifest(
    selection: Selection,
    limits: Thresholds,
    unit: str,
    deployment: str,
    window: Window,
    now: float,
    before: Issued | None,
) -> Manifest:
    if unknown := sorted(set(limits.by_category) - {r.category for r in selection.rows}):
        raise WatchlistError(f"thresholds for {', '.join(unknown)}, but no reference on the list is of that category")
    entries = tuple(
        Entry(reference_identifier=r.reference_identifier, category=r.category,
              threshold=limits.by_reference.get(r.reference_identifier)) for r in selection.rows
    )  # fmt: skip
    return Manifest(
        unit=unit, deployment=deployment, version=1 if before is None else before.version + 1, created=now,
        not_before=window.not_before, not_after=window.not_after, models=selection.models,
        length=selection.templates.shape[1], threshold=limits.threshold, category_thresholds=dict(limits.by_category),
        entries=entries, previous=None if before is None else before.sha256,
    )  # fmt: skip


def _record(
    base: Base, manifest: Manifest, selection: Selection, key: str, blob: bytes, before: Issued | None
) -> Issued:
    sha256 = hashlib.sha256(blob).hexdigest()
    what = f"watchlist v{manifest.version} of {manifest.deployment} to {manifest.unit}, {len(manifest.entries)} entries"
    anchor = base.audit.add("disclosure", sha256, what)
    return Issued(
        unit=manifest.unit, deployment=manifest.deployment, version=manifest.version, created=manifest.created,
        not_before=manifest.not_before, not_after=manifest.not_after, sealing_key=key, sha256=sha256,
        content=selection.digest, previous=manifest.previous, models=manifest.models, entries=len(manifest.entries),
        references=len({r.reference_identifier for r in selection.rows}), threshold=manifest.threshold,
        policy=base.policy_digest, anchor=anchor,
    )  # fmt: skip


def _remember(base: Base, record: Issued, selection: Selection) -> None:
    folder = base.folder / "issued"
    folder.mkdir(exist_ok=True)
    lines = dict.fromkeys(f"{r.reference_identifier}\t{r.category}" for r in selection.rows)
    with base.store() as store:
        store.put(KIND, record.sha256, "\n".join(lines).encode())
    path = folder / f"{record.deployment}.{record.unit}.v{record.version:06d}.json"
    write_public(path, envelope.sign(record, KIND, base.keys.signer))
