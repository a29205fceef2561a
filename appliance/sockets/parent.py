"""A child that ends when its parent does: the parent holds the other end of its standard input."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable


def follow_parent(stop: Callable[[], object]) -> None:
    """Call `stop` from a thread of its own when the parent closed our standard input, or died."""
    threading.Thread(target=_watch, args=(stop,), name="leash", daemon=True).start()


def _watch(stop: Callable[[], object]) -> None:
    poll = select.poll()
    poll.register(0, select.POLLIN | select.POLLHUP)
    while True:
        poll.poll()
        if os.read(0, 4096) == b"":
            stop()
            return
