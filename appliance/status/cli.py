"""`bluelamp-unit status`: the unit at a glance, live in a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from appliance import config as configs
from appliance.check.machine import HOT
from appliance.check.order import span
from appliance.rates import Share
from appliance.records import Health
from appliance.status.status import STALE_SECONDS, Status, look
from appliance.times import utc

Config = Annotated[
    Path, typer.Option("--config", "-c", envvar="BLUELAMP_CONFIG", help="The unit's configuration (TOML).")
]
# A word and a shape for each, so that colour is never all there is.
_MODES = {
    "scanning": ("●", "SCANNING", "bold green"),
    "rehearsing": ("●", "REHEARSING on recorded material", "bold cyan"),
    "paused": ("‖", "ARMED, scanning is paused", "bold yellow"),
    "armed": ("◐", "ARMED, but nothing scans", "bold yellow"),
    "not armed": ("○", "NOT ARMED", "bold"),
}
_LIT = {"lit": "● lit", "dark": "○ dark", "none": "none is configured"}


def status(
    config: Config = Path("unit.toml"),
    once: Annotated[bool, typer.Option("--once", help="Print it once and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it once as one line of JSON.")] = False,
    seconds: Annotated[float, typer.Option(min=0.5, max=60, help="How often it looks again.")] = 2.0,
) -> None:
    """Armed or not and for how long still, cameras, counts, live TPIR and FPIR, courier, beacon; live, until Ctrl-C.

    Where the output is no terminal, it is printed once. Counts only: nothing shown here identifies anybody.
    Works when nothing runs, too, and says so.
    """
    settings = configs.load(config)
    if as_json:
        print(look(settings).model_dump_json())
        return
    console = Console(highlight=False)
    if once or not console.is_terminal:
        console.print(screen(look(settings)))
        return
    try:
        with Live(screen(look(settings)), console=console, screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(seconds)
                live.update(screen(look(settings)), refresh=True)
    except KeyboardInterrupt:
        return


def screen(now: Status) -> RenderableType:
    """The whole screen."""
    shape, word, style = _MODES[now.mode]
    left = f", {span(now.left)} left" if now.left and now.mode != "not armed" else ""
    head = Text.assemble((f"{shape} {word}{left}", style), f"    {utc(now.time)}")
    parts: list[RenderableType] = [head, Text(), _rows(_deployment(now))]
    if now.vision is not None:
        parts += [Text(), _cameras(now.vision), Text(), _rows(_counts(now, now.vision))]
    parts += [Text(), _rows(_machine(now))]
    if now.messages:
        parts += [Text(), *(Text(line, style="dim", overflow="ellipsis", no_wrap=True) for line in now.messages)]
    unit = f"Bluelamp, unit {now.vision.unit}" if now.vision is not None else "Bluelamp"
    return Panel(Group(*parts), title=unit, border_style=style.replace("bold", "").strip() or "white", padding=(1, 2))


def _rows(rows: Iterator[tuple[str, RenderableType]]) -> Table:
    table = Table.grid(padding=(0, 3))
    table.add_column(style="dim", min_width=14)
    table.add_column()
    for name, text in rows:
        table.add_row(name, text)
    return table


def _deployment(now: Status) -> Iterator[tuple[str, RenderableType]]:
    yield "deployment", now.deployment or "none: no order, no list in use"
    if now.place is not None:
        yield "place", now.place
    if now.until is not None:
        yield "until", utc(now.until)
    if now.entries is not None:
        yield "list", f"{now.entries} templates" + (f", version {now.version}" if now.version is not None else "")


def _cameras(health: Health) -> Table:
    table = Table("camera", "", "frames/s", "frames", "dropped", "", box=None, padding=(0, 3, 0, 0), header_style="dim")
    for camera in health.cameras:
        shape, style = ("●", "green") if camera.state == "running" else ("▲", "yellow")
        table.add_row(camera.name, Text(f"{shape} {camera.state}", style=style), f"{camera.fps:.1f}",
                      str(camera.frames), str(camera.dropped), camera.message)  # fmt: skip
    return table


def _counts(now: Status, health: Health) -> Iterator[tuple[str, RenderableType]]:
    yield "seen", f"{health.faces} faces in {health.tracks} tracks"
    yield "alerts", f"{health.alerts}, of these adjudicated as false: {health.false_alerts}"
    if now.tpir is not None and now.fpir is not None:
        yield "TPIR, live", told(now.tpir, "passes of the blue list") if now.tpir.of else "no blue-list pass logged yet"
        yield "FPIR, live", told(now.fpir, "tracks")


def told(part: Share, what: str) -> str:
    """A share with its interval: 9 of 10 passes of the blue list: 90 % (55 to 100)."""
    digits = 0 if part.share >= 0.01 or not part.count else 3
    limits = f"{part.low * 100:.{digits}f} to {part.high * 100:.{max(digits, 2 if part.high < 0.01 else 0)}f}"
    return f"{part.count} of {part.of} {what}: {part.share * 100:.{digits}f} % ({limits})"


def _machine(now: Status) -> Iterator[tuple[str, RenderableType]]:
    health = now.vision
    yield "vision", _age(now, health) if health else Text("○ is not running", style="yellow")
    if now.courier is None:
        yield "courier", Text("○ is not running", style="yellow")
    else:
        yield "courier", f"● running, {now.courier.queued} sealed alert(s) wait"
        yield (
            "broker",
            Text("● connected", style="green")
            if now.courier.broker
            else (Text("▲ not connected; alerts wait on this unit", style="yellow")),
        )
    if health is not None:
        burns = health.beacon == "lit" or health.beacon == "none"
        yield "beacon", Text(_LIT[health.beacon], style="" if burns else "yellow")
    if now.temperature is not None:
        hot = now.temperature >= HOT
        yield "temperature", Text(f"{'▲ ' if hot else ''}{now.temperature:.0f} C", style="yellow" if hot else "")
    if health is not None:
        yield "memory", f"{health.resident_bytes / 1e6:.0f} MB"
        yield "sandbox", "; ".join(health.sandbox) or Text("▲ none", style="yellow")


def _age(now: Status, health: Health) -> Text:
    old = now.time - health.time
    text = f"● running for {span(health.uptime)}"
    return Text(f"▲ last heard of {span(old)} ago", style="yellow") if old > STALE_SECONDS else Text(text)


def mount(app: typer.Typer) -> None:
    """Add the command to the unit's command line."""
    app.command("status")(status)
