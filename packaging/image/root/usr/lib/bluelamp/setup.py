#!/usr/bin/python3 -I
"""Set up a new unit from a stick. Two visits, as the design wants it: private keys are made here and never travel.

first   site.toml is on the stick: it is checked and kept, keys are made, the request is written to the stick
second  the base's answer is on the stick: it is installed if the base's fingerprint is the one in site.toml
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent
PLACE = Path("/run/bluelamp/setup")
KEYS = Path("/var/lib/bluelamp/keys")
UPLOAD = Path("/var/lib/bluelamp/upload")
ARMED = Path("/var/lib/bluelamp/state/armed.json")
UNIT = "/usr/bin/bluelamp-unit"


def main(arguments: list[str]) -> None:
    """Mount the stick, take what is on it, release it. Raises SystemExit with what to do."""
    again = arguments == ["--again"]
    if again and ARMED.exists():
        raise SystemExit("a deployment is armed: disarm first")
    device = stick() if again else arguments[0]
    PLACE.mkdir(parents=True, exist_ok=True)
    # Written to once, at the first visit: the request. Kept apart from the mount that lists and orders are read from.
    run("/usr/bin/mount", "-t", "vfat,exfat", "-o", "rw,sync,nodev,nosuid,noexec,umask=077", device, str(PLACE))
    try:
        if (PLACE / "site.toml").is_file():
            take_site(again)
        for answer in sorted(PLACE.glob("*admission.json"))[:16]:
            take_answer(answer)
    finally:
        run("/usr/bin/umount", str(PLACE))
    if (KEYS / "authorities.json").exists():
        # Not waited for: the check alone takes longer than anybody wants to stand there with a stick.
        run("/usr/bin/systemctl", "restart", "--no-block", "bluelamp.target")
        # The same stick may hold list and order.
        run("/usr/bin/systemctl", "start", "--no-block", f"bluelamp-stick@{Path(device).name}.service")


def take_site(again: bool) -> None:
    """Check and keep site.toml; at the first visit make keys and leave the request on the stick."""
    sites = _sites()
    try:
        site = sites.read(PLACE / "site.toml")
    except sites.SiteError as error:
        raise SystemExit(f"setup: site.toml was not taken. {error}") from error
    if again and sites.SITE.exists():
        known = sites.read(sites.SITE)
        if (known["name"], known["authority"]) != (site["name"], site["authority"]):
            raise SystemExit("setup: name and authority stay as they are; only a newly written image takes others")
    shutil.copyfile(PLACE / "site.toml", sites.SITE)
    sites.apply(site)
    say(f"site.toml taken: this is {site['name']}")
    if (KEYS / "authorities.json").exists():
        return
    printed = run(UNIT, "keys", "request", str(KEYS), "--name", site["name"])
    target = PLACE / f"{site['name']}.request.json"
    shutil.copyfile(KEYS / "request.json", target)
    os.sync()
    say(f"request written to the stick: {target.name}; bring it to the base, and read them this fingerprint:")
    print("  " + printed.strip().splitlines()[-1].strip(), flush=True)


def take_answer(answer: Path) -> None:
    """Install the base's answer, where its authority has the fingerprint that site.toml names."""
    sites = _sites()
    site = sites.read(sites.SITE)
    copy = UPLOAD / "setup-admission.json"
    if answer.stat().st_size > sites.MOST_BYTES * 16:
        raise SystemExit(f"setup: {answer.name} is too large for an admission")
    shutil.copyfile(answer, copy)
    shutil.chown(copy, "root", "bluelamp-upload")
    copy.chmod(0o640)
    try:
        say(run(UNIT, "keys", "admit", str(KEYS), str(copy), "--fingerprint", site["authority"]).strip())
    finally:
        copy.unlink()


def stick() -> str:
    """The device of a stick that is plugged in. Raises SystemExit."""
    for path in sorted(Path("/dev/disk/by-id").glob("usb-*")):
        return str(path.resolve())
    raise SystemExit("no stick is plugged in")


def _sites() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_file", HERE / "site.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def say(text: str) -> None:
    print(f"setup: {text}", flush=True)


def run(*command: str) -> str:
    """Run a program and return what it printed. Raises SystemExit with its message."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(
            f"setup: {' '.join(command[:3])} failed: {(done.stderr.strip() or done.stdout.strip())[-2000:]}"
        )
    return done.stdout


if __name__ == "__main__":
    main(sys.argv[1:])
