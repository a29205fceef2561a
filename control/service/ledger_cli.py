"""`bluelamp-control retention verify` and `report`: what others may check afterwards, read from the store's files."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from appliance.trust import keys as key_folders
from control.cases.adjudication import LedgerError
from control.ledger import retention_proof

Store = Annotated[Path, typer.Option(help="The control room's store.", exists=True, file_okay=False)]
Keys = Annotated[Path, typer.Option(help="The control room's key folder: it signed the log.", exists=True)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
_out = Console(soft_wrap=True, highlight=False)
retention_app = typer.Typer(help="How long things are kept, and the proof that they are not kept longer.")


@retention_app.callback()
def _group() -> None:
    """A group, though it has one command."""


@retention_app.command("verify")
def verify(store: Store, keys: Keys, as_json: Json = False) -> None:
    """Prove from the files alone that everything whose time is over is gone. Exit code 11 where it is not.

    The service may run meanwhile. Looked at are times, keys, epochs, what is left of erased alerts, the log of
    erasures, and every file's bytes.

    Example: bluelamp-control retention verify --store room-store --keys room
    """
    signer = key_folders.load(keys).signer.public_key
    proof = retention_proof.verify(store, [signer], time.time())
    if as_json:
        print(json.dumps(asdict(proof)))
    for finding in proof.findings:
        if not as_json:
            _out.print(finding, style="red", markup=False)
    if proof.findings:
        raise LedgerError(f"{len(proof.findings)} finding(s) in {store}: something is kept that should be gone")
    if not as_json:
        _out.print(f"{proof.erased} alert(s) erased in {proof.erasures} erasure(s), all in the log; {proof.living} are "
                   f"kept for now; {proof.keys} key(s), none more than is needed; no picture in the clear",
                   style="green")  # fmt: skip


def report(
    deployment: Annotated[str, typer.Argument(help="The deployment, as its order names it.")],
    store: Store,
    out: Annotated[Path, typer.Option(help="A folder for report.html, report.json and report.csv.", file_okay=False)],
) -> None:
    """Write the report of a deployment, fit for publication: nothing in it identifies anyone.

    How often the machine was right and how often people were, with 95 % limits, what became of the alerts, how long it
    took, what was erased. The service may run meanwhile; before the end of its window a report is marked as interim.

    Example: bluelamp-control report D-1 --store room-store --out report
    """
    try:
        from control.report import make as reports  # with matplotlib: slow to load, and only this command needs it
    except ImportError as error:
        raise LedgerError("the report needs the extra 'control': pip install 'bluelamp[control]'") from error
    made = reports.write(store, deployment, out, time.time())
    flow, machine = made.flow, made.machine
    counts = f"{machine.faces:,} faces, {flow.arrived:,} alerts, {flow.confirmed:,} confirmed, {flow.false:,} false"
    _out.print(f"{out / 'report.html'}: {counts}{'' if made.final else '; interim'}", markup=False)


def mount(app: typer.Typer) -> None:
    """Put these commands into a command line."""
    app.add_typer(retention_app, name="retention")
    app.command("report")(report)
