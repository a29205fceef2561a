"""`bluelamp-unit intake`: take in what a stick or an upload folder holds, and say what became of each file."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from appliance import config as configs
from appliance.deployment import cli as field_cli
from appliance.intake import take_in
from appliance.intake.folder import IntakeError, read_folder
from appliance.intake.take_in import Desk, Verdict
from appliance.trust import keys

Config = Annotated[Path, typer.Option("--config", "-c", envvar="BLUELAMP_CONFIG", help="The unit's configuration.")]
Json = Annotated[bool, typer.Option("--json", help="Print one line of JSON instead of text.")]
_WORDS = {
    "taken": ("taken", "green"), "here": ("here already", "dim"), "other": ("not for this unit", "yellow"),
    "refused": ("not taken", "bold red"),
}  # fmt: skip


def intake_command(
    folder: Annotated[Path, typer.Argument(help="A stick's folder, or the upload folder.")],
    config: Config = Path("unit.toml"),
    as_json: Json = False,
) -> None:
    """Take in watchlist, order, pre-flight, report and roster: each verified first, a line for each.

    Nothing in the folder is changed. While a deployment is armed, only a later version of its list is taken, where its
    order allows one. Exit code 5: at least one file was not taken.
    """
    settings = configs.load(config)
    site, packs = field_cli.site_of(settings), field_cli.recognisers_of(settings)
    delivery = read_folder(folder)
    verdicts, out = [], Console(highlight=False, soft_wrap=True)
    with _alone(site.state):
        for verdict in take_in.take(delivery, Desk(site, keys.load(site.key_folder), packs.models, time.time())):
            verdicts.append(verdict)
            if not as_json:
                out.print(_line(verdict))
    if as_json:
        print(json.dumps({"files": [asdict(v) for v in verdicts], "others": delivery.others}))
    elif not verdicts:
        out.print(f"{folder}: nothing for this unit ({delivery.others} other files)")
    if any(v.outcome == "refused" for v in verdicts):
        raise typer.Exit(IntakeError.exit_code)


def _line(verdict: Verdict) -> Text:
    word, style = _WORDS[verdict.outcome]
    return Text.assemble((word, style), f"  {verdict.name}", f": {verdict.text}" if verdict.text else "")


@contextmanager
def _alone(state: Path) -> Iterator[None]:
    """A stick and an upload at once are taken one after the other. Raises IntakeError."""
    try:
        state.mkdir(parents=True, exist_ok=True)
        file = (state / "intake.lock").open("w")
    except OSError as error:
        raise IntakeError(f"{state}: {error.strerror}; nothing was taken: see to the unit's disk") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def mount(app: typer.Typer) -> None:
    """Add the command to the unit's command line."""
    app.command("intake")(intake_command)
