"""`bluelamp-provision enrol` and `references`: who may be put on a list."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from appliance.errors import EnrolmentError
from appliance.recognition import packs
from provisioning.base import open_base
from provisioning.enrolment import references, report
from provisioning.enrolment.enrolment import Summary, enrol_images

BaseFolder = Annotated[Path, typer.Argument(help="The base folder.", metavar="BASE")]
Detector = Annotated[str, typer.Option(help="Detector pack: built-in name or folder.")]
Embedder = Annotated[str, typer.Option(help="Embedder pack: built-in name or folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
app = typer.Typer(no_args_is_help=True, help="The references at base: see, erase.")
_out, _err = Console(soft_wrap=True, highlight=False), Console(stderr=True)


def enrol(
    base: BaseFolder,
    source: Annotated[Path, typer.Argument(help="A CSV file, or a folder with references.csv or only images.")],
    detector: Detector = "lamp-detector",
    embedder: Embedder = "lamp-embedder",
    field: Annotated[
        list[str] | None,
        typer.Option("--set", help="Value for rows that leave it empty: category=missing-at-risk."),
    ] = None,
    update: Annotated[bool, typer.Option(help="Change the fields of references that are already there.")] = False,
    largest: Annotated[bool, typer.Option(help="Take the largest face where an image has several.")] = False,
    html: Annotated[Path | None, typer.Option(help="Where the report goes; it holds images and stays at base.")] = None,
    threads: Annotated[int | None, typer.Option(help="Images worked on at once; all cores if not given.")] = None,
    strict: Annotated[
        bool, typer.Option(help="Exit with an error where any row was refused; a folder of images always does.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Enrol a list of images. Bad rows are reported one by one and the rest goes on; a rerun resumes.

    Columns: reference_identifier, category, image (several with ';'), source, lawful_basis, rationale, image_date,
    reviewer, expiry; optional: name, date_of_birth, under_18; under 18 also authorised_by, risk_rationale.
    """
    opened = open_base(base)
    with _bar() as bar:
        task = bar.add_task("enrolling", total=None)
        summary = enrol_images(
            opened, source, packs.load(detector), packs.load(embedder), defaults=_pairs(field or []), update=update,
            largest=largest,
            threads=threads, progress=lambda done, of: bar.update(task, completed=done, total=of),
        )  # fmt: skip
    path = html or base / "reports" / "enrolment.html"
    report.write(summary, path)
    _print(summary, path, as_json)
    only_images = source.is_dir() and not (source / "references.csv").is_file()
    if (strict or only_images) and summary.refused:
        raise EnrolmentError(
            f"{len(summary.refused)} rows or files were refused, {summary.accepted} accepted; see {path}"
        )
    if not summary.accepted:
        raise EnrolmentError(f"nothing was enrolled; the reasons are above and in {path}")


@app.command("list")
def list_references(base: BaseFolder, as_json: Json = False) -> None:
    """Identifiers, categories and expiry dates (no names)."""
    opened = open_base(base)
    with opened.store() as store:
        found = list(references.references(store))
    opened.audit.add("consultation", "references", f"{len(found)} listed")
    if as_json:
        print(
            json.dumps(
                [
                    {"reference_identifier": r.reference_identifier, "category": r.category, "expiry": r.expiry}
                    for r in found
                ]
            )
        )
        return
    table = Table("reference identifier", "category", "expiry")
    for reference in found:
        table.add_row(reference.reference_identifier, reference.category, reference.expiry)
    _out.print(table)


@app.command("erase")
def erase_references(base: BaseFolder, identifier: Annotated[list[str], typer.Argument(help="Identifiers.")]) -> None:
    """Erase references with their images and templates. That they were on a list stays provable by identifier."""
    opened = open_base(base)
    with opened.store() as store:
        for one in identifier:
            count = references.erase(store, one)
            opened.audit.add("erasure", one, f"{count} images and their templates")
    _out.print(f"{len(identifier)} erased")


@app.command("expire")
def erase_expired(base: BaseFolder, as_json: Json = False) -> None:
    """Erase every reference whose expiry date has passed (kept no longer than the purpose)."""
    import datetime

    opened, today = open_base(base), datetime.date.today()
    with opened.store() as store:
        gone = [r.reference_identifier for r in references.references(store) if r.expired(today)]
        for one in gone:
            count = references.erase(store, one)
            opened.audit.add("erasure", one, f"expired; {count} images and their templates")
    print(json.dumps(gone)) if as_json else _out.print(f"{len(gone)} expired references erased")


def _pairs(items: list[str]) -> dict[str, str]:
    pairs = [item.partition("=") for item in items]
    if bad := [p[0] for p in pairs if not p[1]]:
        raise EnrolmentError(f"--set {bad[0]}: write field=value")
    return {p[0].strip(): p[2].strip() for p in pairs}


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=_err, transient=True)


def _print(summary: Summary, path: Path, as_json: bool) -> None:
    if as_json:
        rows = [o.model_dump(exclude={"thumbnail"}) for o in summary.outcomes]
        figures = {
            "rows": summary.rows, "accepted": summary.accepted, "refused": len(summary.refused),
            "resumed": summary.resumed, "references": summary.references, "seconds": round(summary.seconds, 3),
        }  # fmt: skip
        print(json.dumps({**figures, "warnings": summary.warnings, "outcomes": rows}))
        return
    for warning in summary.warnings:
        _out.print(f"note: {warning}", markup=False)
    for outcome in summary.refused[:30]:
        where = f"line {outcome.line} {outcome.reference_identifier} {outcome.image}".strip()
        _out.print(f"refused: {where}: {'; '.join(outcome.reasons)}", markup=False)
    if len(summary.refused) > 30:
        _out.print(f"... and {len(summary.refused) - 30} more, all in the report")
    known = f"{summary.resumed} outcomes known from an earlier run"
    _out.print(
        f"{summary.rows} rows: {summary.accepted} images accepted, {len(summary.refused)} refused ({known}), "
        f"{summary.references} references in the store, {summary.seconds:.1f} s"
    )
    _out.print(f"report (stays at base): {path}")
