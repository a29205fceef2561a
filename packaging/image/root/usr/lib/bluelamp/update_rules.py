#!/usr/bin/python3 -I
"""May this bundle be installed: asked by the updater after it has checked the signature, before it writes anything.

 U1  never while a deployment is armed
 U2  never an older version than the running one, nor than the newest that was ever found healthy here
 U3  never the running version again

The rules are part of the running, verified root: a bundle brings none of its own.
"""

from __future__ import annotations

import configparser
import os
import re
import sys
from pathlib import Path

ARMED = Path("/var/lib/bluelamp/state/armed.json")
FLOOR = Path("/var/lib/bluelamp/configuration/newest-version")
RELEASE = Path("/usr/lib/os-release")


def refusal(new: str, running: str, floor: str, armed: bool) -> str | None:
    """Why the bundle is refused, or None. Versions are numbers with full stops between them."""
    if armed:
        return "U1: a deployment is armed; disarm first"
    if not re.fullmatch(r"\d{1,6}(\.\d{1,6}){1,3}", new):
        return f"U2: {new!r} is not a version of this product"
    if parts(new) == parts(running):
        return f"U3: version {new} is running already"
    if parts(new) < max(parts(running), parts(floor)):
        known = running if parts(running) >= parts(floor) else floor
        return f"U2: version {new} is older than {known}; older versions are refused"
    return None


def parts(version: str) -> tuple[int, ...]:
    """1.2.0 as numbers, without zeros at the end."""
    numbers = [int(n) for n in re.findall(r"\d+", version)]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def running_version() -> str:
    """The version in os-release of the verified root."""
    found = re.search(r"^IMAGE_VERSION=(\S+)$", RELEASE.read_text(), re.MULTILINE)
    return found.group(1).strip('"') if found else "0"


def floor_version() -> str:
    """The newest version that was ever healthy on this unit; 0 before there was one."""
    return FLOOR.read_text().strip() if FLOOR.exists() else "0"


def main() -> int:
    """Read the manifest that the updater has mounted. Exit 1 stops the installation."""
    manifest = configparser.ConfigParser()
    manifest.read(Path(os.environ["RAUC_BUNDLE_MOUNT_POINT"]) / "manifest.raucm")
    why = refusal(manifest["update"]["version"], running_version(), floor_version(), ARMED.exists())
    if why:
        print(f"update refused, {why}", file=sys.stderr, flush=True)
        Path("/run/bluelamp/update-refused").write_text(why + "\n")
    return 1 if why else 0


if __name__ == "__main__":
    sys.exit(main())
