"""`bluelamp-unit vision`, `courier`, `keeper`, `dark`, and `run`, which is all of them under one command."""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from appliance import config as configs
from appliance.confine.beacon import open_beacon
from appliance.courier.server import run_courier
from appliance.courier.settings import courier_settings
from appliance.deployment import layout
from appliance.errors import CaptureError, CourierError
from appliance.keeper.keeper import IDLE_SECONDS, Desk, keeper_of
from appliance.services.supervise import Supervisor, summary_of
from appliance.sockets import link
from appliance.sockets.listen import Gate

Config = Annotated[
    Path, typer.Option("--config", "-c", envvar="BLUELAMP_CONFIG", help="The unit's configuration (TOML).")
]
Json = Annotated[bool, typer.Option("--json", help="Print one line of JSON instead of text.")]
_out, _err = Console(), Console(stderr=True, soft_wrap=True, highlight=False)


def say(line: str) -> None:
    """One line for the operator, on stderr, so that --json stays clean."""
    _err.print(line, markup=False)


def run(
    config: Config = Path("unit.toml"),
    courier: Annotated[
        bool, typer.Option(help="Start the courier too; --no-courier where a service already runs it.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Scan until the cameras end, the window ends, or Ctrl-C: vision, courier and keeper, each its own part.

    Prints counts only: frames, faces, tracks, alerts. Alerts themselves go sealed to the control room.
    """
    settings = configs.load(config)
    layout.prepare_state(settings)
    supervisor = Supervisor(settings, config, say, with_courier=courier)
    _on_signals(supervisor.stop)
    ended = supervisor.run()
    summary = summary_of(ended)
    if summary:
        _report(summary, as_json)
    if ended.code:
        raise typer.Exit(ended.code)


def vision(
    config: Config = Path("unit.toml"),
    as_json: Json = False,
    leashed: Annotated[bool, typer.Option("--leash", hidden=True, help="End when standard input closes.")] = False,
) -> None:
    """Scan (a process of its own: cameras and watchlist, but no network and nothing it may write).

    It needs a courier and, under an order, a keeper beside it: as services, or by `run`.
    """
    from appliance.vision.shift import Shift  # heavy, and nobody else's: the models' runtimes, and the cameras'

    settings = configs.load(config)
    shift = Shift(settings, say, leashed)
    _on_signals(shift.stop)
    summary = shift.run()
    _report(asdict(summary), as_json)
    if shift.undelivered:
        raise CourierError(
            f"{shift.undelivered} alert(s) could not be handed to the courier; look at its messages above"
        )
    if summary.failed_cameras:
        raise CaptureError(f"camera {', '.join(summary.failed_cameras)} failed; see the message above")


def courier(config: Config = Path("unit.toml")) -> None:
    """Store and forward sealed alerts (a process of its own: it has the network, but no camera and no key)."""
    settings = configs.load(config)
    link.make_folder(settings.unit.courier_folder)
    logging.basicConfig(level=logging.INFO, format="courier: %(message)s", stream=sys.stderr)
    stop = threading.Event()
    _on_signals(stop.set)
    run_courier(courier_settings(settings), stop=stop)


def keeper(
    config: Config = Path("unit.toml"),
    once: Annotated[bool, typer.Option("--once", help="Judge, hand over waiting receipts, and end.")] = False,
    activated: Annotated[
        bool, typer.Option("--socket-activated", help="Serve the socket systemd passed, until nobody asks any more.")
    ] = False,
) -> None:
    """End deployments that are over: destroy key and list, log it, write the receipt. No network, no camera.

    Without an option it serves its socket until it is stopped.
    """
    settings = configs.load(config)
    keeping = keeper_of(settings, say)
    if once:
        keeping.judge()
        keeping.hand_over()
        return
    desk = Desk(keeping, Gate(layout.keeper_path(settings), layout.socket_mode(settings)))
    _on_signals(desk.stop)
    desk.serve(IDLE_SECONDS if activated else None)
    desk.stop()


def dark(config: Config = Path("unit.toml")) -> None:
    """Put the beacon out: for a service's ExecStopPost, after a vision process that was killed."""
    open_beacon(configs.load(config).beacon, say)


def _on_signals(stop: Callable[[], object]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop())


def _report(summary: Mapping[str, object], as_json: bool) -> None:
    if as_json:
        print(json.dumps(summary))
        return
    if summary["stopped"]:
        say(f"stopped: {summary['stopped']}")
    _out.print(
        f"{summary['frames']} frames ({summary['dropped']} dropped), {summary['faces']} faces, {summary['tracks']} "
        f"tracks, {summary['alerts']} alerts in {summary['seconds']:.1f} s"
    )


def mount(app: typer.Typer) -> None:
    """Add the unit's processes to its command line."""
    for command in (run, vision, courier, keeper, dark):
        app.command(command.__name__)(command)
