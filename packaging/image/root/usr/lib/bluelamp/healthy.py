#!/usr/bin/python3 -I
"""Is this version fit to stay: the models compute what they should, the services that must run do, the state is there.

An unfit version is not marked as good. Where the other slot holds a version to go back to, the unit restarts; after
three such starts the boot loader takes that one. What a field team can put right (no camera, no order, no network) is
not looked at here: `check` says it. A fit version becomes the floor: no older one is installed after it.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

ADMITTED = Path("/var/lib/bluelamp/keys/tls.crt")
MUST_RUN = ("bluelamp-keeper.socket", "bluelamp-keeper-once.timer", "bluelamp-vision.path")


def main() -> int:
    """Print a line for each fault; return how many there are."""
    faults = []
    if not Path("/var/lib/bluelamp").is_mount():
        faults.append("the state is not mounted")
    for unit in (*MUST_RUN, *(["bluelamp-courier.socket"] if ADMITTED.exists() else [])):
        if subprocess.run(["/usr/bin/systemctl", "is-active", "--quiet", unit], check=False).returncode:
            faults.append(f"{unit} is not running")
    models = subprocess.run(["/usr/bin/bluelamp-unit", "models", "verify"], capture_output=True, text=True, check=False)
    if models.returncode:
        faults.append(f"model packs: {models.stderr.strip() or models.stdout.strip()}")
    for fault in faults:
        print(f"unfit: {fault}", flush=True)
    if not faults:
        raise_floor()
        print("healthy: this version stays", flush=True)
    elif other_slot_is_good():
        print("the unit restarts, to go back to the other version", flush=True)
        subprocess.run(["/usr/bin/systemctl", "reboot"], check=False)
    return len(faults)


def other_slot_is_good() -> bool:
    """Is there a version to go back to."""
    running = re.search(r"rauc\.slot=(\w)", Path("/proc/cmdline").read_text())
    slots = sibling("update_slots")
    return any(slots.is_good(slot) for slot in slots.SLOTS if running and slot != running.group(1))


def raise_floor() -> None:
    """Remember the newest version that was ever fit."""
    rules = sibling("update_rules")
    if rules.parts(rules.running_version()) > rules.parts(rules.floor_version()):
        part = rules.FLOOR.with_suffix(".part")
        part.write_text(rules.running_version() + "\n")
        part.replace(rules.FLOOR)


def sibling(name: str) -> ModuleType:
    """A program beside this one, as a module."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).resolve().parent / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.exit(min(main(), 1))
