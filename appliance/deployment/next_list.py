"""A newer version of the list, while the unit scans: additions and removals without a restart.

The base issues version n + 1 sealed to the same key; the field team (or a later transfer) puts it in the old file's
place. It is opened with every check of the first, and two more: it is newer, and the order allows that many versions.
Anything wrong with it leaves the present list in use, and is said once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from appliance.errors import SealError, WatchlistError
from appliance.formats.order import Order
from appliance.formats.watchlist import Watchlist

Opener = Callable[[int], Watchlist]  # least version to the opened list


@dataclass
class ListWatch:
    """Looks at the list's file; `poll` costs one `stat` where nothing changed."""

    path: Path
    order: Order
    unit: str
    open_list: Opener
    say: Callable[[str], None]
    _seen: tuple[int, int, int] | None = field(default=None)

    def __post_init__(self) -> None:
        self._seen = self._stamp()

    def poll(self, current: Watchlist) -> Watchlist | None:
        """The newer list, or None. The caller swaps it in and erases the old one."""
        stamp = self._stamp()
        if stamp is None or stamp == self._seen:
            return None
        self._seen = stamp
        try:
            newer = self.open_list(current.manifest.version + 1)
            follows(newer, current, self.order, self.unit)
        except SealError as error:
            self.say(f"a changed watchlist file was not taken: {error}")
            return None
        self.say(f"watchlist version {newer.manifest.version}: {len(newer.manifest.entries)} templates")
        return newer

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            about = self.path.stat()
        except OSError:
            return None
        return about.st_mtime_ns, about.st_size, about.st_ino


def follows(newer: Watchlist, current: Watchlist, order: Order, unit: str) -> None:
    """Whether `newer` may take the place of `current` under an order that is being obeyed. Raises WatchlistError."""
    a, b = newer.manifest, current.manifest
    named = order.for_unit(unit)
    if a.deployment != b.deployment or (a.not_before, a.not_after) != (b.not_before, b.not_after):
        raise WatchlistError("it is of another deployment or window; issue it again for this one")
    if named is None or a.version > named.version + order.later_versions:
        raise WatchlistError("the order does not allow a later version; ask for a new order")
    if a.version == b.version + 1 and a.previous != current.digest:
        raise WatchlistError("it does not follow the version in use; bring the versions in order")
    if len(a.entries) > order.entries:
        raise WatchlistError(f"{len(a.entries)} entries, the order allows {order.entries}")
    own = [e.threshold for e in a.entries if e.threshold is not None]
    if min((a.threshold, *a.category_thresholds.values(), *own)) < order.threshold:
        raise WatchlistError(f"a threshold is under the order's {order.threshold:.3f}; issue it again")
