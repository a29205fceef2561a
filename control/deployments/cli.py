"""`bluelamp-control deployment`: the orders and reference pictures that the control room was given."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from appliance.times import utc
from appliance.trust import keys
from appliance.trust.audit import Audit
from control.deployments import dossiers
from control.ledger import deployment_rows
from control.ledger.ledger import Ledger
from control.ledger.ledger_file import reading

Store = Annotated[Path, typer.Option(help="The control room's store.", file_okay=False)]
Keys = Annotated[Path, typer.Option("--keys", help="The control room's key folder.", exists=True, file_okay=False)]
_TAKEN_SECONDS = 60.0
_out = Console(soft_wrap=True, highlight=False)
app = typer.Typer(help="Orders and reference pictures: take in, list.", no_args_is_help=True)


@app.command()
def add(
    order: Annotated[Path, typer.Argument(help="order.json, as the authorities signed it.", exists=True)],
    dossier: Annotated[Path, typer.Argument(help="The sealed pictures, made by 'bluelamp-provision dossier'.",
                                            exists=True, dir_okay=False)],
    folder: Keys,
    store: Store,
) -> None:  # fmt: skip
    """Verify a deployment's order and its references' pictures, and take both in. A later dossier replaces them.

    The order needs the roster's quorum of signatures; the dossier must be for this room and this deployment. While
    'serve' runs, the files are handed to it.

    Example: bluelamp-control deployment add order.json HIGH-ST-1.dossier --keys room --store room-store
    """
    opened = keys.load(folder)
    taken = dossiers.verify(order, dossier, opened, store)
    if dossiers.is_served(store):
        dossiers.wait_taken(dossiers.lay_down(order, dossier, taken, store), _TAKEN_SECONDS)
    else:
        with closing(Ledger(store)) as ledger:
            dossiers.take_in(ledger, taken, opened, store, Audit(store / "audit.log", opened.signer))
    manifest = taken.dossier.manifest
    what = f"{len(taken.dossier.pictures)} pictures of {len(manifest.references)} references"
    what += f", {len(manifest.decoys)} decoy pairs"
    name, until = taken.order.deployment, utc(taken.order.not_after)
    _out.print(f"{name}: dossier version {manifest.version} with {what}; until {until}")


@app.command("list")
def show(store: Store, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Name every deployment that was taken in, whether 'serve' runs or not."""
    with closing(reading(store)) as db:
        found = deployment_rows.deployments(db)
    if as_json:
        print(json.dumps([d.model_dump() for d in found]))
        return
    table = Table("deployment", "place", "window", "units", "judged by", "pictures", "deletion receipt")
    for one in found:
        order = one.order
        table.add_row(
            order.deployment, order.place.name, f"{utc(order.not_before)}\n{utc(order.not_after)}",
            ", ".join(u.unit for u in order.lists), str(order.adjudicators), str(one.references),
            one.receipt[:12] if one.receipt else "none yet",
        )  # fmt: skip
    _out.print(table)


def mount(main: typer.Typer) -> None:
    """Put these commands under `deployment` of a command line."""
    main.add_typer(app, name="deployment")
