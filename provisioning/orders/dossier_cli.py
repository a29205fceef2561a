"""`bluelamp-provision dossier`: the reference pictures of a deployment, sealed for the control room."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from appliance.recognition import packs
from appliance.times import utc
from provisioning.base import open_base
from provisioning.enrolment.enrol_cli import BaseFolder, Detector, Json
from provisioning.orders import dossier

_out = Console(soft_wrap=True, highlight=False)


def make(
    base: BaseFolder,
    deployment: Annotated[str, typer.Option(help="Deployment whose issued lists it is about.")],
    control: Annotated[str, typer.Option(help="Name of the control room on the roster.")],
    out: Annotated[Path, typer.Option(help="The sealed file.")],
    decoys: Annotated[
        Path | None,
        typer.Option(
            help="Folder of pairs NAME-probe.jpg, NAME-reference.jpg: two people who are not the same and consented.",
            exists=True, file_okay=False,
        ),
    ] = None,
    detector: Detector = "lamp-detector",
    as_json: Json = False,
) -> None:  # fmt: skip
    """Seal one picture of each reference on a deployment's newest lists for the control room, which shows it beside
    the probe. Made again, it is the next version: whoever was erased here is deleted there.

    Example: bluelamp-provision dossier base --deployment HIGH-ST-1 --control control-1 --out HIGH-ST-1.dossier
    """
    made = dossier.make(open_base(base), deployment, control, out, packs.load(detector), decoys)
    if as_json:
        print(made.model_dump_json())
        return
    _out.print(f"{out}: version {made.version}, {made.references} references, {made.decoys} decoy pairs, for "
               f"{made.control}; its deployment ends {utc(made.not_after)}")  # fmt: skip
    if made.without_picture:
        _out.print(f"note: {made.without_picture} of them have no picture here: their alerts cannot be judged by eye")
