#!/usr/bin/python3 -I
"""Turn site.toml, which a technician wrote, into unit.toml and the two drop-ins that go with it.

site.toml is the one file that a technician writes. It is checked as a whole, and every mistake is told at once.
Anything it does not name keeps the package's own setting.
"""

from __future__ import annotations

import ipaddress
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import tomllib

SITE = Path("/etc/bluelamp/site.toml")
UNIT = Path("/etc/bluelamp/unit.toml")
DROP_INS = Path("/run/systemd/system")
HOSTS = Path("/run/bluelamp-network/hosts")
MOST_BYTES = 65536
KNOWN = {"name", "authority", "smallest_face", "threads", "broker", "camera", "beacon", "position"}


class SiteError(Exception):
    """site.toml cannot be used; the text names every mistake."""


def read(path: Path) -> dict[str, Any]:
    """A checked site.toml. Raises SiteError."""
    try:
        with path.open("rb") as file:
            blob = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise SiteError(f"{path}: {error.strerror}") from error
    if len(blob) > MOST_BYTES:
        raise SiteError(f"{path}: larger than {MOST_BYTES} bytes; this is not a site.toml")
    try:
        site = tomllib.loads(blob.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SiteError(f"{path}: not TOML ({error}); mend that line") from error
    if mistakes := faults(site):
        raise SiteError(f"{path}:\n  " + "\n  ".join(mistakes))
    return site


def faults(site: dict[str, Any]) -> list[str]:
    """Every mistake in a site, in words."""
    found = [f"{key}: unknown key; known here: {', '.join(sorted(KNOWN))}" for key in sorted(site.keys() - KNOWN)]
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", str(site.get("name", ""))):
        found.append('name: write the unit\'s name, a to z, 0 to 9 and hyphens: name = "van-07"')
    if not re.fullmatch(r"[0-9A-Fa-f :-]{32,128}", str(site.get("authority", ""))):
        found.append("authority: write the base's fingerprint, as `bluelamp-provision keys fingerprint` prints it")
    found += _broker_faults(site.get("broker"))
    cameras = site.get("camera")
    if not isinstance(cameras, list) or not cameras:
        found.append("camera: name at least one: [[camera]] with name and source")
    for number, camera in enumerate(cameras if isinstance(cameras, list) else []):
        if not isinstance(camera, dict) or not str(camera.get("source", "")).startswith("/dev/video"):
            found.append(f"camera {number + 1}: source must be a camera of this machine: /dev/video0")
    return found


def _broker_faults(broker: object) -> list[str]:
    if not isinstance(broker, dict) or not isinstance(broker.get("host"), str):
        return ["broker: write [broker] with host and port, and address where host is a name"]
    found = []
    if not re.fullmatch(r"[A-Za-z0-9.:-]{1,253}", broker["host"]):
        found.append("broker.host: a host name or an address")
    try:
        ipaddress.ip_address(broker.get("address", broker["host"]))
    except ValueError:
        found.append("broker.address: write the broker's address; the courier is let through to that one alone")
    if not isinstance(broker.get("port", 8883), int) or not 1 <= broker.get("port", 8883) <= 65535:
        found.append("broker.port: a number from 1 to 65535")
    return found


def unit_toml(site: dict[str, Any], led: Path | None) -> str:
    """The unit's configuration. Strings are written as JSON, which is TOML too."""
    lines = [
        "# Made from site.toml at each start: change that file, not this one.",
        "[unit]",
        'keys = "/var/lib/bluelamp/keys"',
        'watchlist = "/var/lib/bluelamp/deployment/watchlist.blw"',
        'order = "/var/lib/bluelamp/deployment/order.json"',
        'state = "/var/lib/bluelamp/state"',
        'courier = "/var/lib/bluelamp/courier"',
        'run = "/run/bluelamp"',
        'users = ["bluelamp-vision", "bluelamp-courier", "bluelamp-keeper"]',
    ]
    if "position" in site:
        lines.append(f"position = {json.dumps(site['position'])}")
    for camera in site["camera"]:
        lines += ["[[camera]]", *(f"{key} = {json.dumps(value)}" for key, value in camera.items())]
    lines += ["[detect]", f"smallest_face = {json.dumps(site.get('smallest_face', 60))}"]
    if "threads" in site:
        lines += ["[models]", f"threads = {json.dumps(site['threads'])}"]
    broker = site["broker"]
    lines += ["[broker]", f"host = {json.dumps(broker['host'])}", f"port = {broker.get('port', 8883)}", "[beacon]"]
    if led is not None:
        lines.append(f"led = {json.dumps(str(led))}")
    elif "gpio" in site.get("beacon", {}):
        lines.append(f"gpio = {json.dumps(site['beacon']['gpio'])}")
    lines += ["[sandbox]", 'require = ["no-new-privs", "limits", "no-dump", "seccomp"]']
    return "\n".join(lines) + "\n"


def find_led(site: dict[str, Any]) -> Path | None:
    """The lamp's folder in /sys/class/leds. `led` may have one star: "input*::capslock". Raises SiteError."""
    pattern = site.get("beacon", {}).get("led")
    if pattern is None:
        return None
    if not isinstance(pattern, str) or not re.fullmatch(r"[A-Za-z0-9:_*.-]{1,64}", pattern):
        raise SiteError("beacon.led: the name of an LED in /sys/class/leds")
    found = sorted(Path("/sys/class/leds").glob(pattern))
    if not found:
        print(f"site: no LED is called {pattern!r} now; without its lamp the unit does not scan", flush=True)
        return Path("/sys/class/leds") / pattern.replace("*", "0")
    return found[0]


def apply(site: dict[str, Any]) -> None:
    """Write unit.toml and the drop-ins, and let the lamp's LED be lit by vision."""
    led = find_led(site)
    _write(UNIT, unit_toml(site, led))
    broker = site["broker"]
    address = broker.get("address", broker["host"])
    _write(DROP_INS / "bluelamp-courier.service.d/broker.conf", f"[Service]\nIPAddressAllow={address}\n")
    hosts = "127.0.0.1 localhost\n::1 localhost\n"
    _write(HOSTS, hosts + (f"{address} {broker['host']}\n" if address != broker["host"] else ""))
    if led is not None and led.exists():
        _write(DROP_INS / "bluelamp-vision.service.d/led.conf", f"[Service]\nReadWritePaths=-{led.resolve()} -{led}\n")
        for name in ("brightness", "trigger"):
            subprocess.run(["/usr/bin/chgrp", "bluelamp-beacon", str(led / name)], check=False)
            subprocess.run(["/usr/bin/chmod", "0664", str(led / name)], check=False)
    subprocess.run(["/usr/bin/systemd-tmpfiles", "--create", "bluelamp.conf"], check=False)
    subprocess.run(["/usr/bin/systemctl", "daemon-reload"], check=True)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text)
    part.chmod(0o644)
    part.replace(path)


if __name__ == "__main__":
    try:
        apply(read(SITE))
    except SiteError as error:
        sys.exit(f"site: {error}")
    print("site: the configuration follows site.toml", flush=True)
