"""`bluelamp-unit view`: point the cameras with a live picture without faces, on the unit's own screen."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from appliance import config as configs
from appliance.camera_kinds import kind_of
from appliance.capture.light import words
from appliance.check.order import span
from appliance.config import UnitConfig
from appliance.confine.sandbox import Sandbox, devices
from appliance.deployment import layout
from appliance.errors import ConfigError
from appliance.sockets import health as figures
from appliance.view.aim import Wanted
from appliance.view.feed import Feed, Sight, ViewError

_MOST_MINUTES = 60.0
_SCAN_SECONDS = 2.0  # how often vision is asked whether it scans
_WIDE = 40  # characters of the drawn bar

Config = Annotated[
    Path, typer.Option("--config", "-c", envvar="BLUELAMP_CONFIG", help="The unit's configuration (TOML).")
]


def view(
    config: Config = Path("unit.toml"),
    camera: Annotated[list[str] | None, typer.Option(help="Only this camera; may be given again. All if not.")] = None,
    terminal: Annotated[bool, typer.Option("--terminal", help="Words and figures only, where there is no browser.")] = (
        False
    ),
    address: Annotated[str, typer.Option(help="A loopback address of this unit; others are refused.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 0,
    minutes: Annotated[float, typer.Option(min=0.1, max=_MOST_MINUTES, help="It ends by itself after these.")] = 15.0,
) -> None:
    """Point the cameras: a live picture on this unit's own screen, and words about why faces are unusable.

    Every face, and whatever might be one, is covered before the picture is made. Nothing is compared, stored or sent,
    and no watchlist is opened: that is why a live camera may be looked at here without a deployment order. The process
    gives up writing files and calling anybody before the first picture, as vision does. It is refused while the unit
    scans, shows one viewer at a time and ends by itself.
    """
    settings = configs.load(config)
    scanning = _scanning(settings)
    refused = scanning()
    if refused is not None:
        raise ViewError(f"{refused}; aim before arming, or end the deployment with: bluelamp-unit disarm")
    err = Console(stderr=True, soft_wrap=True, highlight=False)
    say = partial(err.print, markup=False)
    listener = None if terminal else _listener(address, port)
    given_up = Sandbox(say, settings.sandbox.require)
    given_up.files(devices(any(kind_of(c.source) in ("v4l2", "gstreamer") for c in settings.camera)))
    feed = Feed(settings, camera or (), say)
    given_up.calls(", ".join(f"camera {c.name}" for c in settings.camera if kind_of(c.source) == "rtsp"))
    ends = time.monotonic() + minutes * 60
    if listener is None:
        _in_terminal(feed, ends, scanning, err)
    else:
        _in_browser(feed, listener, ends, scanning, err)
    if feed.failed is not None:
        raise feed.failed


def _listener(address: str, port: int) -> socket.socket:
    """Bound before this process may make no further socket. Raises ConfigError, ViewError."""
    try:
        from appliance.view.server import listen
    except ImportError as error:
        raise ConfigError("the picture needs the extra 'view': pip install 'bluelamp[view]'; or use --terminal") from (
            error
        )
    return listen(address, port)


def _scanning(settings: UnitConfig) -> Callable[[], str | None]:
    """A question that is dear enough not to be asked all the time: does vision scan?"""
    path, due, answer = layout.figures_path(settings), 0.0, None

    def asked() -> str | None:
        nonlocal due, answer
        if time.monotonic() >= due:
            due, health = time.monotonic() + _SCAN_SECONDS, figures.ask(path)
            answer = f"this unit scans for {health.deployment}" if health and health.state == "armed" else None
        return answer

    return asked


def _in_browser(
    feed: Feed, listener: socket.socket, ends: float, scanning: Callable[[], str | None], err: Console
) -> None:
    from appliance.view.server import View  # an extra; _listener said so where it is missing

    with listener:
        page = View(feed, listener, ends)
        err.print(f"open on this unit's own screen, once: [bold]{page.address}[/]")
        err.print("nothing is compared, stored or sent; it ends by itself, or with Ctrl-C")
        feed.start()
        try:
            err.print(page.serve(lambda: scanning() or ("the camera failed" if feed.ended else None)), markup=False)
        finally:
            feed.stop()


def _in_terminal(feed: Feed, ends: float, scanning: Callable[[], str | None], err: Console) -> None:
    feed.start()
    seen = dict.fromkeys(feed.cameras, 0)
    try:
        with Live(Text("waiting for the first picture"), console=Console(), refresh_per_second=4) as live:
            sights: dict[str, Sight] = {}
            while time.monotonic() < ends and not feed.ended and scanning() is None:
                for name in feed.cameras:
                    sight = feed.wait(name, seen[name], 0.5)
                    if sight is not None:
                        sights[name], seen[name] = sight, sight.number
                if sights:
                    live.update(_summary(list(sights.values()), feed, ends - time.monotonic()))
    except KeyboardInterrupt:
        err.print("ended by the field team")
    finally:
        feed.stop()
    why = scanning()
    if why is not None:
        err.print(why)


def _summary(sights: list[Sight], feed: Feed, left: float) -> Group:
    """Every camera's words and figures; below, how long it still runs."""
    parts = [summary(sight, feed.wanted) for sight in sights]
    note = Text(f"nothing is compared, stored or sent; ends in {span(left)}, or with Ctrl-C", style="dim")
    return Group(*parts, note)


def summary(sight: Sight, wanted: Wanted) -> Panel:
    """One camera as text: what to do, a bar of how large faces are against what is wanted, and the figures."""
    share, found = sight.share, sight.scene
    style, mark = ("green", "✔") if sight.verdict.good else ("yellow", "▲")
    lines = [Text(f"{mark} {line}", style=f"bold {style}" if i == 0 else style)
             for i, line in enumerate(sight.verdict.lines)]  # fmt: skip
    table = Table.grid(padding=(0, 2))
    table.add_row("width", bar(share.width, wanted.width), f"{share.width:.0f} of {wanted.width:.0f} px")
    table.add_row("between the eyes", bar(share.interocular, wanted.interocular),
                  f"{share.interocular:.0f} of {wanted.interocular:.0f} px")  # fmt: skip
    table.add_row("usable", bar(share.usable, max(share.seen, 1)), f"{share.usable} of {share.seen} in 30 s")
    table.add_row("light", bar(share.level, 255.0), f"faces {share.level:.0f}, picture {found.level:.0f} of 255")
    table.add_row("focus", "", words(found))
    now = f"{len(sight.spots)} in the picture now"
    return Panel(Group(*lines, Text(), table), title=f"camera {sight.camera}", subtitle=now, border_style=style)


def bar(value: float, whole: float) -> str:
    """A drawn share: what is there, filled, against what is wanted."""
    filled = round(_WIDE * min(value / whole, 1.0)) if whole > 0 else 0
    return "█" * filled + "░" * (_WIDE - filled)


def mount(app: typer.Typer) -> None:
    """Add the command to the unit's command line."""
    app.command("view")(view)
