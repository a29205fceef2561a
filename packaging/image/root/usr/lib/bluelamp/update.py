#!/usr/bin/python3 -I
"""Install the update bundle that is on the stick, or show which version runs: the console's `update` and `version`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PLACE = Path("/run/bluelamp/update-stick")
REFUSED = Path("/run/bluelamp/update-refused")


def install() -> int:
    """Mount the stick read-only, hand the one bundle on it to the updater, say what came of it."""
    device = next((p.resolve() for p in sorted(Path("/dev/disk/by-id").glob("usb-*"))), None)
    if device is None:
        print("no stick is plugged in")
        return 1
    PLACE.mkdir(parents=True, exist_ok=True)
    mount = ["/usr/bin/mount", "-t", "vfat,exfat", "-o", "ro,nodev,nosuid,noexec,umask=077", str(device), str(PLACE)]
    if subprocess.run(mount, check=False).returncode:
        return 1
    try:
        bundles = sorted(PLACE.glob("*.raucb"))
        if len(bundles) != 1:
            print(f"{len(bundles)} update bundles (.raucb) are on the stick; bring one")
            return 1
        REFUSED.unlink(missing_ok=True)
        status = subprocess.run(["/usr/bin/rauc", "install", str(bundles[0])], check=False).returncode
    finally:
        subprocess.run(["/usr/bin/umount", str(PLACE)], check=False)
    if REFUSED.exists():
        print(f"refused: {REFUSED.read_text().strip()}")
    print("installed; it starts at the next restart" if status == 0 else "not installed; the running version stays")
    return status


def show() -> int:
    """The running version, and the updater's own table."""
    for line in Path("/usr/lib/os-release").read_text().splitlines():
        if line.startswith(("IMAGE_VERSION=", "VARIANT_ID=")):
            print(line.replace("IMAGE_VERSION=", "version ").replace("VARIANT_ID=", "image "))
    return subprocess.run(["/usr/bin/rauc", "status"], check=False).returncode


if __name__ == "__main__":
    sys.exit(show() if sys.argv[1:] == ["--show"] else install())
