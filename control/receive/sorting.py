"""Where messages are sorted: verified and opened by the inbox, then handed on by kind. `tail` and `serve` share it.

A roster that is installed meanwhile counts at once, also for what was quarantined until it came.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from appliance.errors import BluelampError
from appliance.records import CourierState
from appliance.transport import tls
from appliance.transport.mqtt import Received
from appliance.trust import keys
from control.receive.inbox import Inbox, Opened, Reason, RefusedError


@dataclass(frozen=True)
class Hearers:
    """Who hears of what. Where `opened` raises, the message counts as never received."""

    opened: Callable[[Opened], None]
    state: Callable[[CourierState], None]
    refused: Callable[[str, RefusedError], None]  # topic and reason; repeats are not worth a word
    say: Callable[[str], None]


class Desk:
    """The inbox of one control room and its roster. Not thread-safe."""

    def __init__(self, folder: keys.KeyFolder, hearers: Hearers) -> None:
        self.keys = folder
        self.inbox = Inbox(folder)
        self._hearers = hearers
        self._roster_stamp = _stamp(folder.folder)

    def tls_files(self) -> tls.TlsFiles:
        """The control room's certificate for the broker."""
        ca, certificate, key = self.keys.tls
        return tls.TlsFiles(ca=ca, certificate=certificate, key=key)

    def handle(self, message: Received) -> None:
        """Sort one message. Raises what `opened` raises."""
        self.renew_roster()
        if message.topic.endswith("/state"):
            self._take_state(message)
        else:
            self._take(message.topic, message.payload)

    def renew_roster(self) -> bool:
        """Put a newer roster to use, where one was installed. Returns whether there was one.

        One that does not verify is said and not used: a broken file must not stop what works.
        """
        stamp = _stamp(self.keys.folder)
        if stamp == self._roster_stamp:
            return False
        self._roster_stamp = stamp
        try:
            roster = keys.load_roster(self.keys.folder)
        except BluelampError as error:
            self._hearers.say(f"{error}; the roster before it stays in use")
            return False
        self._hearers.say(f"roster version {roster.version} is in use")
        self.keys = replace(self.keys, roster=roster)
        waiting = self.inbox.use_roster(roster)
        try:
            while waiting:
                self._take(*waiting[0])
                del waiting[0]
        except BaseException:
            self.inbox.quarantine.extend(waiting)
            self._roster_stamp = None  # looked at again with the next message
            raise
        return True

    def _take_state(self, message: Received) -> None:
        try:
            state = self.inbox.state(message.topic, message.payload)
        except RefusedError as refusal:
            self._hearers.refused(message.topic, refusal)
            return
        self._hearers.state(state)

    def _take(self, topic: str, payload: bytes) -> None:
        try:
            opened = self.inbox.receive(topic, payload, time.time())
        except RefusedError as refusal:
            if refusal.reason is not Reason.DUPLICATE:
                self._hearers.refused(topic, refusal)
            return
        self._hearers.opened(opened)
        self.inbox.accept(opened)


def _stamp(folder: Path) -> tuple[int, int] | None:
    try:
        status = (folder / "roster.json").stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino
