"""An LED for tests: a driver that remembers what was written to it."""

from __future__ import annotations

import os
import threading
from pathlib import Path


class Driver:
    """A driver behind `brightness`: a pseudo-terminal that remembers every value and answers with what `obeys`."""

    def __init__(self, folder: Path) -> None:
        self.seen: list[str] = []
        self.obeys = True
        self._near, self._far = os.openpty()
        import tty

        tty.setraw(self._far)
        (folder / "brightness").unlink()
        (folder / "brightness").symlink_to(os.ttyname(self._far))
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while True:
            try:
                value = os.read(self._near, 16).decode().strip()
            except OSError:
                return
            self.seen.append(value)
            os.write(self._near, f"{value if self.obeys else 0}\n".encode())

    def close(self) -> None:
        os.close(self._near)
        os.close(self._far)
