"""Where the unit's processes find each other: sockets, the courier's folder, the files of a deployment.

Nothing heavy is imported here: courier, keeper and supervisor load neither a network nor a camera.
"""

from __future__ import annotations

import logging
import pwd
from collections.abc import Iterable
from pathlib import Path

from appliance.config import UnitConfig
from appliance.deployment import place
from appliance.deployment.site import Site
from appliance.sockets.link import make_folder


def socket_path(config: UnitConfig) -> Path:
    """Where the courier listens."""
    return config.unit.sockets / "courier.sock"


def keeper_path(config: UnitConfig) -> Path:
    """Where the keeper listens."""
    return config.unit.sockets / "keeper.sock"


def figures_path(config: UnitConfig) -> Path:
    """Where vision shows its newest figures."""
    return config.unit.sockets / "vision.sock"


def site_of(config: UnitConfig, position: str | None = None) -> Site | None:
    """The files of the deployment, where the config names an order. `position` replaces the configured source."""
    part = config.unit
    if part.order is None:
        return None
    named = position or part.position
    source = place.source_of(named) if named else None
    return Site(part.keys, part.watchlist, part.order, part.state, source, part.courier_folder)


def prepare_state(config: UnitConfig) -> None:
    """Make the folders of state, courier and sockets where they are not there yet, private to this user."""
    for folder in (config.unit.state, config.unit.courier_folder, config.unit.sockets):
        if not folder.exists():
            make_folder(folder)


def socket_mode(config: UnitConfig) -> int:
    """Who may open a socket we make: its owner, and its group where the processes are several users."""
    return 0o660 if config.unit.users else 0o600


def uids(users: Iterable[str]) -> list[int]:
    """The numbers of system users; a name that this machine does not know is said and left out."""
    found = []
    for name in users:
        try:
            found.append(pwd.getpwnam(name).pw_uid)
        except KeyError:
            logging.getLogger("bluelamp").warning("no user %s on this machine; 'users' under [unit] names it", name)
    return found
