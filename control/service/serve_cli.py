"""`bluelamp-control serve`: the control room's service."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from appliance.errors import ConfigError
from appliance.transport.mqtt import BrokerAddress
from control.listen import Listen

_SWITCH_SECONDS = 0.0005


def serve(
    keys: Annotated[Path, typer.Option(help="The control room's key folder.", exists=True, file_okay=False)],
    broker: Annotated[str, typer.Option(help="HOST:PORT of the broker, as its certificate names it.")],
    store: Annotated[Path, typer.Option(help="Folder of ledger, accounts and log; keep it on an encrypted disk.")],
    listen: Annotated[str, typer.Option(help="ADDRESS:PORT of the console.")] = "127.0.0.1:8443",
    tls: Annotated[Path | None, typer.Option(help="Folder with server.crt and server.key, as 'bluelamp-provision keys "
                                             "broker' makes them; needed for any address but loopback.")] = None,
    host: Annotated[list[str] | None, typer.Option(help="Further name the console answers to; repeat.")] = None,
    ttl: Annotated[float, typer.Option(min=10, max=86400, help="Seconds an alert may be acted on.")] = 600.0,
    decoys_per_hour: Annotated[float, typer.Option(min=0, max=60, help="Decoys shown, on average; they come with the "
                                                   "dossier.")] = 0.0,
    decoy_seed: Annotated[int | None, typer.Option(help="Seed of their schedule, to repeat it.")] = None,
    metrics: Annotated[str | None, typer.Option(help="ADDRESS:PORT for Prometheus, on loopback only.")] = None,
    bridge: Annotated[str | None, typer.Option(help="HOST:PORT of a local MQTT broker of another system, which is told "
                                               "of counts and states: no face, no identifier.")] = None,
) -> None:  # fmt: skip
    """Receive alerts, keep them encrypted, show them to staff in their browsers, and forget them in time.

    An alert is acknowledged to the broker once it is on disk; while this is not running the broker keeps alerts for two
    days. At the first start it prints a one-time token: its holder becomes the first supervisor at /welcome.

    Example: bluelamp-control serve --keys room --broker broker.example:8883 --store room-store
    """
    try:  # the console's libraries are an extra, which the other commands do without
        from control.deployments.decoys import Rate
        from control.service.service import Service, ServiceSettings
    except ImportError as error:
        raise ConfigError("the service needs the extra 'control': pip install 'bluelamp[control]'") from error
    settings = ServiceSettings(
        keys=keys, broker=BrokerAddress.parse(broker), store=store, listen=Listen.parse(listen), tls=tls, ttl=ttl,
        decoys=Rate(decoys_per_hour, decoy_seed), metrics=Listen.parse(metrics) if metrics else None,
        bridge=Listen.parse(bridge) if bridge else None, hosts=tuple(host or ()),
    )  # fmt: skip
    # Python's 5 ms make the thread that receives wait for those that answer browsers, at every step of an alert.
    sys.setswitchinterval(_SWITCH_SECONDS)
    service = Service(settings, _say)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: service.stop())
    service.run()


def _say(line: str) -> None:
    """Some of it was chosen by whoever sent a message: nothing in it may move the terminal's cursor."""
    print("".join(c if c.isprintable() else "?" for c in line), file=sys.stderr, flush=True)


def mount(app: typer.Typer) -> None:
    """Put this command into a command line."""
    app.command()(serve)
