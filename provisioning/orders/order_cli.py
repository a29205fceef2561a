"""`bluelamp-provision order`, `receipts`, `audit`: what the unit obeys, proof of the end, and the log."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from appliance.errors import SealError
from appliance.formats import order
from appliance.formats.order_table import print_order
from appliance.formats.performance import REPORT_BYTES
from appliance.storage.files import read_bounded, write_public
from appliance.times import utc
from appliance.trust import audit as logs
from appliance.trust import keys
from provisioning.base import open_base
from provisioning.enrolment.enrol_cli import BaseFolder, Json
from provisioning.lists import issue
from provisioning.orders import ordering, receipts

app = typer.Typer(no_args_is_help=True, help="Deployment orders: template, draft, sign, verify, show, recall.")
receipts_app = typer.Typer(no_args_is_help=True, help="Deletion receipts: take in, verify.")
audit_app = typer.Typer(no_args_is_help=True, help="The log of every act.")
File = Annotated[Path, typer.Argument(help="The order.")]
_out = Console(soft_wrap=True, highlight=False)


@app.command()
def template() -> None:
    """Print a commented order.toml to start from."""
    sys.stdout.write(ordering.TEMPLATE)


@app.command()
def draft(
    base: BaseFolder,
    deployment: Annotated[str, typer.Option(help="Deployment whose issued lists it is about.")],
    details: Annotated[Path, typer.Option(help="order.toml: purpose, place, documents.")],
    preflight: Annotated[Path, typer.Option(help="preflight.json, as `preflight` signed it.")],
    report: Annotated[Path, typer.Option(help="report.json: figures by group, as `evaluate` wrote it.")],
    out: Annotated[Path, typer.Option(help="Folder for order.json, preflight.json, report.json.")],
) -> None:
    """Draft the order of a deployment from what was issued. It is nothing until a quorum signed it."""
    said, looked = ordering.details(details), ordering.read_small(preflight)
    figures = read_bounded(report, REPORT_BYTES)
    blob = ordering.draft(open_base(base), deployment, said, looked, figures)
    out.mkdir(parents=True, exist_ok=True)
    for name, content in (("order.json", blob), ("preflight.json", looked), ("report.json", figures)):
        write_public(out / name, content)
    _out.print(f"{out / 'order.json'}: drafted; have it signed: bluelamp-provision order sign {out / 'order.json'}")


@app.command()
def sign(
    file: File,
    folder: Annotated[Path | None, typer.Option("--keys", help="An authority's key folder (the base is one).")] = None,
    signer: Annotated[
        str | None, typer.Option(help="Or a securesystemslib signer URI: hsm:, awskms://, gcpkms:.")
    ] = None,
    base: Annotated[
        Path | None, typer.Option(help="With --signer: the folder whose roster has the public key.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="With --signer: the authority's name on the roster.")] = None,
    yes: Annotated[bool, typer.Option(help="Do not show it and ask first.")] = False,
) -> None:
    """Show the order, ask, and add one signature."""
    blob = ordering.read_small(file)
    roster = keys.load_roster(folder or base or Path())
    if not yes:
        print_order(order.shown(blob, roster))
        typer.confirm("Sign this order?", default=False, abort=True)
    write_public(file, ordering.sign(blob, ordering.signer_from(folder, signer, roster, name)))
    _out.print(f"signed; {len(order.signers(ordering.read_small(file)))} of {roster.quorum} signatures")


@app.command()
def verify(
    file: File,
    folder: Annotated[Path, typer.Option("--keys", help="Any key folder with the roster: base, unit, control room.")],
    as_json: Json = False,
) -> None:
    """Check form, signatures and quorum. (The unit checks twelve more steps: bluelamp-unit arm.)"""
    roster = keys.load_roster(folder)
    content = order.read(ordering.read_small(file), roster.authority_keys(), roster.quorum)
    if as_json:
        print(content.model_dump_json())
        return
    _out.print(f"{content.deployment}: signed by a quorum of {roster.quorum}", style="green")


@app.command()
def show(
    file: File,
    folder: Annotated[Path, typer.Option("--keys", help="Any key folder with the roster, to name the signers.")],
) -> None:
    """The order as people read it. Signers are named, not vouched for: use `verify`."""
    print_order(order.shown(ordering.read_small(file), keys.load_roster(folder)))


@app.command()
def recall(
    base: BaseFolder,
    unit: Annotated[str, typer.Option(help="The unit.")],
    deployment: Annotated[str, typer.Option(help="The deployment to end.")],
    reason: Annotated[str, typer.Option(help="Why; the field team reads it.")],
    out: Annotated[Path, typer.Option(help="The signed recall, for the control room to publish.")] = Path(
        "recall.json"
    ),
) -> None:
    """Sign a recall: the unit ends the deployment and erases it as soon as it has this. One signature is enough."""
    write_public(out, ordering.recall_of(open_base(base), unit, deployment, reason))
    _out.print(f"{out}: publish it to bluelamp/v1/{unit}/recall, or bring it to the unit's state folder as recall.json")


@receipts_app.command("take")
def take(base: BaseFolder, file: Annotated[list[Path], typer.Argument(help="Receipts (JSON).")]) -> None:
    """Verify deletion receipts and keep them."""
    opened = open_base(base)
    for path in file:
        receipt = receipts.take_in(opened, path)
        what = f"{len(receipt.files)} files, {receipt.entries} entries"
        _out.print(f"{receipt.deployment} on {receipt.unit}: {receipt.reason} at {utc(receipt.ended)}, {what}")


@receipts_app.command("verify")
def verify_receipts(base: BaseFolder, as_json: Json = False) -> None:
    """Which lists are proven gone, which are overdue. Exit 5 where one is overdue."""
    verdicts = receipts.overview(open_base(base))
    if as_json:
        print(json.dumps([v.__dict__ for v in verdicts]))
    else:
        table = Table("deployment", "unit", "versions", "window ended", "state", "")
        colours = {"gone": "green", "overdue": "red", "running": "yellow", "not begun": "dim"}
        for v in verdicts:
            state = f"[{colours[v.state]}]{v.state}"
            table.add_row(v.deployment, v.unit, str(v.versions), utc(v.not_after), state, v.reason)
        _out.print(table)
    overdue = [v for v in verdicts if v.state == "overdue"]
    if overdue:
        raise SealError(f"{len(overdue)} list(s) without proof of deletion; ask {overdue[0].unit} for its receipt")


@audit_app.command("verify")
def verify_audit(
    base: BaseFolder,
    log: Annotated[Path | None, typer.Option(help="A unit's audit.log instead of the base's own.")] = None,
    unit: Annotated[str | None, typer.Option(help="With --log: whose it is.")] = None,
    as_json: Json = False,
) -> None:
    """Find any change, cut or reorder in the log, up to what left the machine in records and receipts."""
    opened = open_base(base)
    if log is None:
        entries = logs.verify(opened.audit.path, opened.all_signers(), receipts.own_anchors(opened))
    else:
        identity = next((u for u in opened.keys.roster.units if u.name == unit), None)
        if identity is None:
            raise SealError("say with --unit whose log this is; it must be on the roster")
        entries = logs.verify(log, [identity.signing_key()], receipts.anchors(opened, identity.name))
    print(json.dumps({"entries": len(entries), "whole": True})) if as_json else _out.print(
        f"whole: {len(entries)} entries, each signed and linked", style="green")  # fmt: skip


@audit_app.command("show")
def show_audit(base: BaseFolder, last: Annotated[int, typer.Option(help="How many of the newest.")] = 30) -> None:
    """The newest acts."""
    opened = open_base(base)
    table = Table("number", "time", "act", "subject", "detail", "by")
    for e in logs.verify(opened.audit.path, opened.all_signers())[-last:]:
        table.add_row(str(e.sequence), utc(e.time), e.act, e.subject[:24], e.detail, e.by)
    _out.print(table)


@audit_app.command("member")
def member(base: BaseFolder, identifier: Annotated[str, typer.Argument(help="A reference identifier.")]) -> None:
    """On which lists an identifier was: provable after its images are gone (requirement 16)."""
    opened = open_base(base)
    opened.audit.add("consultation", identifier, "membership asked")
    found = [r for r in issue.records(opened) if identifier in dict(issue.members(opened, r))]
    for record in found:
        _out.print(f"{record.deployment} version {record.version} on {record.unit}, until {utc(record.not_after)}")
    if not found:
        _out.print(f"{identifier} was on no list issued here")
