"""`bluelamp-unit arm`, `disarm`, `order`, `passes`: what the field team does on the van."""

from __future__ import annotations

import getpass
import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from appliance import config as configs
from appliance.config import UnitConfig
from appliance.deployment import files as deployment
from appliance.deployment import layout
from appliance.deployment.arming import Confirmed, Step
from appliance.deployment.blue_list import Pressed, PressLog
from appliance.deployment.files import Recognisers
from appliance.deployment.site import Site
from appliance.errors import ConfigError
from appliance.formats import order
from appliance.formats.order import Order, OrderError
from appliance.formats.order_table import print_order
from appliance.keeper.keeper import Keeper, keeper_of
from appliance.limits import LIMITS
from appliance.recognition import packs
from appliance.sockets.ending import NoKeeperError, Over, ask
from appliance.storage.files import read_bounded, read_json
from appliance.trust import keys

Config = Annotated[
    Path, typer.Option("--config", "-c", envvar="BLUELAMP_CONFIG", help="The unit's configuration (TOML).")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
_out = Console(soft_wrap=True, highlight=False)


def site_of(settings: UnitConfig, position: str | None = None) -> Site:
    """The files of a unit's configuration. Raises ConfigError where it names no order."""
    site = layout.site_of(settings, position)
    if site is None:
        raise ConfigError("the configuration names no order; set 'order' under [unit]: without one nothing is armed")
    return site


def recognisers_of(settings: UnitConfig) -> Recognisers:
    """The packs of a unit's configuration. Raises PackError."""
    return Recognisers(packs.load(settings.models.detector), packs.load(settings.models.embedder))


def arm(
    config: Config = Path("unit.toml"),
    yes: Annotated[
        Path | None, typer.Option("--yes", help='A JSON file of confirmations made elsewhere: {"item": "who"}.')
    ] = None,
    by: Annotated[str | None, typer.Option(help="Who confirms; your user name if not given.")] = None,
    position: Annotated[
        str | None, typer.Option(help="gpsd, gpsd://host:port, or a JSON file with a position.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Walk through the signage checklist, check the order step by step, and arm. Nothing scans before this."""
    settings = configs.load(config)
    site, used = site_of(settings, position), recognisers_of(settings)
    folder = keys.load(site.key_folder)
    current = order.read(read_bounded(site.order, LIMITS.config_bytes), folder.roster.authority_keys(),
                         folder.roster.quorum)  # fmt: skip
    name = by or getpass.getuser()
    signage = _from_file(yes) if yes else _asked(current, name, folder, site)
    _, steps = deployment.examine(site, folder, used, signage)
    if as_json:
        print(json.dumps([{"step": s.number, "title": s.title, "refusal": s.refusal} for s in steps]))
    else:
        _show_steps(steps)
    record = deployment.arm(site, folder, used, signage, name)
    if not as_json:
        _out.print(f"armed for {record.deployment}; disarm at any moment with: bluelamp-unit disarm", style="green")


def disarm(config: Config = Path("unit.toml")) -> None:
    """Stop scanning now and erase the deployment. Anybody on the van may; nobody is asked why."""
    settings = configs.load(config)
    keeping = keeper_of(settings, _out.print)
    site = keeping.site
    with suppress(PermissionError):  # the state is the keeper's alone: it is asked below
        site.state.mkdir(parents=True, exist_ok=True)
        site.disarm.touch()
    deadline = time.monotonic() + 5
    while site.armed.exists() and time.monotonic() < deadline:
        time.sleep(0.2)  # a running unit sees the file within a second and has the deployment ended itself
    if site.armed.exists():
        _end(settings, keeping)
    with suppress(PermissionError):
        site.disarm.unlink(missing_ok=True)
    _out.print("disarmed")


def _end(settings: UnitConfig, keeping: Keeper) -> None:
    """By the keeper that serves its socket, else here and now. Raises BluelampError."""
    try:
        ask(layout.keeper_path(settings), Over(reason="disarmed"))
    except NoKeeperError:
        keeping.judge(0.0)
        keeping.hand_over()


def show_order(config: Config = Path("unit.toml"), as_json: Json = False) -> None:
    """The deployment order as people read it."""
    settings = configs.load(config)
    site = site_of(settings)
    folder = keys.load(site.key_folder)
    rows = order.shown(read_bounded(site.order, LIMITS.config_bytes), folder.roster)
    if as_json:
        print(json.dumps(rows))
        return
    print_order(rows)


def passes(config: Config = Path("unit.toml")) -> None:
    """Log volunteers of the blue list with one key press: Enter = a volunteer passes, f Enter = an alert was false."""
    settings = configs.load(config)
    log = PressLog(settings.unit.state / "passes.jsonl")
    _out.print("Enter: a volunteer passes now.  f Enter: an alert was adjudicated as false.  q Enter: done.")
    count = 0
    while (key := input().strip().lower()) != "q":
        log.add(Pressed(time=time.time(), mark="false" if key == "f" else "passed"))
        count += 1
        _out.print(f"{count} logged")


def _show_steps(steps: list[Step]) -> None:
    table = Table("step", "what", "demanded by", "")
    for step in steps:
        result = f"[red]{step.refusal}" if step.refusal else "[green]passed"
        table.add_row(str(step.number), step.title, step.source, result)
    _out.print(table)


def _asked(current: Order, by: str, folder: keys.KeyFolder, site: Site) -> dict[str, Confirmed]:
    print_order(order.shown(read_bounded(site.order, LIMITS.config_bytes), folder.roster))
    _out.print(f"False alerts to expect: {current.projected_alerts:.2f}", style="bold")
    signage = {}
    for item in current.signage:
        if not typer.confirm(f"{item}?", default=False):
            raise OrderError(f"not armed: signage not confirmed: {item}; put it right and arm again")
        signage[item] = Confirmed(item=item, at=time.time(), by=by)
    return signage


def _from_file(path: Path) -> dict[str, Confirmed]:
    data = read_json(path, 'write {"item of the checklist": "who confirmed it"}')
    if not isinstance(data, dict) or not all(isinstance(v, str) for v in data.values()):
        raise ConfigError(f'{path}: write {{"item of the checklist": "who confirmed it"}}')
    return {item: Confirmed(item=item, at=time.time(), by=who[:128]) for item, who in data.items()}


def mount(app: typer.Typer) -> None:
    """Add the field team's commands to the unit's command line."""
    app.command("arm")(arm)
    app.command("disarm")(disarm)
    app.command("order")(show_order)
    app.command("passes")(passes)
