"""`bluelamp-provision issue` and `inspect`: sealed watchlists."""

from __future__ import annotations

import datetime
import json
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from appliance.errors import EnrolmentError
from appliance.formats import preflight as preflights
from appliance.formats import watchlist
from appliance.formats.preflight import Preflight
from appliance.limits import LIMITS
from appliance.recognition import packs
from appliance.storage.files import read_bounded
from appliance.times import utc
from appliance.trust import envelope, keys, seal
from appliance.trust.seal import Sealed
from provisioning.base import Base, open_base
from provisioning.enrolment.enrol_cli import BaseFolder, Detector, Embedder, Json
from provisioning.lists import issue as issuing
from provisioning.lists.issue import Issued, Window
from provisioning.lists.selection import Selection, select
from provisioning.moments import moment

_out = Console(soft_wrap=True, highlight=False)


def issue(
    base: BaseFolder,
    unit: Annotated[list[str], typer.Option(help="Unit to seal it to; repeat for several.")],
    deployment: Annotated[str, typer.Option(help="Deployment id: letters, digits, . _ -")],
    start: Annotated[str | None, typer.Option("--from", help="Window begins: 2026-11-22T18:00Z, now, +2h.")] = None,
    end: Annotated[str | None, typer.Option("--until", help="Window ends; the list is void from then on.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the sealed files.")] = Path(),
    zone: Annotated[str | None, typer.Option(help="Time zone of times written without one: Europe/London.")] = None,
    detector: Detector = "lamp-detector",
    embedder: Embedder = "lamp-embedder",
    threshold: Annotated[float | None, typer.Option(help="Comparison score that makes an alert.")] = None,
    fpir: Annotated[str | None, typer.Option(help="Or a rate, 1/6000: the calibrated threshold for this size.")] = None,
    category_threshold: Annotated[list[str] | None, typer.Option(help="A category's own: missing-at-risk=0.6.")] = None,
    category: Annotated[list[str] | None, typer.Option(help="Only these categories; repeat.")] = None,
    reference: Annotated[list[str] | None, typer.Option(help="Only these identifiers; repeat.")] = None,
    preflight: Annotated[Path | None, typer.Option(help="preflight.json: its thresholds, and wolves' own.")] = None,
    as_json: Json = False,
) -> None:
    """Seal a watchlist to units for one deployment. Issued again, it is the next version: additions, removals."""
    opened, now = open_base(base), time.time()
    window = _window(opened, deployment, start, end, zone, now)
    models = packs.load(detector), packs.load(embedder)
    on = datetime.datetime.fromtimestamp(window.not_before, datetime.timezone.utc).date()
    chosen = select(opened, *models, on=on, categories=category, identifiers=reference)
    looked = None if preflight is None else _looked_over(opened, chosen, preflight)
    if looked is not None:
        threshold, fpir = looked.threshold, None
    limits = issuing.thresholds(
        models[1], models[0], len(chosen.rows), threshold=threshold, fpir=None if fpir is None else rate(fpir),
        by_category=_category_thresholds(category_threshold or []),
        by_reference={} if looked is None else {w.reference_identifier: w.threshold for w in looked.wolves},
        selection=chosen,
    )  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    issued = [
        issuing.issue(opened, chosen, unit=u, deployment=deployment, window=window, limits=limits,
                      out=out / f"{deployment}.{u}.watchlist", now=now) for u in unit
    ]  # fmt: skip
    _report(issued, chosen.left_out, limits.note, out, as_json)


def inspect(
    file: Annotated[Path, typer.Argument(help="A sealed watchlist.")],
    unit_keys: Annotated[
        Path | None, typer.Option("--keys", help="The unit's key folder: shows what is inside.")
    ] = None,
    as_json: Json = False,
) -> None:
    """What anyone may know of a sealed watchlist; with the unit's keys, what is inside (never a template)."""
    blob = read_bounded(file, LIMITS.watchlist_bytes)
    sealed = seal.take_apart(blob, LIMITS.watchlist_bytes)
    shown: dict[str, Any] = {"bytes": len(blob), **sealed.header.model_dump()}
    shown["verified"] = False
    if unit_keys is not None:
        shown |= _inside(sealed, keys.load(unit_keys))
    if as_json:
        print(json.dumps(shown))
        return
    for key in ("created", "expires", "not_before", "not_after"):
        if key in shown:
            shown[key] = utc(shown[key])
    table = Table("field", "value")
    for key, value in shown.items():
        table.add_row(key, json.dumps(value) if isinstance(value, dict) else str(value))
    _out.print(table)


def rate(text: str) -> float:
    """A rate written 1/6000 or 0.0001. Raises EnrolmentError."""
    try:
        top, _, bottom = text.partition("/")
        value = float(top) / float(bottom or 1)
    except (ValueError, ZeroDivisionError) as error:
        raise EnrolmentError(f"{text!r}: write a rate as 1/6000 or 0.0001") from error
    if not 0 < value <= 1:
        raise EnrolmentError(f"{text!r}: a rate lies above 0 and at most 1")
    return value


def _looked_over(base: Base, chosen: Selection, path: Path) -> Preflight:
    """The pre-flight of exactly this list. Raises EnrolmentError for one of another."""
    blob = read_bounded(path, envelope.DOCUMENT_BYTES)
    report = envelope.read(blob, preflights.KIND, Preflight, base.all_signers())
    if report.content != chosen.digest:
        raise EnrolmentError(f"{path}: looked at another list than the one to be issued; run preflight again")
    return report


def _category_thresholds(items: list[str]) -> dict[str, float]:
    try:
        return {k: float(v) for k, v in (item.split("=", 1) for item in items)}
    except ValueError as error:
        raise EnrolmentError("--category-threshold: write missing-at-risk=0.6") from error


def _window(base: Base, deployment: str, start: str | None, end: str | None, zone: str | None, now: float) -> Window:
    """The window given, or the one the deployment already has."""
    known = next((Window(r.not_before, r.not_after) for r in issuing.records(base) if r.deployment == deployment), None)
    if known is not None and start is None and end is None:
        return known
    if start is None or end is None:
        raise EnrolmentError(f"deployment {deployment} is new: give its window with --from and --until")
    return Window(moment(start, zone, now), moment(end, zone, now))


def _inside(sealed: Sealed, folder: keys.KeyFolder) -> dict[str, Any]:
    seal.verify(sealed, folder.roster.authority_keys())
    manifest, _, content = watchlist.parse_plaintext(seal.open_sealed(sealed, folder.sealing))
    inside = manifest.model_dump(exclude={"entries"})
    entries = manifest.entries
    names = {e.reference_identifier for e in entries}
    inside |= {
        "verified": True, "content": content, "entries": len(entries), "references": len(names),
        "categories": dict(Counter(e.category for e in entries)),
        "raised_thresholds": sum(e.threshold is not None for e in entries),
    }  # fmt: skip
    return inside


def _report(issued: list[Issued], left_out: dict[str, str], note: str, out: Path, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"issued": [i.model_dump() for i in issued], "left_out": left_out, "note": note}))
        return
    for one in issued:
        path = out / f"{one.deployment}.{one.unit}.watchlist"
        _out.print(f"{path}: version {one.version}, {one.references} references in {one.entries} templates, threshold "
                   f"{one.threshold:.3f}, {utc(one.not_before)} to {utc(one.not_after)}")  # fmt: skip
        _out.print(f"  SHA-256 {one.sha256}")
    if note:
        _out.print(f"note: {note}", markup=False)
    for identifier, reason in left_out.items():
        _out.print(f"left out: {identifier}: {reason}", markup=False)
