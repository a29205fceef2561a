"""`bluelamp-control tail`: what arrives, verified and opened, as a live table or as JSON lines."""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from appliance.errors import BluelampError
from appliance.records import Alert, CourierState, Health
from appliance.transport import tls
from appliance.transport.mqtt import BrokerAddress
from appliance.trust import keys
from control.receive.inbox import Opened, Reason, RefusedError
from control.receive.sorting import Desk, Hearers
from control.receive.subscriber import Subscriber, client_id

_ROWS = 20
_SAID = 4


class TailError(BluelampError):
    """What was waited for did not come."""

    exit_code = 9


class NeverConnectedError(BluelampError):
    """The broker was not reached in the whole time that was given."""

    exit_code = 10


@dataclass(frozen=True)
class Until:
    """When to end: after so many alerts, after so many seconds; None is never."""

    count: int | None = None
    seconds: float | None = None


class Tail:
    """Alerts as they come. `show` is called with each opened message before the broker is told that it is ours."""

    def __init__(self, folder: Path, broker: BrokerAddress, until: Until, *, session: str = "tail") -> None:
        self._desk = Desk(keys.load(folder), Hearers(self._opened, self._state, self._refused, self._say))
        files = self._desk.tls_files()
        self.inbox = self._desk.inbox
        self.alerts = 0
        self.units: dict[str, CourierState] = {}
        self.healths: dict[str, Health] = {}
        self._until, self._is_over = until, False
        self._listeners: list[Callable[[Opened], None]] = []
        self._status: list[Callable[[str], None]] = []
        name = client_id(tls.common_name(files), session, files)
        self.subscriber = Subscriber(broker, files, name, self._desk.handle, status=self._say)

    def run(self, show: Callable[[Opened], None], say: Callable[[str], None]) -> None:
        """Receive until the end that was asked for. Raises TailError where too few alerts came in the time,
        NeverConnectedError where the broker was not reached in it."""
        self._listeners, self._status = [show], [say]
        timer = threading.Timer(self._until.seconds or 0.0, self._end)
        timer.daemon = True
        if self._until.seconds is not None:
            timer.start()
        try:
            self.subscriber.run()
        finally:
            timer.cancel()
        if self._until.count is not None and self.alerts < self._until.count:
            raise TailError(f"{self.alerts} of {self._until.count} alerts came in {self._until.seconds:g} s")
        if self._is_over and not self.subscriber.reached:
            raise NeverConnectedError(f"never connected to the broker in {self._until.seconds:g} s")

    def _end(self) -> None:
        self._is_over = True
        self.subscriber.stop()

    def _opened(self, opened: Opened) -> None:
        if isinstance(opened.record, Health):
            self.healths[opened.record.unit] = opened.record
        for listener in self._listeners:
            listener(opened)
        if opened.alert is not None:
            self.alerts += 1
            if self.alerts == self._until.count:
                self.subscriber.stop()

    def _state(self, state: CourierState) -> None:
        self.units[state.unit] = state

    def _refused(self, topic: str, refusal: RefusedError) -> None:
        self._say(f"refused: {refusal}")

    def _say(self, line: str) -> None:
        for listener in self._status:
            listener(line)


def alert_json(opened: Opened, alert: Alert) -> str:
    """One line: the alert without its picture, when it arrived, seconds since its frame was taken, remarks."""
    return json.dumps(
        {
            **alert.model_dump(exclude={"chip"}),
            "received": opened.received,
            "latency": round(opened.received - alert.observed, 4),
            "notes": list(opened.notes),
        }
    )


def tail_json(tail: Tail) -> None:
    """Alerts as JSON lines on stdout; everything else goes to stderr."""

    def show(opened: Opened) -> None:
        if opened.alert is not None:
            print(alert_json(opened, opened.alert), flush=True)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    try:
        tail.run(show, say)
    finally:
        say(summary(tail))


def tail_table(tail: Tail, console: Console) -> None:
    """Alerts as a live table: newest last, refusals and units at the foot."""
    rows: deque[Opened] = deque(maxlen=_ROWS)
    said: deque[str] = deque(maxlen=_SAID)
    with Live(_page(tail, rows, said), console=console, refresh_per_second=4) as live:

        def show(opened: Opened) -> None:
            if opened.alert is not None:
                rows.append(opened)
            live.update(_page(tail, rows, said))

        def say(line: str) -> None:
            said.append(line)
            live.update(_page(tail, rows, said))

        tail.run(show, say)
        live.update(_page(tail, rows, said))


def summary(tail: Tail) -> str:
    """Counts in one line."""
    return f"{tail.alerts} alert(s), {tail.inbox.missing()} missing; refused: {_counts(tail.inbox.refused)}"


def _counts(refused: Counter[Reason]) -> str:
    return ", ".join(f"{reason.value} {count}" for reason, count in refused.most_common()) or "none"


def _page(tail: Tail, rows: deque[Opened], said: deque[str]) -> Group:
    table = Table(title="Alerts: a machine asks, a human decides", expand=False)
    for name in ("time (UTC)", "unit", "camera", "reference identifier", "category"):
        table.add_column(name)
    for name in ("score", "threshold", "quality", "latency"):
        table.add_column(name, justify="right")
    table.add_column("remarks")
    for opened in rows:
        if opened.alert is not None:
            table.add_row(*_cells(opened, opened.alert))
    foot = [Text(line, style="dim") for line in [summary(tail), *_units(tail), *said]]
    return Group(table, *foot)


def _cells(opened: Opened, alert: Alert) -> list[Text]:
    when = datetime.fromtimestamp(alert.captured, timezone.utc).strftime("%H:%M:%S.%f")[:-4]
    cells = [
        when, alert.unit, alert.camera, alert.reference_identifier, alert.category, f"{alert.score:.3f}",
        f"{alert.threshold:.3f}", f"{alert.quality:.2f}", f"{(opened.received - alert.observed) * 1000:.0f} ms",
        "; ".join(opened.notes),
    ]  # fmt: skip
    return [Text(cell) for cell in cells]


def _units(tail: Tail) -> list[str]:
    lines = []
    for name, state in sorted(tail.units.items()):
        health = tail.healths.get(name)
        line = f"{name}: {state.state}, {state.queued} envelope(s) wait"
        if health is not None:
            frames = sum(camera.frames for camera in health.cameras)
            line += f"; {health.state}, {frames} frames, {health.tracks} tracks, {health.alerts} alerts"
        lines.append(line)
    return lines
