"""``python -m models.training``: one command line for the embedder's and the detector's recipes."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Train, export and measure the project's model packs.", no_args_is_help=True, add_completion=False
)

_COMMANDS = {"embedder": "models.training.embedder_cli", "detector": "models.training.detector_cli"}
for _name, _module in _COMMANDS.items():
    if importlib.util.find_spec(_module) is not None:
        app.add_typer(importlib.import_module(_module).app, name=_name)


@app.callback()
def _recipes() -> None:
    """Keep sub-commands named even while only one recipe is installed."""


@app.command()
def fairface(
    folder: Annotated[Path, typer.Argument(help="Where pictures and faces.csv go.")],
    part: Annotated[str, typer.Option(help="val, which nobody trains on, or train.")] = "val",
    step: Annotated[int, typer.Option(help="Take every n-th face.")] = 1,
) -> None:
    """Write FairFace's faces with their labels, as `bluelamp-provision evaluate --data FOLDER/faces.csv` reads them."""
    from models.training.fairface import unpack

    typer.echo(f"table: {unpack(part, folder, step)}")


if __name__ == "__main__":
    app()
