"""Live TPIR and FPIR of a deployment: volunteers who walk past, and everybody else (requirement 20).

Volunteers of the blue list walk past; the field team logs each pass with one key press. An alert of the blue list
within MATCH seconds of a press is a pass recognised; a press without one is a pass missed. Everybody else in the
footfall is non-mated, save the few on the list: alerts that were adjudicated as false give live FPIR.

An alert of the blue list without a press is counted apart as unexplained: a forgotten press or a false alert, which
only the team can tell. Intervals are Clopper-Pearson, exact and never too short: 95 % for showing; for the alarm the
one-sided 99.9 % lower limit, because it is asked again after every alert, and what is asked often is crossed by chance.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from appliance.rates import Share, lower, share
from appliance.records import Record

MATCH = 15.0  # seconds between a press and the alert it belongs to, either way
_ALARM = 0.001  # chance of a needless alarm, asked once
Mark = Literal["passed", "false"]


class Pressed(Record):
    """One key press of the field team: a volunteer passed, or an alert was adjudicated as false."""

    time: float
    mark: Mark
    note: str = Field(default="", max_length=64)


class LiveFigures(Record):
    """What was measured so far. `tpir` over logged passes, `fpir` over non-mated probes."""

    tpir: Share
    fpir: Share
    unexplained: int


@dataclass
class BlueList:
    """Counts presses and alerts. Pure: times come in, figures go out."""

    category: str
    greatest_fpir: float
    _passes: list[float] = field(default_factory=list)
    _alerts: list[float] = field(default_factory=list)
    _false: int = 0

    def pressed(self, press: Pressed) -> None:
        """The field team pressed a key."""
        if press.mark == "passed":
            self._passes.append(press.time)
        else:
            self._false += 1

    def alerted(self, time: float, category: str) -> None:
        """The unit raised an alert."""
        if category == self.category:
            self._alerts.append(time)

    def figures(self, probes: int, now: float) -> LiveFigures:
        """The figures at `now` after `probes` compared tracks. A pass still within MATCH of now is not yet judged."""
        matched, unexplained = _matched(self._passes, self._alerts)
        judged = sum(1 for p in self._passes if p in matched or now - p > MATCH)
        footfall = max(0, probes - len(self._alerts))
        return LiveFigures(tpir=share(len(matched), judged), fpir=share(min(self._false, footfall), footfall),
                           unexplained=unexplained)  # fmt: skip

    def counts(self) -> tuple[int, int, int]:
        """Passes logged, passes followed by an alert, and alerts adjudicated as false."""
        return len(self._passes), len(_matched(self._passes, self._alerts)[0]), self._false

    def alarm(self, probes: int) -> str | None:
        """A reason for alarm: the FPIR is above the order's greatest, beyond reasonable chance."""
        footfall = max(0, probes - len(self._alerts))
        false = min(self._false, footfall)
        low = lower(false, footfall, _ALARM)
        if low <= self.greatest_fpir:
            return None
        return (f"live FPIR is at least {low:.2g} ({false} false alerts among {footfall} faces compared), the order "
                f"allows {self.greatest_fpir:.2g}")  # fmt: skip


@dataclass
class PressLog:
    """The file the team's presses go to, read on as it grows."""

    path: Path
    _read: int = 0

    def add(self, press: Pressed) -> None:
        """Log one press."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(press.model_dump_json() + "\n")

    def news(self) -> list[Pressed]:
        """Presses since the last call; a half-written line waits, a malformed one is left out."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self._read)
            text = file.read(1 << 20)
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        return [p for p in map(_press, whole.splitlines()) if p is not None]


def monitor(blue: BlueList, log: PressLog, probes: Callable[[], int]) -> Callable[[], str | None]:
    """What a permit asks every second: new presses are taken in, then the alarm is asked."""

    def alarm() -> str | None:
        for press in log.news():
            blue.pressed(press)
        return blue.alarm(probes())

    return alarm


def _matched(passes: list[float], alerts: list[float]) -> tuple[set[float], int]:
    """Passes that an alert belongs to, and alerts that belong to none; each press takes the nearest free alert."""
    free, matched = sorted(alerts), set()
    for press in sorted(passes):
        near = [a for a in free if abs(a - press) <= MATCH]
        if near:
            free.remove(min(near, key=lambda a: abs(a - press)))
            matched.add(press)
    return matched, len(free)


def _press(line: bytes) -> Pressed | None:
    try:
        return Pressed.model_validate(json.loads(line))
    except (ValueError, ValidationError):
        return None
