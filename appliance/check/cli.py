"""`bluelamp-unit check` on the screen: a shape, a word and a line each, to be read at night by people in a van."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from appliance import config as configs
from appliance.check.line import Line
from appliance.check.run import check

Config = Annotated[
    Path, typer.Option("--config", "-c", envvar="BLUELAMP_CONFIG", help="The unit's configuration (TOML).")
]
Json = Annotated[bool, typer.Option("--json", help="Print one line of JSON instead of text.")]
# Told apart by word, shape and colour: a red lamp in the cab, or eyes that do not see red, must not hide a STOP.
_MARKS = {"ok": ("ok✔", "green"), "look": ("look▲", "yellow"), "stop": ("STOP✘", "bold red")}


def check_command(config: Config = Path("unit.toml"), as_json: Json = False) -> None:
    """Is everything there that scanning needs? A line each: what was found, or what to do. Scans nothing.

    ok: it is there. look: it works, but see to it. STOP: nothing is scanned before this is put right; exit code 1.
    Cameras are looked at for a second, for size, focus and light; nothing of it is compared or kept.
    """
    lines, out = [], Console(highlight=False)
    for line in check(configs.load(config)):
        lines.append(line)
        if not as_json:
            out.print(shown(line), soft_wrap=True)
    if as_json:
        print(json.dumps([asdict(line) for line in lines]))
    else:
        Console(stderr=True, highlight=False, soft_wrap=True).print(verdict(lines), style="bold")
    if not all(line.good for line in lines):
        raise typer.Exit(1)


def shown(line: Line) -> Text:
    """One finding as it is printed."""
    mark, style = _MARKS["look" if line.good and line.look else "ok" if line.good else "stop"]
    return Text.assemble((f"{mark:<7}", style), (f"{line.name:<18} ", "bold"), line.text)


def verdict(lines: Sequence[Line]) -> str:
    """What to do now, in one line."""
    stops = [line.name for line in lines if not line.good]
    looks = [line.name for line in lines if line.good and line.look and line.name != "armed"]
    if stops:
        return f"Not ready. Put right, from the top: {', '.join(stops)}."
    if any(line.name == "armed" and line.look for line in lines):
        more = f" Look at: {', '.join(looks)}." if looks else ""
        return f"Nothing stands in the way. Next: bluelamp-unit arm.{more}"
    return f"Ready, with {len(looks)} to look at: {', '.join(looks)}." if looks else "Ready."


def mount(app: typer.Typer) -> None:
    """Add the command to the unit's command line."""
    app.command("check")(check_command)
