"""``python -m models.training``: one command line for the embedder's and the detector's recipes."""

from __future__ import annotations

import importlib
import importlib.util

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


if __name__ == "__main__":
    app()
