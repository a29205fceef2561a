"""`bluelamp-provision canary`: a kit with which a unit proves that it keeps nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from appliance.attest import needles as attest_needles
from appliance.recognition import packs
from appliance.times import utc
from provisioning.base import open_base
from provisioning.enrolment.enrol_cli import BaseFolder, Detector, Embedder
from provisioning.lists.canary import Wanted, make
from provisioning.lists.issue_cli import rate

_out, _err = Console(soft_wrap=True, highlight=False), Console(stderr=True, soft_wrap=True, highlight=False)


def canary(
    base: BaseFolder,
    unit: Annotated[str, typer.Option(help="Unit to seal the kit's list to.")],
    out: Annotated[Path, typer.Option(help="Folder for the kit; carry it to the unit as a whole.")],
    clip: Annotated[Path, typer.Option(help="A recording; its faces must be synthetic or of volunteers.")] = Path(
        "demo/assets/street.mp4"
    ),
    portraits: Annotated[
        Path, typer.Option(help="CSV or folder: portraits of some of the clip's faces, not of all.")
    ] = Path("demo/assets/watchlist.csv"),
    smallest_face: Annotated[float, typer.Option(help="Width in pixels of the smallest face to compare.")] = 36.0,
    hours: Annotated[float, typer.Option(help="How long the kit may be used.")] = 12.0,
    threshold: Annotated[float | None, typer.Option(help="Comparison score that makes an alert.")] = None,
    fpir: Annotated[str, typer.Option(help="Or a rate: the calibrated threshold for this size.")] = "1/1000",
    moments: Annotated[
        int, typer.Option(min=1, max=1000, help="Compared faces of each passer-by that needles are cut from.")
    ] = attest_needles.FACES,
    detector: Detector = "lamp-detector",
    embedder: Embedder = "lamp-embedder",
) -> None:
    """Make a canary kit for a unit; there, `bluelamp-unit attest KIT` runs it and searches for what may be left.

    The defaults are the demo's street and portraits, in a checkout of the project: people who do not exist. The needles
    are bytes as this machine computes them: make the kit on the same kind of processor as the unit's, or let the unit
    make them again (`attest --derive`).
    """
    wanted = Wanted(
        clip, portraits, packs.load(detector), packs.load(embedder), smallest_face, hours, threshold,
        None if threshold is not None else rate(fpir), moments,
    )  # fmt: skip
    kit = make(open_base(base), unit, wanted, out, lambda line: _err.print(line, markup=False))
    matched = sum(c.matched for c in kit.tracks)
    count = sum(len(c.needles) for c in kit.canaries)
    _out.print(
        f"{out}: kit {kit.deployment} for {unit}, until {utc(kit.not_after)}: {len(kit.tracks)} faces walk past, "
        f"{matched} match, {len(kit.tracks) - matched} do not; {count} needles", markup=False
    )  # fmt: skip
