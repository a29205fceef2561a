"""The keeper: the one process that may destroy a deployment's key. No network, no camera, and it lives for seconds.

    client -> keeper   u32 length | JSON Over      the deployment is over: why, and vision's counts
    keeper -> client   u32 length | JSON Answer    once key, list and arming are gone and the receipt is on disk

One connection is one record and one answer. The kernel says who asks. Besides that it judges by itself (`once`, every
minute by a timer): the end of a window does not depend on vision being alive. Receipts go to the courier's socket, and
lie beside their signed form until a courier has taken them.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from appliance.config import UnitConfig
from appliance.deployment import layout
from appliance.deployment.arming import Armed
from appliance.deployment.site import Site, due, read_armed
from appliance.errors import BluelampError, ConfigError, CourierError
from appliance.keeper.erasure import SEALED
from appliance.keeper.finish import finish
from appliance.limits import LIMITS
from appliance.sockets import link
from appliance.sockets.ending import Answer, KeeperError, Over
from appliance.sockets.link import CourierLink
from appliance.sockets.listen import Gate
from appliance.storage.destroy import destroy
from appliance.trust import keys, seal

GRACE = 15.0  # seconds vision has to end a deployment itself: it knows the counts
IDLE_SECONDS = 10.0  # a keeper that systemd started for a connection ends when so long nobody asks
_TALK_SECONDS = 5.0
_COURIER_SECONDS = 5.0


@dataclass(frozen=True)
class Keeper:
    """Ends deployments of one unit. It opens the keys for each ending anew: while it waits, it holds none."""

    config: UnitConfig
    site: Site
    say: Callable[[str], None]

    def end(self, over: Over) -> Answer:
        """End the armed deployment; an ending that happened already is as good. Raises BluelampError."""
        with self._alone():
            if not self.site.armed.exists():
                return Answer(ended=True)
            armed = read_armed(self.site, keys.load_public(self.site.key_folder))
            if over.deployment not in (None, armed.deployment):
                error = f"{armed.deployment} is armed here, not {over.deployment}; disarm that one"
                return Answer(ended=False, error=error)
            self._finish(armed, over)
        return Answer(ended=True)

    def judge(self, grace: float = GRACE) -> None:
        """End the armed deployment where files and clock say that it is over. Raises BluelampError."""
        with self._alone():
            if not self.site.armed.exists():
                self.site.disarm.unlink(missing_ok=True)
                return
            public = keys.load_public(self.site.key_folder)
            reason = due(self.site, public, grace)
            if reason is not None:
                self._finish(read_armed(self.site, public), Over(reason=reason))

    def _finish(self, armed: Armed, over: Over) -> None:
        """The key first: that takes no passphrase, and the receipt, which does, can wait for one."""
        destroy(self.site.key_folder / "sealing" / f"{armed.sealing_key}.pem")
        receipt, _ = finish(self.site, keys.load(self.site.key_folder), over.reason, over.counts)
        count = len(receipt.files)
        self.say(f"{receipt.deployment} is over ({receipt.reason}): key and {count} sealed files destroyed")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One keeper at a time: of two that come at once the second finds nothing armed."""
        try:
            self.site.state.mkdir(parents=True, exist_ok=True)
            with (self.site.state / "ending.lock").open("w") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise KeeperError(f"{error}; make room or mend the disk: the next keeper goes on from here") from error

    def hand_over(self) -> bool:
        """Give every receipt that no courier took yet to the courier; False where some are left, which is said."""
        waiting = sorted((self.site.state / "receipts").glob(f"*{SEALED}"))
        reachable = waiting and link.answers(layout.socket_path(self.config))
        left = [path for path in waiting if not (reachable and self._delivered(path))]
        if left:
            path = left[0].with_suffix(".json")
            self.say(f"no courier took the receipt; it is sent as soon as one runs, or bring {path} to the base")
        return not left

    def _delivered(self, path: Path) -> bool:
        blob = path.read_bytes()
        link_ = CourierLink(
            layout.socket_path(self.config), seal.take_apart(blob, LIMITS.envelope_bytes).header.deployment,
            say=lambda line: None,
        )  # fmt: skip
        link_.send(blob, "receipt")
        if link_.close(_COURIER_SECONDS) or link_.counts.dropped:
            return False
        path.unlink(missing_ok=True)
        return True


def keeper_of(config: UnitConfig, say: Callable[[str], None]) -> Keeper:
    """The keeper of a unit. Raises ConfigError where the configuration names no order: nothing is ever armed."""
    part = config.unit
    if part.order is None:
        raise ConfigError("the configuration names no order; set 'order' under [unit]: without one nothing is armed")
    return Keeper(config, Site(part.keys, part.watchlist, part.order, part.state, courier=part.courier_folder), say)


class Desk:
    """The keeper's end of the local socket."""

    def __init__(self, keeper: Keeper, gate: Gate) -> None:
        self._keeper, self._gate = keeper, gate
        self._allowed = {0, os.getuid(), *layout.uids(keeper.config.unit.users)}

    def serve(self, idle: float | None = None) -> None:
        """Answer until `stop`, or until nobody asked for `idle` seconds."""
        while (stream := self._gate.accept(idle)) is not None:
            self._attend(stream)

    def stop(self) -> None:
        """Answer no more; `serve` returns."""
        self._gate.close()

    def _attend(self, stream: socket.socket) -> None:
        with stream:
            stream.settimeout(_TALK_SECONDS)
            try:
                link.write_record(stream, self._answered(stream))
            except (OSError, CourierError) as error:
                self._keeper.say(f"keeper's socket: {error}")
        try:
            self._keeper.hand_over()
        except (OSError, BluelampError) as error:
            self._keeper.say(f"the receipt could not be handed over: {error}")

    def _answered(self, stream: socket.socket) -> Answer:
        uid = link.peer_uid(stream)
        if uid not in self._allowed:
            raise CourierError(f"refused a process of user {uid}; only {sorted(self._allowed)} may end a deployment")
        over = link.read_record(stream, Over)
        try:
            return self._keeper.end(over)
        except BluelampError as error:
            self._keeper.say(f"the deployment could not be ended: {error}")
            return Answer(ended=False, error=str(error)[:600])
