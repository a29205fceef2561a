"""`bluelamp-provision preflight`: look a list over before it is issued."""

from __future__ import annotations

import datetime
import json
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from appliance.errors import EnrolmentError
from appliance.formats import preflight as records
from appliance.formats.order import GREATEST_FPIR, exceeds
from appliance.formats.preflight import Preflight
from appliance.recognition import packs
from appliance.storage.files import write_public
from appliance.trust import envelope
from provisioning.base import Base, open_base
from provisioning.enrolment.enrol_cli import BaseFolder, Detector, Embedder, Json
from provisioning.lists import cohort as cohorts
from provisioning.lists import issue as issuing
from provisioning.lists import preflight as looking
from provisioning.lists import preflight_report
from provisioning.lists.issue_cli import rate
from provisioning.lists.preflight import Question
from provisioning.lists.selection import Selection, select
from provisioning.moments import moment

_out, _err = Console(soft_wrap=True, highlight=False), Console(stderr=True)


def preflight(
    base: BaseFolder,
    footfall: Annotated[int, typer.Option(min=1, max=100_000_000, help="Faces expected to pass in the deployment.")],
    out: Annotated[Path, typer.Option(help="Folder for preflight.json and preflight.html.")] = Path(),
    detector: Detector = "lamp-detector",
    embedder: Embedder = "lamp-embedder",
    threshold: Annotated[float | None, typer.Option(help="Comparison score that makes an alert.")] = None,
    fpir: Annotated[str | None, typer.Option(help="Or a rate, 1/6000: the calibrated threshold for this size.")] = None,
    greatest: Annotated[str, typer.Option(help="Greatest FPIR the order will allow.")] = "1/1000",
    cohort: Annotated[Path | None, typer.Option(help="Strangers: a folder of images, or a .npy of templates.")] = None,
    category: Annotated[list[str] | None, typer.Option(help="Only these categories; repeat.")] = None,
    reference: Annotated[list[str] | None, typer.Option(help="Only these identifiers; repeat.")] = None,
    on: Annotated[str, typer.Option(help="Day of the deployment, for expiry dates: a moment as in 'issue'.")] = "now",
    as_json: Json = False,
) -> None:
    """Look-alikes, wolves, ages, and the false alerts to expect. Then: issue --preflight preflight.json."""
    opened, models = open_base(base), (packs.load(detector), packs.load(embedder))
    day = datetime.datetime.fromtimestamp(moment(on, None, time.time()), datetime.timezone.utc).date()
    chosen = select(opened, *models, on=day, categories=category, identifiers=reference)
    limits = issuing.thresholds(models[1], models[0], len(chosen.rows), threshold=threshold,
                                fpir=None if fpir is None else rate(fpir), selection=chosen)  # fmt: skip
    if rate(greatest) > GREATEST_FPIR:
        raise EnrolmentError(f"--greatest {greatest}: no order may allow more than 1 in 1,000")
    strangers = cohorts.none(chosen.templates.shape[1])
    if cohort is not None:
        with Progress(console=_err, transient=True) as bar:
            task = bar.add_task("cohort", total=None)
            strangers = cohorts.load(
                opened, cohort, *models, lambda done, of: bar.update(task, completed=done, total=of)
            )
    ask = Question(limits.threshold, rate(greatest), footfall)
    report = looking.examine(opened, chosen, *models, strangers, ask)
    write(opened, report, out)
    _print(report, chosen, out, as_json)


def write(base: Base, report: Preflight, out: Path) -> bytes:
    """Write the signed JSON and the page; returns the JSON's bytes, whose digest goes into the order."""
    out.mkdir(parents=True, exist_ok=True)
    signed = envelope.sign(report, records.KIND, base.keys.signer)
    write_public(out / "preflight.json", signed)
    write_public(out / "preflight.html", preflight_report.page(report).encode())
    base.audit.add("combination", report.content, f"pre-flight of {report.references} references")
    return signed


def _print(report: Preflight, chosen: Selection, out: Path, as_json: bool) -> None:
    if as_json:
        print(report.model_dump_json())
        return
    for warning in report.warnings:
        _out.print(f"note: {warning}", markup=False)
    _out.print(f"{report.references} references in {report.entries} templates, threshold {report.threshold:.3f}")
    _out.print(f"{len(report.look_alikes)} look-alikes, {len(report.wolves)} wolves (given thresholds of their own)")
    expected = f"{report.projected_alerts:.2f} false alerts among {report.footfall} faces"
    _out.print(f"projected FPIR {report.projected_fpir:.3g} (from the {report.projection}): {expected}")
    if exceeds(report.projected_fpir, report.greatest_fpir):
        _out.print(f"ABOVE the allowed {report.greatest_fpir:.3g}: no order can be drafted", style="red")
    _out.print(json.dumps(chosen.left_out)) if chosen.left_out else None
    _out.print(f"{out / 'preflight.html'}, {out / 'preflight.json'}")
