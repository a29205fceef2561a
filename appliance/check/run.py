"""`bluelamp-unit check`: is everything there that scanning needs? A line each, in the order it will be needed.

Nothing is scanned, compared or kept: each camera is looked at for its size, focus and light, and let go.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from appliance.check import machine as check_machine
from appliance.check import order as check_order
from appliance.check.line import Line, tried
from appliance.config import UnitConfig
from appliance.deployment import files as deployment
from appliance.deployment import layout
from appliance.formats.watchlist import Watchlist
from appliance.sockets import health as figures
from appliance.times import utc
from appliance.trust import keys
from appliance.vision import unit


def check(config: UnitConfig) -> Iterator[Line]:
    """Try everything without scanning; later lines that need an earlier one that failed are left out."""
    folder, line = tried("keys", lambda: keys.load(config.unit.keys), _name)
    yield line
    networks, line = tried("models", lambda: unit.open_networks(config), lambda _: "digests and golden records")
    yield line
    if folder is not None and networks is not None:
        content, line = tried(
            "watchlist", lambda: deployment.open_list(config.unit.watchlist, folder, networks.models, time.time()),
            _list,
        )  # fmt: skip
        yield line
        yield from check_order.lines(config, folder, networks.packs, content)
        if content is not None:
            content.erase()
    running = figures.ask(layout.figures_path(config))
    yield from check_machine.lines(config, networks.detector if networks is not None else None, running)


def _name(folder: keys.KeyFolder) -> str:
    return f"unit {folder.identity.name}, roster version {folder.roster.version}"


def _list(content: Watchlist) -> str:
    return f"{len(content.manifest.entries)} templates, until {utc(content.manifest.not_after)}"
