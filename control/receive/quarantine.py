"""Messages of units that are not on the roster, kept as they came until a newer one names the unit.

The broker forgets what was acknowledged, and refusing to acknowledge would hold up everybody else's alerts. They are
sealed: what lies here tells nobody anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from appliance.limits import LIMITS
from appliance.storage.files import read_bounded, write_private

_TOPIC = 256  # bytes
Message = tuple[str, bytes]  # topic and payload


class Quarantine:
    """A folder of messages, one file each, named by digest. Not thread-safe."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def load(self) -> list[Message]:
        """What lies here, oldest first."""
        paths = sorted(self._folder.glob("[0-9a-f]*"), key=lambda p: (p.stat().st_mtime_ns, p.name))
        return [_split(read_bounded(path, LIMITS.envelope_bytes + _TOPIC)) for path in paths]

    def keep_exactly(self, messages: Iterable[Message]) -> None:
        """Write these and remove all others. Raises OSError where the disk is full."""
        wanted = {hashlib.sha256(payload).hexdigest(): (topic, payload) for topic, payload in messages}
        here = {path.name: path for path in self._folder.glob("[0-9a-f]*")}
        for name in here.keys() - wanted.keys():
            here[name].unlink()
        for name in wanted.keys() - here.keys():
            topic, payload = wanted[name]
            write_private(self._folder / name, topic.encode()[:_TOPIC] + b"\n" + payload)


def _split(blob: bytes) -> Message:
    topic, _, payload = blob.partition(b"\n")
    return topic.decode(errors="replace"), payload
