"""`make van`: boot the image in a virtual van, drive it from outside, and look at what arrives at a control room.

Everything is done as people do it: sticks are plugged in and pulled out, commands are typed on the field console, a
USB camera looks at the demo's street, and the broker and the control room stand outside. The image is the field
image: nothing in it is there for this test. Prints a table, or with --json one last line.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import journeys
from camera import Camera, pictures_of
from firmware import enrolled
from machine import Machine, VanError, accelerator
from office import ASSETS, ROOT, Office, command


@dataclass
class Result:
    """What is printed. `steps`: seconds since switching on, by step."""

    armed: bool = False
    alerts: int = 0
    receipt: bool = False
    seconds: float = 0.0
    accelerator: str = ""
    steps: dict[str, float] = field(default_factory=dict)
    error: str | None = None


def main() -> int:
    """Run the journeys that were asked for; 0 when each did what it must."""
    options = _options()
    accel = options.accelerator or accelerator()
    _say(f"accelerator: {accel}")
    with tempfile.TemporaryDirectory(prefix="bluelamp-van-", dir=options.scratch) as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if options.journey:
            return journeys.run(options.journey, folder, options.image, accel, _say)
        result = short(folder, options.image, accel)
    _report(result, options.json)
    if result.error or options.short:
        return 1 if result.error else 0
    with tempfile.TemporaryDirectory(prefix="bluelamp-van-", dir=options.scratch) as temporary:
        return journeys.run("all", Path(temporary), options.image, accel, _say)


def short(folder: Path, image: Path, accel: str) -> Result:
    """From a disk that was never started to the receipt: set up, admit, bring list and order, arm, alert, disarm."""
    result = Result(accelerator=accel)
    office = Office(folder / "office", _free_port())
    office.folder.mkdir(exist_ok=True)
    camera = Camera(folder / "camera.sock", pictures_of(ASSETS / "street.mp4"), speed=0.2 if accel == "tcg" else 1.0)
    camera.start()
    machine = Machine(folder / "van", image, accel, cameras=(camera.path,), variables_from=enrolled(image))
    started = time.monotonic()

    def step(name: str) -> None:
        result.steps[name] = round(time.monotonic() - started, 1)
        _say(f"{result.steps[name]:6.1f} s  {name}")

    try:
        machine.start()
        machine.plug_camera()
        journeys.commission(machine, office, step)
        journeys.deploy(machine, office, step)
        result.armed = True
        journeys.wait_for(machine, lambda: office.of("alert"), 300, "an alert at the control room")
        result.alerts = len(office.of("alert"))
        step("alert at the control room")
        machine.picture(folder / "screen.png")
        machine.command("disarm", 120)
        step("disarmed")
        journeys.wait_for(machine, lambda: office.of("receipt"), 120, "the receipt at the control room")
        step("receipt at the control room")
        (office.folder / "receipt.json").write_bytes(office.of("receipt")[0].content)
        command("provision", "receipts", "take", office.base, office.folder / "receipt.json")
        result.receipt = "gone" in command("provision", "receipts", "verify", office.base, "--json")
        result.alerts = len(office.of("alert"))
    except (VanError, SystemExit) as error:
        result.error = re.sub(r"\s+", " ", str(error))[-1500:]
        _say(str(error))
    finally:
        result.seconds = round(time.monotonic() - started, 1)
        machine.off()
        office.close()
        camera.stop()
    return result


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _report(result: Result, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(result)), flush=True)
        return
    for name, seconds in result.steps.items():
        print(f"{seconds:8.1f} s  {name}")
    print(
        f"armed {result.armed}, alerts {result.alerts}, receipt {result.receipt}; "
        f"{result.seconds} s under {result.accelerator}"
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make van", description=__doc__)
    parser.add_argument("--short", action="store_true", help="one deployment, from a new disk to the receipt")
    parser.add_argument("--json", action="store_true", help="one line of JSON at the end")
    parser.add_argument("--image", type=Path, default=None, help="the disk (dist/bluelamp-unit-VERSION-amd64.img)")
    parser.add_argument("--accelerator", choices=("kvm", "tcg"), help="else KVM is tried for twelve seconds")
    parser.add_argument("--journey", help="one of the longer journeys, by name; 'list' names them")
    parser.add_argument("--keep", type=Path, help="keep disk, console log and office in this folder")
    parser.add_argument("--scratch", type=Path, help="folder for temporary files (the system's)")
    options = parser.parse_args()
    if options.image is None:
        found = sorted(p for p in (ROOT / "dist").glob("bluelamp-unit-*-amd64.img"))
        if not found:
            parser.error("no image in dist/: run `make image` first, as root")
        options.image = found[-1]
    return options


if __name__ == "__main__":
    sys.exit(main())
