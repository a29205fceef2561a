"""Draft and sign deployment orders, and recalls.

What the order says comes from the details file; its digests come from what was issued and are never typed by hand.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import Error as SignerError
from securesystemslib.signer import Signer

from appliance.errors import ConfigError, EnrolmentError, KeyFileError
from appliance.formats import order, performance, recall
from appliance.formats.order import Assessments, Order, OrderError, Place, Retention, UnitList
from appliance.formats.preflight import KIND as PREFLIGHT
from appliance.formats.preflight import Preflight
from appliance.formats.recall import Recall
from appliance.records import Record
from appliance.storage.files import read_bounded
from appliance.trust import envelope, keys
from provisioning.base import Base
from provisioning.lists import issue
from provisioning.lists.issue import Issued

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TEMPLATE = """\
# What a deployment order says beyond what was issued. Every line is shown to those who sign it.
purpose = "Find people wanted on a warrant of a court who come to the market on Saturday"
authorised_by = "Superintendent A. Example, authorising officer"
later_versions = 3          # how many later list versions the unit may take without a new order
adjudicators = 1            # people who must agree before an intervention: 1 or 2
chips = true                # whether an alert carries the compared face
fpir_disarms = true         # whether the unit disarms itself where live FPIR proves to be too high

[place]
name = "High Street, between the station and the market"
polygon = [[51.5010, -0.1420], [51.5010, -0.1400], [51.4995, -0.1400], [51.4995, -0.1420]]  # latitude, longitude

[assessments]
impact_assessment = "DPIA 2026/17, version 3"
policy_document = "Appropriate policy document LFR-02"
equality_assessment = "EIA 2026/17"

[retention]
alert_hours = 24
confirmed_days = 30
"""


class Details(Record):
    """The part of an order that people write; `order.toml`."""

    purpose: str
    authorised_by: str
    place: Place
    assessments: Assessments
    retention: Retention = Retention()
    adjudicators: int = 1
    signage: tuple[str, ...] = order.SIGNAGE
    later_versions: int = 0
    chips: bool = True
    fpir_disarms: bool = True
    greatest_fpir: float | None = Field(default=None, gt=0, le=order.GREATEST_FPIR)


def details(path: Path) -> Details:
    """Read `order.toml`. Raises ConfigError."""
    try:
        return Details.model_validate(tomllib.loads(path.read_text()))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; begin with: bluelamp-provision order template") from error
    except ValidationError as error:
        raise ConfigError(f"{path}: {_first(error)}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not TOML ({error})") from error


def draft(
    base: Base, deployment: str, said: Details, preflight_blob: bytes, performance_blob: bytes, now: float | None = None
) -> bytes:
    """An unsigned order for the newest list of every unit of a deployment. Raises OrderError where it cannot stand."""
    now = time.time() if now is None else now
    lists = newest_lists(base, deployment)
    report = envelope.read(preflight_blob, PREFLIGHT, Preflight, base.all_signers())
    _agree(lists, report)
    refusal = performance.refusal(performance_blob, lists[0].models, now)
    if refusal is not None:
        raise OrderError(f"no order: {refusal}")
    try:
        content = Order(
            deployment=deployment, drafted=now, not_before=lists[0].not_before, not_after=lists[0].not_after,
            lists=tuple(_unit_list(i) for i in lists), models=lists[0].models, preflight=_sha256(preflight_blob),
            performance=_sha256(performance_blob), threshold=min(i.threshold for i in lists),
            projected_fpir=report.projected_fpir, footfall=report.footfall, entries=base.policy.entries,
            hours_before=base.policy.hours_before, blue_list=base.policy.blue_list,
            greatest_fpir=said.greatest_fpir or report.greatest_fpir,
            **said.model_dump(exclude={"greatest_fpir"}),
        )  # fmt: skip
    except ValidationError as error:
        raise OrderError(f"no order: {_first(error)}") from error
    base.audit.add("order", deployment, f"drafted for {', '.join(i.unit for i in lists)}")
    return envelope.encode(Envelope(content.model_dump_json().encode(), envelope.payload_type(order.KIND), {}))


def sign(blob: bytes, signer: Signer) -> bytes:
    """The order with one more signature. Raises SealError where this key signed it already, or it is malformed."""
    envelope.unverified(blob, order.KIND, Order)
    return envelope.add_signature(blob, order.KIND, signer)


def signer_from(folder: Path | None, uri: str | None, roster: keys.Roster, name: str | None) -> Signer:
    """The signer of an authority's key folder, or any that securesystemslib opens by URI (a smart card, a cloud key).

    With a URI, `name` says whose public key on the roster it is.
    """
    if (folder is None) == (uri is None):
        raise KeyFileError("give either --keys FOLDER or --signer URI")
    if folder is not None:
        return keys.signer_of(folder)
    for identity in roster.authorities:
        if identity.name == name:
            return _by_uri(str(uri), identity)
    raise KeyFileError(f"{name or 'no name given'}: not an authority on the roster; say whose key it is with --name")


def recall_of(base: Base, unit: str, deployment: str, reason: str) -> bytes:
    """A signed recall. Raises EnrolmentError where the unit has no list of that deployment."""
    if issue.newest(base, unit, deployment) is None:
        raise EnrolmentError(f"{unit} has no list of deployment {deployment}")
    base.audit.add("order", deployment, f"recall for {unit}: {reason}")
    return recall.sign(Recall(unit=unit, deployment=deployment, made=time.time(), reason=reason), base.keys.signer)


def newest_lists(base: Base, deployment: str) -> list[Issued]:
    """The newest list of each unit. Raises EnrolmentError where there is none."""
    newest: dict[str, Issued] = {}
    for record in issue.records(base):
        if record.deployment == deployment:
            newest[record.unit] = max(record, newest.get(record.unit, record), key=lambda r: r.version)
    if not newest:
        raise EnrolmentError(f"{deployment}: no list was issued for it; issue one first")
    return [newest[name] for name in sorted(newest)]


def _by_uri(uri: str, identity: keys.Identity) -> Signer:
    try:
        return Signer.from_priv_key_uri(uri, identity.signing_key())
    except (SignerError, ValueError, OSError) as error:
        raise KeyFileError(f"{uri}: no usable signer ({error}); see securesystemslib's list of signers") from error


def _agree(lists: Sequence[Issued], report: Preflight) -> None:
    for issued in lists:
        if issued.content != report.content or issued.models != report.models:
            raise OrderError(f"the pre-flight is not about the list of {issued.unit}; run it again and issue with it")
        if issued.threshold != report.threshold:
            raise OrderError(
                f"the list of {issued.unit} was issued at threshold {issued.threshold:.4f}, the pre-flight looked at "
                f"{report.threshold:.4f}; issue it again with the pre-flight"
            )


def _unit_list(issued: Issued) -> UnitList:
    return UnitList(unit=issued.unit, watchlist=issued.sha256, content=issued.content, version=issued.version,
                    entries=issued.entries)  # fmt: skip


def _sha256(blob: bytes) -> str:
    return hashlib.sha256(blob).hexdigest()


def _first(error: ValidationError) -> str:
    first: Any = error.errors()[0]
    where = ".".join(str(p) for p in first["loc"])
    return f"{where + ': ' if where else ''}{first['msg']}"


def read_small(path: Path) -> bytes:
    """A signed document's bytes."""
    return read_bounded(path, envelope.DOCUMENT_BYTES)
