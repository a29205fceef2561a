"""`bluelamp-control`: the control room's commands."""

from __future__ import annotations

import signal
from pathlib import Path

import typer
from rich.console import Console

from appliance.command_line import run_app
from appliance.transport.mqtt import BrokerAddress
from appliance.trust.cli import keys_app
from control.broker import broker as broker_commands
from control.deployments import cli as deployment_cli
from control.outside import schemas
from control.people import cli as people_cli
from control.receive import recalls
from control.receive.tail import Tail, Until, tail_json, tail_table
from control.service import ledger_cli, serve_cli

_PIPE_WIDTH = 160  # columns where there is no terminal to ask
app = typer.Typer(
    help="The control room: receive alerts, let people judge them, keep the record.",
    epilog="First time here: 'keys request' makes keys and a request for the base, 'keys admit' installs its answer, "
    "'deployment add' takes in an order with its pictures, then 'serve'. Exit codes: 0 done, 1 failed, 2 wrong usage, "
    "5 seal, order or dossier, 6 keys, 9 what was waited for did not come, 10 broker, 11 ledger, 12 accounts.",
    no_args_is_help=True,
    add_completion=False,
)
app.add_typer(keys_app("control"), name="keys")
app.add_typer(broker_commands.app, name="broker")
for commands in (serve_cli, people_cli, deployment_cli, ledger_cli, schemas):
    commands.mount(app)


@app.command()
def tail(
    keys: Path = typer.Option(..., help="The control room's key folder.", exists=True, file_okay=False),
    broker: str = typer.Option(..., help="HOST:PORT of the broker, as its certificate names it."),
    json: bool = typer.Option(False, "--json", help="One JSON line for each alert (without its picture)."),
    count: int | None = typer.Option(None, min=1, help="End after so many alerts."),
    seconds: float | None = typer.Option(None, min=0.1, help="End after so many seconds; with --count: fail then."),
    session: str = typer.Option("tail", help="Name of this screen's session: two screens need two names."),
) -> None:
    """Show alerts as they arrive: verified, opened, and how long they took from the camera.

    The broker keeps alerts for this session while it is away, for two days. What does not verify is refused, counted
    and said; nothing is saved.

    Example: bluelamp-control tail --keys control-keys --broker broker.example:8883
    """
    watching = Tail(keys, BrokerAddress.parse(broker), Until(count, seconds), session=session)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: watching.subscriber.stop())
    if json:
        tail_json(watching)
    else:
        console = Console()
        tail_table(watching, console if console.is_terminal else Console(width=_PIPE_WIDTH))


@app.command()
def recall(
    file: Path = typer.Argument(help="recall.json, as an authority signed it.", exists=True, dir_okay=False),
    keys: Path = typer.Option(..., help="The control room's key folder.", exists=True, file_okay=False),
    broker: str = typer.Option(..., help="HOST:PORT of the broker, as its certificate names it."),
) -> None:
    """Pass a signed recall on to its unit, which ends the deployment and erases it. The broker keeps it two days.

    Example: bluelamp-control recall recall.json --keys control-keys --broker broker.example:8883
    """
    sent = recalls.publish(file, keys, BrokerAddress.parse(broker))
    typer.echo(f"recall of {sent.deployment} handed to the broker for {sent.unit}; wait for its deletion receipt")


def main() -> None:
    """Entry point."""
    run_app(app)


if __name__ == "__main__":
    main()
