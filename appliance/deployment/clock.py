"""What time it is, for somebody who must not be fooled about it. The rules:

 K1  The wall clock is never believed when it shows a time before the newest signed time this machine holds
     (order, watchlist, roster, pre-flight, its own audit log): that time has certainly passed.
 K2  From arming on, the steady clock counts. Where the wall clock falls behind it by more than SLACK, it was set
     back, and the unit disarms for good.
 K3  A window opens when both wall and steady time are inside, and closes as soon as either is past its end: setting
     the clock forward can only shorten a deployment.
 K4  After a restart in the same boot the steady clock of the arming still counts (CLOCK_BOOTTIME, which runs in
     suspend too); after a new boot, K1 with the time of the arming as one more signed time.

A wrong clock that shows a time between the newest signed time and the window's end cannot be found out without
another source of time; the order's window bounds what that can do.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from appliance.records import Record
from appliance.times import utc

SLACK = 5.0  # seconds; NTP slews faster errors away, and steps of a healthy clock are smaller
SIGNED_SLACK = 120.0  # seconds the unit's clock may be behind the base's


class ClockPoint(Record):
    """A reading of both clocks: `wall` UTC seconds, `boottime` CLOCK_BOOTTIME seconds, `boot` the boot's id."""

    wall: float
    boottime: float
    boot: str


def read_point() -> ClockPoint:
    """Both clocks now."""
    boottime = time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
    return ClockPoint(wall=time.time(), boottime=boottime, boot=_boot())


def reached(now: ClockPoint, then: ClockPoint) -> float:
    """The latest UTC time that is certain or claimed: a clock set back since `then` does not undo what has passed."""
    steady = then.wall + (now.boottime - then.boottime) if now.boot == then.boot and now.boot else then.wall
    return max(now.wall, steady)


def since_signed(now: float, newest_signed: float) -> str | None:
    """K1: a reason not to believe `now`, or None."""
    if now < newest_signed - SIGNED_SLACK:
        return f"the clock says {utc(now)}, but something was already signed at {utc(newest_signed)}: set the clock"
    return None


def since_point(now: ClockPoint, then: ClockPoint) -> str | None:
    """K4: a reason not to believe the clock now, given a reading at arming."""
    if now.boot == then.boot and now.boot:
        behind = then.wall + (now.boottime - then.boottime) - now.wall
        return None if behind <= SLACK else f"the clock was set back by {behind:.0f} s since arming: set it right"
    return since_signed(now.wall, then.wall)


@dataclass
class SteadyClock:
    """K2 and K3 from one reading on. `wall` UTC seconds and `steady` monotonic seconds of that reading."""

    wall: float
    steady: float
    set_back: bool = False

    def refusal(self, wall: float, steady: float, not_before: float, not_after: float) -> str | None:
        """Why scanning must stop at these readings, or None. A clock once set back is never believed again."""
        expected = self.wall + (steady - self.steady)
        if wall < expected - SLACK:
            self.set_back = True
        if self.set_back:
            return "the clock was set back while armed; set it right and arm again under a new order"
        if min(wall, expected) < not_before:
            return f"the window begins at {utc(not_before)}, it is {utc(min(wall, expected))}"
        if max(wall, expected) >= not_after:
            return f"the window ended at {utc(not_after)}, it is {utc(max(wall, expected))}"
        return None


def _boot() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else ""
